"""Pictures of shapes with captions that are exactly true, and a reader that tells from the pixels what is in them.

    python benchmarks/shapes.py data/shapes --num 20000 --seed 0   # a folder for `--data.source data/shapes`
    python benchmarks/shapes.py --check                            # how often the reader is right
    python benchmarks/shapes.py --sheet sheet.png                  # 64 pictures to look at, captions on stdout

A picture is 32x32, RGB: one group of shapes ("three green triangles"), or two with a relation ("two red circles left
of a blue square"). A group is one to three shapes of one kind, in one of 6 colours and 4 shapes. The background is
plain and dark, its gray level drawn anew for each picture, as are places and sizes. Between two shapes there is always
a gap of 2 pixels. In pictures of two groups the whole first group is on the named side of a line, the second beyond it.

The folder has images/000000.png and so on, metadata.csv with `file_name`, `text` and a column for each attribute, and
held_out.json: captions whose combinations are in no training picture. "A left of B" shows what "B right of A" shows,
so both are held out where one is. Which are held out doesn't depend on --seed: two folders share them. A third of the
pictures have one group. Picture k is the same in a folder of any size.

The reader is given pixels alone. It knows the palette and the four shapes, upright, which it draws by the same code;
`read` says how it works, and `agreement` what counts as right. Pictures must not be flipped: captions would be wrong.
"""

import argparse
import csv
import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from torch import Tensor
from tqdm import tqdm

Floats = NDArray[np.floating]

SIZE = 32
COLOURS = {
    "red": (230, 45, 45),
    "green": (45, 190, 70),
    "blue": (55, 90, 250),
    "yellow": (245, 220, 50),
    "purple": (195, 60, 220),
    "white": (245, 245, 245),
}
ARM = 0.36
"""Width of a cross's arms, as a part of its side."""
HALF_WIDTHS: dict[str, Callable[[Floats], Floats]] = {
    "circle": lambda v: np.sqrt(np.maximum(0.25 - v**2, 0)),
    "square": lambda v: np.full_like(v, 0.5),
    "triangle": lambda v: (v + 0.5) / 2,
    "cross": lambda v: np.where(np.abs(v) <= ARM / 2, 0.5, ARM / 2),
}
"""Half the width of a shape of side 1 at the height v, from -1/2 at its top to 1/2: every row of it is one interval."""
COUNTS = {1: "a", 2: "two", 3: "three"}
RELATIONS = {"left of": (0, -1), "right of": (0, 1), "above": (1, -1), "below": (1, 1)}
"""The axis, 0 for x and 1 for y, and the side of the second group on which the first is."""
OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}

SIDES, GAP, MARGIN = (6.5, 9.0), 2.0, 1.0
"""Smallest and largest side of a shape, the gap between two, and the one at the border; in pixels."""
GRAYS = (16, 64)
ONE_GROUP = 1 / 3
"""The share of pictures with one group."""
HELD_OUT_SEED, HELD_OUT_ONE, HELD_OUT_TWO = 14, 12, 500


class Group(NamedTuple):
    number: int
    colour: str
    shape: str

    @property
    def kind(self) -> tuple[str, str]:
        return self.colour, self.shape

    def __str__(self) -> str:
        plural = "" if self.number == 1 else "es" if self.shape == "cross" else "s"
        return f"{COUNTS[self.number]} {self.colour} {self.shape}{plural}"


class Attributes(NamedTuple):
    """What a caption says. Relation and second group are None together."""

    count1: int
    colour1: str
    shape1: str
    relation: str | None = None
    count2: int | None = None
    colour2: str | None = None
    shape2: str | None = None

    @property
    def groups(self) -> list[Group]:
        first = Group(self.count1, self.colour1, self.shape1)
        if self.count2 is None or self.colour2 is None or self.shape2 is None:
            return [first]
        return [first, Group(self.count2, self.colour2, self.shape2)]

    @property
    def caption(self) -> str:
        return f" {self.relation} ".join(map(str, self.groups))

    @property
    def mirrored(self) -> "Attributes":
        """The other way to say the same: "B right of A" for "A left of B"."""
        if self.relation is None:
            return self
        first, second = self.groups
        return Attributes(*second, OPPOSITE[self.relation], *first)


class Placed(NamedTuple):
    """A shape in a picture: the middle of the square around it, and that square's side, in pixels."""

    colour: str
    shape: str
    x: float
    y: float
    side: float


