"""Pictures of shapes are read back as their captions say, and what is wrong in a picture is called wrong."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from travelling import load_alone

shapes = load_alone(Path(__file__).parents[2] / "benchmarks" / "shapes.py")
TWO_GROUPS = shapes.Attributes(2, "red", "circle", "left of", 1, "blue", "square")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 100 pictures."""
    out: Path = tmp_path_factory.mktemp("shapes")
    shapes.write(out, num=100, seed=1)
    return out


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metadata.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def attributes(row: dict[str, str]) -> object:
    """The attributes of a row of metadata.csv."""
    values = {name: row[name] or None for name in shapes.Attributes._fields}
    return shapes.Attributes(**{k: int(v) if v and k.startswith("count") else v for k, v in values.items()})


def test_pictures_of_a_folder_are_read_back(written: Path) -> None:
    listed = rows(written)
    images = shapes.as_tensor([np.array(Image.open(written / row["file_name"])) for row in listed])
    asked = [attributes(row) for row in listed]
    assert [each.caption for each in asked] == [row["text"] for row in listed]  # type: ignore[attr-defined]
    assert min(shapes.rates(shapes.read(images), asked).values()) >= 0.99
    assert min(shapes.rates(shapes.read(shapes.noised(images, 0.03, seed=0)), asked).values()) >= 0.98


def test_held_out_captions_are_in_no_training_picture(written: Path) -> None:
    held_out = json.loads((written / "held_out.json").read_text())
    asked = [shapes.Attributes(**{k: v for k, v in each.items() if k != "text"}) for each in held_out]
    assert [each.caption for each in asked] == [each["text"] for each in held_out]
    assert len(set(asked)) == len(asked) >= 500
    one, two = shapes.training()
    allowed = {*one, *two}
    assert not allowed & {form for each in asked for form in (each, each.mirrored)}
    for each in shapes.combinations()[1]:  # a picture that both captions are true of
        assert (each in allowed) == (each.mirrored in allowed)


def test_each_kind_is_in_training_pictures_of_one_group_and_in_both_places_of_two() -> None:
    one, two = shapes.training()
    kinds = {(colour, shape) for colour in shapes.COLOURS for shape in shapes.HALF_WIDTHS}
    assert {each.groups[0].kind for each in one} == kinds
    for relation in shapes.RELATIONS:
        said = [each.groups for each in two if each.relation == relation]
        assert {first for first, _ in said} == {second for _, second in said}
        assert len({first for first, _ in said}) == len(kinds) * len(shapes.COUNTS)


def test_a_picture_is_the_same_in_a_folder_of_any_size(written: Path, tmp_path: Path) -> None:
    shapes.write(tmp_path, num=3, seed=1)
    assert rows(tmp_path) == rows(written)[:3]
    name = rows(tmp_path)[2]["file_name"]
    assert (tmp_path / name).read_bytes() == (written / name).read_bytes()


def test_what_is_wrong_in_a_picture_is_called_wrong() -> None:
    circle, square = shapes.Placed("red", "circle", 8, 8, 8), shapes.Placed("blue", "square", 24, 16, 8)
    second = circle._replace(y=22)

    def judged(*placed: object) -> dict[str, bool]:
        right: dict[str, bool] = shapes.agreement(
            shapes.read(shapes.as_tensor([shapes.paint(placed, 40)]))[0], TWO_GROUPS
        )
        return right

    def wrong(*placed: object) -> set[str]:
        return {name for name, right in judged(*placed).items() if not right}

    assert wrong(circle, second, square) == set()
    assert wrong(circle, square) == {"count"}
    assert wrong(circle, second) == {"colour", "shape", "count", "relation"}
    assert wrong(circle, second, square._replace(shape="triangle")) == {"shape", "count", "relation"}
    assert wrong(circle, second, square._replace(colour="green")) == {"colour", "shape", "count", "relation"}
    assert wrong(circle._replace(x=26, y=28), second._replace(y=8), square) == {"relation"}
    assert wrong(circle, second, square, square._replace(colour="white", y=4, side=6.5)) == {"colour", "shape", "count"}
    assert wrong() == {"colour", "shape", "count", "relation"}


def test_shapes_that_another_program_drew_are_read() -> None:
    """At 16 times the size, by its own polygons; gray and oblong ones are none of ours."""
    large = Image.new("RGB", (512, 512), (30, 30, 30))
    pen = ImageDraw.Draw(large)
    pen.ellipse((32, 32, 160, 160), fill=shapes.COLOURS["red"])
    pen.polygon([(260, 32), (324, 160), (196, 160)], fill=shapes.COLOURS["green"])
    pen.rectangle((360, 32, 480, 152), fill=shapes.COLOURS["white"])
    pen.rectangle((80, 200, 122, 320), fill=shapes.COLOURS["yellow"])
    pen.rectangle((41, 239, 161, 281), fill=shapes.COLOURS["yellow"])
    pen.rectangle((216, 200, 470, 260), fill=shapes.COLOURS["blue"])
    pen.rectangle((60, 380, 180, 500), fill=(128, 128, 128))
    picture = np.array(large.resize((32, 32), Image.Resampling.BOX))
    found = sorted(shapes.read(shapes.as_tensor([picture]))[0], key=lambda each: (each.y // 10, each.x))
    assert [(each.colour, each.shape) for each in found] == [
        *(("red", "circle"), ("green", "triangle"), ("white", "square")),
        *(("yellow", "cross"), ("blue", None), (None, "square")),
    ]


def test_nothing_is_found_where_nothing_is() -> None:
    assert shapes.read(torch.full((1, 3, 32, 32), 0.2)) == [[]]
