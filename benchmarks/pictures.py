"""Folders of pictures out of packages, for what is measured on more than digits.

    npm pack emoji-datasource-google@16.0.0
    apt-get download dataset-fashion-mnist plasma-workspace-wallpapers mate-backgrounds
    for deb in *.deb; do dpkg -x $deb unpacked; done

    python benchmarks/pictures.py emoji emoji-datasource-google-16.0.0.tgz data/emoji
    pip download --no-deps emoji==2.16.0
    python benchmarks/pictures.py emoji-names emoji-datasource-google-16.0.0.tgz data/emoji-names \
        --names emoji-2.16.0-py3-none-any.whl
    python benchmarks/pictures.py tiles unpacked/usr/share data/tiles

emoji: the 1,911 emoji that are no variant of another in skin tone, RGBA, 32x32, in a folder for each category.
emoji-names: captioned emoji, RGB over white, 32x32 or with `--size 64` as they come, and metadata.csv with
`file_name`, `text`, `group` and `category`. Names are those of CLDR, out of the package emoji, since Unicode's call a
red heart a heavy black one; `caption_of` says how a caption is made of one. Those of which two people have two skin
tones are left out, and skin tones that are drawn alike. What must be held out together has one group, for `logsnr
train captions-32 --data.source data/emoji-names --data.group-column group`: skin tones, a man, a woman and a person
doing the same, to the left and to the right; and what is drawn alike, as some flags are.
tiles: photographs brought to 512 pixels on the short side and cut in tiles of 32x32, RGB: of the packages' pictures
those that are photographs, 24 of 76.

Fashion-MNIST needs nothing: `--data.source unpacked/usr/share/datasets/fashion-mnist` is read as it is.
"""

import argparse
import csv
import io
import json
import re
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image
from tqdm import tqdm

SIZE, SHORT_SIDE = 32, 512
STYLED = "\ufe0f"
"""The character that asks for a picture in colours; lists of emoji have it or not."""
PEOPLE = "(?:man|woman|person|boy|girl|child|adult)"
Entry = dict[str, Any]
PHOTOGRAPHS = (
    *("BytheWater", "ColdRipple", "ColorfulCups", "DarkestHour", "EveningGlow", "FallenLeaf", "Grey", "Kite"),
    *("OneStandsOut", "Path", "Volna", "summer_1am"),
)
"""Among plasma-workspace-wallpapers, a folder each; those of mate-backgrounds are all in its folder `nature`."""


def google(package: Path) -> Iterator[tuple[Entry, Image.Image]]:
    """The package's emoji, RGBA, 64x64, each with its entry in the list: first those that are no variant in skin tone.

    The entry of a variant is that of the emoji, with `image` and `unified` of its own, and `tones`.
    """
    with tarfile.open(package) as files:
        read = {
            Path(each.name).name: files.extractfile(each).read()  # type: ignore[union-attr]
            for each in tqdm(files, "Package", delay=2)
            if each.name == "package/emoji.json" or Path(each.name).parent.as_posix() == "package/img/google/64"
        }
    listed = json.loads(read["emoji.json"])
    own = [each | {"tones": ""} for each in listed]
    variants = [
        each | form | {"tones": tones} for each in listed for tones, form in each.get("skin_variations", {}).items()
    ]
    for entry in (*own, *variants):
        if entry["has_img_google"]:
            yield entry, Image.open(io.BytesIO(read[entry["image"]])).convert("RGBA")


def emoji(package: Path, out: Path) -> int:
    """Emoji in the folders of their categories; how many."""
    count = 0
    for entry, picture in google(package):
        if not entry["tones"]:
            folder = out / entry["category"].replace(" & ", " and ")
            folder.mkdir(parents=True, exist_ok=True)
            small = picture.convert("RGBa").resize((SIZE, SIZE), Image.Resampling.BOX).convert("RGBA")
            small.save(folder / entry["image"])
            count += 1
    return count