class Found(NamedTuple):
    """A component that the reader found: `colour` and `shape` are None where it is none of those that it knows."""

    colour: str | None
    shape: str | None
    x: float
    y: float
    """Its centre of mass, in pixels."""
    area: float


@cache
def combinations() -> tuple[list[Attributes], list[Attributes]]:
    """All that can be said, of one group and of two. Two groups differ in colour or shape."""
    groups = [Group(*each) for each in product(COUNTS, COLOURS, HALF_WIDTHS)]
    two = [Attributes(*a, relation, *b) for a, relation, b in product(groups, RELATIONS, groups) if a.kind != b.kind]
    return [Attributes(*group) for group in groups], two


@cache
def held_out() -> tuple[Attributes, ...]:
    """The combinations that are held out: 12 of one group, each of another colour and shape, and 500 of two.

    Of a pair that mirror each other it has one.
    """
    generator = np.random.default_rng(HELD_OUT_SEED)
    one, two = combinations()
    chosen: dict[object, Attributes] = {}
    for index in generator.permutation(len(one)):
        chosen.setdefault(one[index].groups[0].kind, one[index])
    kept = list(chosen.values())[:HELD_OUT_ONE]
    pairs: dict[object, Attributes] = {}
    for index in generator.permutation(len(two)):
        pairs.setdefault(frozenset((two[index], two[index].mirrored)), two[index])
    return (*kept, *list(pairs.values())[:HELD_OUT_TWO])


@cache
def training() -> tuple[list[Attributes], list[Attributes]]:
    """The combinations that training pictures may have, of one group and of two."""
    never = {form for each in held_out() for form in (each, each.mirrored)}
    one, two = ([each for each in kind if each not in never] for kind in combinations())
    return one, two


def choose(generator: np.random.Generator, among: tuple[list[Attributes], list[Attributes]]) -> Attributes:
    """A combination of those given, of one group in a third of the cases."""
    kind = among[0] if generator.random() < ONE_GROUP else among[1]
    return kind[generator.integers(len(kind))]


def place(attributes: Attributes, generator: np.random.Generator) -> list[Placed]:
    """Places and sides for the shapes of a picture of which `attributes` is true."""
    groups = attributes.groups
    if attributes.relation is None:
        (group,) = groups
        return [Placed(*group.kind, *each) for each in _scattered(group.number, generator)]

    axis, side = RELATIONS[attributes.relation]
    before, after = groups if side < 0 else groups[::-1]
    sides = [_sides_in_a_row(group.number, generator) for group in (before, after)]
    line = generator.uniform(MARGIN + sides[0].max() + GAP / 2, SIZE - MARGIN - sides[1].max() - GAP / 2)
    placed = []
    for group, own, (low, high) in zip(
        (before, after), sides, ((MARGIN, line - GAP / 2), (line + GAP / 2, SIZE - MARGIN)), strict=True
    ):
        across = generator.uniform(low + own / 2, high - own / 2)
        along = _in_a_row(own, generator)
        xs, ys = (across, along) if axis == 0 else (along, across)
        placed += [Placed(*group.kind, *map(float, each)) for each in zip(xs, ys, own, strict=True)]
    return placed


def _scattered(count: int, generator: np.random.Generator) -> list[tuple[float, float, float]]:
    """x, y and side of shapes anywhere in the picture."""
    while True:
        sides = generator.uniform(*SIDES, count)
        places = generator.uniform(MARGIN + sides / 2, SIZE - MARGIN - sides / 2, (2, count))
        needed = (sides[:, None] + sides) / 2 + GAP
        apart = np.abs(places[:, :, None] - places[:, None]).max(0) >= needed
        if apart[np.triu_indices(count, 1)].all():
            return list(zip(*places.tolist(), sides.tolist(), strict=True))


def _sides_in_a_row(count: int, generator: np.random.Generator) -> Floats:
    """Sides of shapes that fit into the picture one beside the other."""
    while True:
        sides = generator.uniform(*SIDES, count)
        if sides.sum() + GAP * (count - 1) <= SIZE - 2 * MARGIN:
            return sides


def _in_a_row(sides: Floats, generator: np.random.Generator) -> Floats:
    """Middles of shapes with these sides along a line: what room is left is shared out at random."""
    room = SIZE - 2 * MARGIN - sides.sum() - GAP * (len(sides) - 1)
    ends = MARGIN + np.cumsum(sides) + GAP * np.arange(len(sides)) + np.sort(generator.uniform(0, room, len(sides)))
    return ends - sides / 2


