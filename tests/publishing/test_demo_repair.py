"""The page's repairs: what is read off a picture and its paint, what is told of the repairs, and what goes wrong."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from tiny_unet import tiny_unet

from logsnr.pipelines.pipeline_pixel import PixelDiffusionPipeline
from logsnr.pipelines.pipeline_restoration import RestorationPipeline, sources
from logsnr.schedulers.scheduling_beta import CosineBetaScheduler

gradio: Any = pytest.importorskip("gradio", reason="gradio is missing: pip install logsnr[demo]")
from logsnr.space import app, easel, repair  # noqa: E402  # needs gradio

NAMES = {0: "cat", 1: "<b>dog"}


def restorer(channels: int = 1, size: int | tuple[int, int] = 8, names: dict[int, str] | None = None) -> Any:
    unet = tiny_unet(None if names is None else len(names), channels, sample_size=size)
    pipe = RestorationPipeline(unet, CosineBetaScheduler(prediction_type="v_prediction"), names)
    pipe.set_progress_bar_config(disable=True)  # type: ignore[no-untyped-call]
    return pipe


def noise(height: int, width: int, mode: str = "L") -> Image.Image:
    channels = {"L": (), "RGB": (3,), "RGBA": (4,)}[mode]
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, *channels), np.uint8), mode)


def paint(canvas: tuple[int, int], *box: float) -> list[Image.Image]:
    """A layer with a box, in shares of the canvas' (height, width)."""
    layer = Image.new("RGBA", canvas[::-1])
    x_0, y_0, x_1, y_1 = box
    edges = (x_0 * canvas[1], y_0 * canvas[0], x_1 * canvas[1] - 1, y_1 * canvas[0] - 1)
    ImageDraw.Draw(layer).rectangle(edges, fill=repair.PAINT)
    return [layer]


def mended(pipe: Any, **changes: Any) -> repair.Repairs:
    given = repair.crop(noise(*pipe.image_shape[1:]), pipe.image_shape)
    arguments: dict[str, Any] = {
        "given": given,
        "layers": paint(given.picture.size[::-1], 0, 0, 0.5, 0.5),
        "damage": repair.Damage("missing", 0.02, 1.0),
        "number": 4,
        "label": None,
        "method": "diffpir",
        "steps": 3,
        "seed": 5,
        "on_step": lambda done, total: None,
    }
    return repair.repair(pipe, **(arguments | changes))


# The picture


def test_small_pictures_and_those_of_the_canvas_come_through_as_they_are() -> None:
    shape = (1, 8, 8)
    for size in (2, 4, 8):
        picture = noise(size, size)
        given = repair.crop(picture, shape)
        assert given.picture.size == (448, 448)
        assert given.seen == (size, size)
        np.testing.assert_array_equal(repair.reduce(np.asarray(given.picture), (size, size))[0] * 255, picture)


def test_the_middle_of_a_large_picture_in_the_models_channels() -> None:
    photograph = Image.new("RGB", (1000, 700), "red")
    ImageDraw.Draw(photograph).rectangle((150, 0, 849, 699), fill=(10, 20, 30))
    for channels, mode in [(1, "L"), (3, "RGB"), (4, "RGBA")]:
        given = repair.crop(photograph, (channels, 8, 8))
        assert (given.seen, given.picture.mode) == ((700, 700), mode)
        middle = repair.reduce(np.asarray(given.picture), (8, 8))[0]
        np.testing.assert_allclose(middle * 255, middle[0, 0] * 255, atol=1)
    assert repair.crop(photograph, (3, 8, 16)).seen == (500, 1000)
    assert repair.crop(photograph, (3, 600, 600)).picture.size == (600, 600)
    deep = Image.fromarray(np.full((9, 9), 128 * 257, np.uint16))
    assert repair.crop(deep, (1, 8, 8)).picture.getextrema() == (128, 128)
    transparent = repair.crop(Image.new("RGBA", (9, 9)), (1, 8, 8)).picture
    assert transparent.getextrema() == (255, 255)