def emoji_names(package: Path, out: Path, wheel: Path, size: int) -> int:
    """Captioned emoji and their metadata.csv; how many."""
    (out / "images").mkdir(parents=True, exist_ok=True)
    listed = json.loads(zipfile.ZipFile(wheel).read("emoji/unicode_codes/emoji.json"))
    names = {sequence.replace(STYLED, ""): each["en"] for sequence, each in listed.items()}
    rows: list[list[str]] = []
    bases: dict[str, tuple[str, bytes]] = {}
    groups: dict[bytes, str] = {}
    for entry, picture in google(package):
        caption = caption_of(names[characters(entry["unified"])], entry["subcategory"])
        base = caption if not entry["tones"] else bases[entry["short_name"]][0]
        pixels = picture.tobytes()
        if not entry["tones"]:
            bases[entry["short_name"]] = (caption, pixels)
        elif len(set(entry["tones"].split("-"))) > 1 or pixels == bases[entry["short_name"]][1]:
            continue
        group = groups.setdefault(pixels, group_of(base))
        white = Image.new("RGBA", picture.size, "white")
        white.alpha_composite(picture)
        white.convert("RGB").resize((size, size), Image.Resampling.BOX).save(out / "images" / entry["image"])
        rows.append([f"images/{entry['image']}", caption, group, entry["category"]])
    with (out / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["file_name", "text", "group", "category"], *rows])
    return len(rows)


def characters(unified: str) -> str:
    """What "2764-FE0F" stands for, without the character that asks for colours."""
    return "".join(chr(int(code, 16)) for code in unified.split("-")).replace(STYLED, "")


def caption_of(name: str, subcategory: str) -> str:
    """What somebody would type for ":woman_running_dark_skin_tone:" and the like: "woman running, dark skin"."""
    words = name.strip(":").replace("_", " ").replace("’", "'").replace("&", "and").lower()
    if subcategory.endswith("-flag"):
        words = f"flag of {words}"
    words = re.sub(r"(?<=.) (\S+) skin tone\b(.*)$", r"\2, \1 skin", words)
    words = re.sub(rf"^(family|kiss|couple with heart)((?: {PEOPLE})+)", listed_people, words)
    words = re.sub(rf"^({PEOPLE}) bald", r"bald \1", words)
    return re.sub(rf"^({PEOPLE}) (\w+ hair|beard)\b", r"\1 with \2", words)


def listed_people(match: re.Match[str]) -> str:
    """For "family man woman boy": "family: man, woman and boy"."""
    *others, last = match[2].split()
    return f"{match[1]}: {', '.join(others)} and {last}"


def group_of(caption: str) -> str:
    """A caption without what is said of sex, age and side: one for "woman running" and "man running facing right"."""
    rest = re.sub(rf"\b(?:{PEOPLE}|men|women|people|and|facing right)\b|(?<=mer){PEOPLE}|(?<=mer)maid", "", caption)
    return " ".join(re.findall(r"[^\s,:]+", rest)) or "person"


def tiles(packages: Path, out: Path) -> int:
    """Photographs in tiles; how many tiles."""
    out.mkdir(parents=True, exist_ok=True)
    paths = [max((packages / "wallpapers" / name / "contents/images").iterdir()) for name in PHOTOGRAPHS]
    paths += sorted((packages / "backgrounds/mate/nature").glob("*.jpg"))
    count = 0
    for path in tqdm(paths, "Photographs", delay=2):
        name = path.parents[2].name if "wallpapers" in path.parts else path.stem
        picture = Image.open(path).convert("RGB")
        scale = SHORT_SIDE / min(picture.size)
        picture = picture.resize([round(side * scale) for side in picture.size], Image.Resampling.LANCZOS)
        for top in range(0, picture.height - SIZE + 1, SIZE):
            for left in range(0, picture.width - SIZE + 1, SIZE):
                tile = picture.crop((left, top, left + SIZE, top + SIZE))
                tile.save(out / f"{name}-{top // SIZE:02}-{left // SIZE:02}.png")
                count += 1
    return count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = parser.add_subparsers(dest="what", required=True)
    for what in ("emoji", "emoji-names", "tiles"):
        kind = kinds.add_parser(what)
        kind.add_argument("packages", type=Path)
        kind.add_argument("out", type=Path)
        if what == "emoji-names":
            kind.add_argument("--names", type=Path, required=True, help="the wheel of the package emoji")
            kind.add_argument("--size", type=int, choices=(32, 64), default=SIZE)
    arguments = parser.parse_args()
    given = (arguments.packages, arguments.out)
    if arguments.what == "emoji-names":
        count = emoji_names(*given, arguments.names, arguments.size)
    else:
        count = {"emoji": emoji, "tiles": tiles}[arguments.what](*given)
    print(f"{count} pictures in {arguments.out}")


if __name__ == "__main__":
    main()