def coverage(shape: str, x: float, y: float, side: float, rows: int = 8) -> Floats:
    """Which part of each pixel the shape covers: exact along x, the mean of `rows` lines along y. (32, 32)"""
    v = ((np.arange(SIZE * rows) + 0.5) / rows - y) / side
    half = np.where(np.abs(v) <= 0.5, HALF_WIDTHS[shape](v) * side, 0)[:, None]
    inside = np.diff(np.arange(SIZE + 1).clip(x - half, x + half), axis=1)
    covered: Floats = inside.reshape(SIZE, rows, SIZE).mean(1)
    return covered


def paint(placed: Iterable[Placed], gray: int) -> NDArray[np.uint8]:
    """The picture. (32, 32, 3)"""
    picture = np.full((SIZE, SIZE, 3), float(gray))
    for each in placed:
        covered = coverage(each.shape, each.x, each.y, each.side)[..., None]
        picture += covered * (np.array(COLOURS[each.colour]) - picture)
    return picture.round().astype(np.uint8)


def draw(attributes: Attributes, generator: np.random.Generator) -> tuple[NDArray[np.uint8], list[Placed]]:
    """A picture (32, 32, 3) of which `attributes` is true, and where the shapes are."""
    placed = place(attributes, generator)
    return paint(placed, int(generator.integers(GRAYS[0], GRAYS[1] + 1))), placed


FOREGROUND = 0.25
"""How far a pixel is from the background in RGB of [0, 1] where it belongs to a shape. Noise of std 0.03 isn't."""
TOLERANCE = 0.25
"""How far a colour may be from one of the palette, whose nearest two are 0.57 apart."""
TINY = 7.0
"""Components of a smaller area, in pixels, are specks and are left out: a third of the smallest shape."""
MATCH = 0.8
"""A component is a shape that it overlaps so far, in intersection over union. True ones do by 0.96 and more, with noise
of std 0.03 by 0.88; a circle and a square by 0.84."""

_PALETTE = np.array(list(COLOURS.values())) / 255


def _area_and_centre(shape: str) -> tuple[float, float]:
    """The area of a shape of side 1, and how far below its middle its centre of mass is."""
    v = (np.arange(10_000) + 0.5) / 10_000 - 0.5
    widths = 2 * HALF_WIDTHS[shape](v)
    return float(widths.mean()), float((v * widths).mean() / widths.mean())


_AREAS_AND_CENTRES = {shape: _area_and_centre(shape) for shape in HALF_WIDTHS}


def read(images: Tensor) -> list[list[Found]]:
    """What is in pictures (n, 3, 32, 32) in [0, 1]: the components of each that are no specks.

    The background is the median of the border. Pixels that are far from it and touch, corners included, are a
    component. Its colour is the median of its pixels that are farthest from the background, if that is near one of the
    palette, and if nearly all its pixels are mixtures of that colour and the background; else it has none. How much of
    the colour is in each pixel is the component's soft mask. Its shape is the one that overlaps the mask best, drawn
    with the same area and centre of mass, if it does so well enough; else it has none.
    """
    return [_read_one(image) for image in images.permute(0, 2, 3, 1).double().cpu().numpy()]


def _read_one(image: Floats) -> list[Found]:
    border = np.concatenate([image[0], image[-1], image[1:-1, 0], image[1:-1, -1]])
    difference = image - np.median(border, axis=0)
    distance = np.linalg.norm(difference, axis=-1)
    components, count = ndimage.label(distance > FOREGROUND, np.ones((3, 3)))
    found = []
    for index in range(1, count + 1):
        inside = components == index
        core = inside & (distance >= 0.85 * np.percentile(distance[inside], 90))
        own = np.median(difference[core], axis=0)
        mask = difference @ own / (own @ own)
        around = ndimage.binary_dilation(inside, np.ones((3, 3))) & ((components == 0) | inside)
        soft = np.where(around, mask, 0)
        area = float(soft.sum())
        if area < TINY:
            continue
        x, y = (float((soft.sum(axis) * (np.arange(SIZE) + 0.5)).sum() / area) for axis in (0, 1))
        mixed = np.linalg.norm(difference - mask[..., None] * own, axis=-1)[inside] <= TOLERANCE
        colour = _colour(own + np.median(border, axis=0)) if mixed.mean() >= 0.9 else None
        found.append(Found(colour, _shape(soft.clip(0, 1), x, y, area), x, y, area))
    return found