def test_what_is_painted_over_even_in_part_is_missing() -> None:
    pipe = restorer(3)
    given = repair.crop(noise(8, 8, "RGB"), pipe.image_shape)
    layers = paint((448, 448), 0.25, 0.5, 0.6, 1)
    for kind, size in [("missing", 8), ("half", 4), ("quarter", 2)]:
        damage = repair.Damage(kind, 0.02, 1.0)
        measurement, known = repair.read(given, layers, damage, pipe)
        expected = torch.ones(3, size, size, dtype=torch.bool)
        expected[:, size // 2 :, size // 4 : -(-6 * size // 10)] = False
        assert torch.equal(known, expected)
        assert not bool(measurement[0][~known].any())
        operator = repair.operator_of(damage, known, pipe)
        assert (operator.shape, operator.measurement_shape) == (pipe.image_shape, (3, size, size))


@pytest.mark.parametrize("kind", ["missing", "noise", "blur", "half", "quarter"])
@pytest.mark.parametrize("hole", [False, True])
def test_operators_do_what_is_said_and_have_the_noise_once(kind: str, hole: bool) -> None:
    pipe, damage = restorer(), repair.Damage(kind, 0.1, 1.5)
    side = 8 // damage.factor
    known = torch.ones(1, side, side, dtype=torch.bool)
    known[:, :, 0] = not hole
    operator, kit = repair.operator_of(damage, known, pipe), pipe.operators
    sample = torch.rand(1, 1, 8, 8)
    expected = {
        "blur": lambda: kit.Blur((1, 8, 8), kit.gaussian_kernel(1.5)).apply(sample),
        "half": lambda: torch.nn.functional.avg_pool2d(sample, 2),
        "quarter": lambda: torch.nn.functional.avg_pool2d(sample, 4),
    }.get(kind, lambda: sample)()
    torch.testing.assert_close(operator.apply(sample), expected * known)
    assert operator.noise_std == 0.1


# Repairing


def test_repairs_are_the_pipelines_own_with_a_table_of_what_they_share() -> None:
    pipe, steps = restorer(names=NAMES), list[tuple[int, int]]()
    found = mended(pipe, label=1, on_step=lambda done, total: steps.append((done, total)))
    assert steps == [(1, 3), (2, 3), (3, 3)]

    known = torch.ones(1, 8, 8, dtype=torch.bool)
    known[:, :4, :4] = False
    measurement = torch.from_numpy(np.asarray(noise(8, 8)) / 255)[None].float() * known
    operator = pipe.operators.Mask(known, 0.02)
    out = pipe(measurement, operator, "diffpir", 4, 3, class_labels="<b>dog", generator=5)
    assert [np.array_equal(a, b) for a, b in zip(found.images, out.images, strict=True)] == [True] * 4
    assert found.captions == [f"seed {5 + k} · fit {out.fit[0, k]:.2f}" for k in range(4)]
    assert found.summary.startswith("4 repairs of class &lt;b&gt;dog in ")
    assert "3 steps of diffpir" in found.summary
    assert found.report.count("data:image/png;base64,") == 3
    assert f"<i>{float(out.std.max()):.2f}</i>" in found.report
    assert "standard deviation of the 4 repairs" in found.report


def test_where_memory_is_short_repairs_come_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe, steps = restorer(), list[tuple[int, int]]()
    at_once = mended(pipe, number=3)
    monkeypatch.setattr(repair, "ROOM", 2 * pipe.memory("diffpir"))
    in_turns = mended(pipe, number=3, on_step=lambda done, total: steps.append((done, total)))
    assert steps == [(k + 1, 6) for k in range(6)]
    for a, b in zip(at_once.images, in_turns.images, strict=True):
        np.testing.assert_allclose(np.asarray(a).astype(int), np.asarray(b).astype(int), atol=1)


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB"), (4, "RGBA")])
def test_gray_rgb_and_rgba_of_any_proportions(channels: int, mode: str) -> None:
    pipe = restorer(channels, (8, 16))
    given = repair.crop(noise(40, 40, mode), pipe.image_shape)
    damage = repair.Damage("blur", 0.05, 1.0)
    found = mended(pipe, given=given, layers=[], damage=damage, method="moment", number=2)
    assert {(image.mode, image.size) for image in found.images} == {(mode, (16, 8))}


def test_what_is_told_of_one_repair_of_no_noise_and_of_a_bad_fit() -> None:
    pipe = restorer()
    one = mended(pipe, number=1)
    assert "Two repairs or more" in one.report
    assert one.report.count("data:image/png;base64,") == 2
    exact = mended(pipe, damage=repair.Damage("missing", 0.0, 1.0))
    assert exact.captions[0] == "seed 5"
    assert "no measure of the fit" in exact.summary
    blurred = mended(pipe, damage=repair.Damage("blur", 0.01, 3.0), layers=[])  # noise is nothing that was blurred
    assert "That is too much" in blurred.summary


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"given": None}, "There is no picture. Drop one"),
        ({"layers": []}, "Nothing is painted. Paint over what is missing, or say what else"),
        ({"layers": paint((448, 448), 0, 0, 1, 1)}, "All of the picture is painted over. Leave some"),
        ({"layers": [], "damage": repair.Damage("noise", 0.0, 1.0)}, "the noise is 0. Say how strong"),
        ({"given": repair.crop(noise(9, 6), (1, 8, 8))}, "has 6×6 pixels .* and 8×8 are needed.* half or a quarter"),
        ({"seed": -1}, "The seed must be a whole number from 0 to 4294967295, and is -1"),
        ({"seed": None}, "The seed must be a whole number"),
        ({"steps": 2000}, "num_inference_steps must be in 1..[0-9]+, and is 2000"),
    ],
)
def test_says_what_is_wrong(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        mended(restorer(), **changes)


def test_whatever_a_solver_raises_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = restorer()

    def forward(*args: Any, **kwargs: Any) -> Any:
        raise MemoryError("all of it is full")

    monkeypatch.setattr(pipe.unet, "forward", forward)
    with pytest.raises(ValueError, match=r"3 steps of diffpir ended in MemoryError: all of it is full. Try fewer"):
        mended(pipe)


# The tab


def test_what_is_wrong_is_told_without_a_traceback_and_is_no_html() -> None:
    error = repair.told(ValueError("<ended>"))
    assert (error.message, error.print_exception) == ("&lt;ended&gt;", False)


def test_examples_are_damaged_as_they_say() -> None:
    pipe = restorer()
    found = repair.examples(pipe, lambda number: [noise(8, 8)] * number)
    assert [example.caption for example in found] == ["A hole", "Blur and noise", "Half the size"]
    assert [example.given.seen for example in found] == [(8, 8), (8, 8), (4, 4)]
    for example in found:
        repairs = mended(pipe, given=example.given, layers=example.value["layers"], damage=example.damage, steps=2)
        assert len(repairs.images) == 4
    assert len(repair.examples(restorer(size=(7, 8)), lambda number: [noise(7, 8)] * number)) == 2


@pytest.mark.parametrize(("shape", "number"), [((1, 28, 28), 5), ((3, 6, 8), 4), ((3, 7, 8), 3)])
def test_only_whole_parts_of_the_size_are_offered(shape: tuple[int, int, int], number: int) -> None:
    assert len(repair.kinds(shape)) == number


def test_there_are_tabs_where_something_repairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "find_schedulers", lambda pipe: app.Schedulers(["CosineBeta"], {}))
    pipe = PixelDiffusionPipeline(tiny_unet(), CosineBetaScheduler(prediction_type="v_prediction"))
    for fill, names in [(None, []), (partial(repair.fill, restorer(), easel), ["Draw", "Repair"])]:
        blocks = app.build(pipe, "title", fill).blocks.values()
        assert [block.label for block in blocks if isinstance(block, gradio.Tab)] == names


def test_a_published_model_repairs_where_its_code_is(tmp_path: Path) -> None:
    scheduler = CosineBetaScheduler(prediction_type="v_prediction")
    pipe = PixelDiffusionPipeline(tiny_unet(2), scheduler, NAMES)
    assert repair.load(str(tmp_path), pipe) is None
    for name, content in sources().items():
        (tmp_path / name).write_bytes(content)
    loaded = repair.load(str(tmp_path), pipe)
    assert type(loaded) is not RestorationPipeline
    assert repair.class_names(loaded) == ["cat", "<b>dog"]
    assert mended(loaded, label=0).captions == mended(restorer(names=NAMES), label=0).captions