def _colour(own: Floats) -> str | None:
    distances = np.linalg.norm(_PALETTE - own, axis=-1)
    return list(COLOURS)[distances.argmin()] if distances.min() <= TOLERANCE else None


def _shape(mask: Floats, x: float, y: float, area: float) -> str | None:
    overlaps = {}
    for shape, (share, below) in _AREAS_AND_CENTRES.items():
        side = (area / share) ** 0.5
        drawn = coverage(shape, x, y - below * side, side)
        overlaps[shape] = np.minimum(mask, drawn).sum() / np.maximum(mask, drawn).sum()
    best = max(overlaps, key=lambda shape: overlaps[shape])
    return best if overlaps[best] >= MATCH else None


def agreement(found: Sequence[Found], attributes: Attributes) -> dict[str, bool]:
    """Whether what was found in a picture is what `attributes` ask for. All components count but specks.

    - colour: the set of the components' colours is the set of colours asked for. A component without a colour of the
      palette makes it wrong, and so does an empty picture.
    - shape: the set of the components' (colour, shape) is the set asked for. So where the colour is wrong, this is.
    - count: of each (colour, shape) there are as many components as asked for, and no others. So where the shape is
      wrong, this is.
    - relation: both groups are there, by their (colour, shape), in whatever number, and all centres of mass of the
      first are on the named side of all of the second. Other components don't matter. There is no such key where one
      group is asked for.
    """
    groups = attributes.groups
    kinds = Counter((each.colour, each.shape) for each in found)
    right = {
        "colour": {each.colour for each in found} == {group.colour for group in groups},
        "shape": set(kinds) == {group.kind for group in groups},
        "count": kinds == {group.kind: group.number for group in groups},
    }
    if attributes.relation is not None:
        right["relation"] = attributes.relation in relations(found, groups[0], groups[1])
    return right


def relations(found: Sequence[Found], first: Group, second: Group) -> list[str]:
    """Which relations the first group has to the second: none, one, or two where it is left of it and above."""
    here, there = ([(e.x, e.y) for e in found if (e.colour, e.shape) == group.kind] for group in (first, second))
    if not here or not there:
        return []
    return [
        name
        for name, (axis, side) in RELATIONS.items()
        if max(-side * each[axis] for each in here) < min(-side * each[axis] for each in there)
    ]


def rates(found: Sequence[Sequence[Found]], asked: Sequence[Attributes]) -> dict[str, float]:
    """The share of pictures where each attribute is right; the relation's among those that ask for one."""
    each = [agreement(*pair) for pair in zip(found, asked, strict=True)]
    names = ("colour", "shape", "count", "relation")
    return {name: float(np.mean([right[name] for right in each if name in right])) for name in names}


def write(out: Path, num: int, seed: int) -> None:
    """The folder: images, metadata.csv and held_out.json."""
    (out / "images").mkdir(parents=True, exist_ok=True)
    rows: list[list[object]] = [["file_name", "text", *Attributes._fields]]
    for index in tqdm(range(num), "Pictures", delay=2):
        generator = np.random.default_rng((seed, index))
        attributes = choose(generator, training())
        name = f"images/{index:06}.png"
        Image.fromarray(draw(attributes, generator)[0]).save(out / name)
        rows.append([name, attributes.caption, *attributes])
    with (out / "metadata.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    listed = [{"text": each.caption, **each._asdict()} for each in held_out()]
    (out / "held_out.json").write_text(json.dumps(listed, indent=1) + "\n")


def as_tensor(pictures: Sequence[NDArray[np.uint8]]) -> Tensor:
    """Pictures (32, 32, 3) as a tensor (n, 3, 32, 32) in [0, 1]."""
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2) / 255


def noised(images: Tensor, std: float, seed: int) -> Tensor:
    """With Gaussian noise, clipped and rounded to 8 bits."""
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(seed))
    return ((images + std * noise).clamp(0, 1) * 255).round() / 255


def check(num: int, seed: int) -> None:
    """Print how often the reader is right on true pictures of all combinations, and what it takes for what."""
    generator = np.random.default_rng((seed, 2**32))  # no picture of a folder has this seed
    asked = [choose(generator, combinations()) for _ in range(num)]
    drawn = [draw(each, generator) for each in asked]
    images = as_tensor([picture for picture, _ in drawn])
    plain, noisy = read(images), read(noised(images, 0.03, seed))
    shuffled = [asked[index] for index in generator.permutation(num)]
    anew = [each._replace(relation=each.relation and str(generator.choice(list(RELATIONS)))) for each in asked]

    print(f"{num} true pictures, {sum(each.relation is not None for each in asked)} of them with a relation\n")
    print(f"{'share that is right':32}" + "".join(f"{name:>10}" for name in ("colour", "shape", "count", "relation")))
    for title, found, words in (
        ("as they are", plain, asked),
        ("with noise of std 0.03", noisy, asked),
        ("chance: captions shuffled", plain, shuffled),
        ("chance: relation drawn anew", plain, anew),
    ):
        print(f"{title:32}" + "".join(f"{rate:10.2%}" for rate in rates(found, words).values()))
    for title, found in (("as they are", plain), ("with noise", noisy)):
        _print_confusions(title, found, [placed for _, placed in drawn], asked)


def _print_confusions(
    title: str, found: Sequence[Sequence[Found]], drawn: Sequence[Sequence[Placed]], asked: Sequence[Attributes]
) -> None:
    """Each component beside the shape that is nearest; each group's count and relation beside what was read."""
    colours, shapes, counts, sides = (Counter[tuple[str, str]]() for _ in range(4))
    for components, placed, attributes in zip(found, drawn, asked, strict=True):
        for each in components:
            true = min(placed, key=lambda other: (other.x - each.x) ** 2 + (other.y - each.y) ** 2)
            colours[true.colour, each.colour or "none"] += 1
            shapes[true.shape, each.shape or "none"] += 1
        groups = attributes.groups
        for group in groups:
            counts[str(group.number), str(sum((e.colour, e.shape) == group.kind for e in components))] += 1
        if attributes.relation is not None:
            sides.update((attributes.relation, name) for name in relations(components, *groups) or ["none"])
    for name, table in (("colour", colours), ("shape", shapes), ("count", counts), ("relation", sides)):
        rows = sorted({true for true, _ in table})
        columns = rows + sorted({read for _, read in table} - set(rows))
        several = "; left of and above may hold at once" if name == "relation" else ""
        print(f"\n{name}, {title}: true down, read across{several}")
        print(" " * 10 + "".join(f"{column:>10}" for column in columns))
        for row in rows:
            print(f"{row:10}" + "".join(f"{table[row, column]:10}" for column in columns))


def tiled(pictures: Sequence[NDArray[np.uint8]], side: int = 8, scale: int = 4) -> Image.Image:
    """Pictures (32, 32, 3) in rows of `side`, each pixel 4x4."""
    step = SIZE * scale + scale
    whole = Image.new("RGB", (side * step, -(-len(pictures) // side) * step), "gray")
    for index, picture in enumerate(pictures):
        row, column = divmod(index, side)
        large = Image.fromarray(picture).resize((SIZE * scale,) * 2, Image.Resampling.NEAREST)
        whole.paste(large, (column * step, row * step))
    return whole


def print_captions(asked: Sequence[Attributes], side: int = 8) -> None:
    """The captions of such pictures, a line each."""
    for index, attributes in enumerate(asked):
        row, column = divmod(index, side)
        print(f"row {row + 1}, picture {column + 1}: {attributes.caption}")


def sheet(path: Path, seed: int, num: int = 64) -> None:
    """A PNG of the first training pictures, and their captions on stdout."""
    generators = [np.random.default_rng((seed, index)) for index in range(num)]
    asked = [choose(generator, training()) for generator in generators]
    tiled([draw(*each)[0] for each in zip(asked, generators, strict=True)]).save(path)
    print_captions(asked)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("out", type=Path, nargs="?", help="the folder to write")
    what.add_argument("--check", action="store_true", help="print how often the reader is right on 2,000 pictures")
    what.add_argument("--sheet", type=Path, help="write 64 pictures into this PNG")
    parser.add_argument("--num", type=int, default=20_000, help="pictures in the folder")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.check:
        check(2000, arguments.seed)
    elif arguments.sheet:
        sheet(arguments.sheet, arguments.seed)
    else:
        write(arguments.out, arguments.num, arguments.seed)
        one, two = training()
        print(
            f"{arguments.num} pictures in {arguments.out}, of {len(one)} combinations of one group and {len(two)} of "
            f"two; {len(held_out())} captions held out"
        )


if __name__ == "__main__":
    main()
