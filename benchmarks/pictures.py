"""Folders of pictures out of packages, for what is measured on more than digits.

    npm pack emoji-datasource-google@16.0.0
    apt-get download dataset-fashion-mnist plasma-workspace-wallpapers mate-backgrounds
    for deb in *.deb; do dpkg -x $deb unpacked; done

    python benchmarks/pictures.py emoji emoji-datasource-google-16.0.0.tgz data/emoji
    python benchmarks/pictures.py tiles unpacked/usr/share data/tiles

emoji: the 1,911 emoji that are no variant of another in skin tone, RGBA, 32x32, in a folder for each category.
tiles: photographs brought to 512 pixels on the short side and cut in tiles of 32x32, RGB: of the packages' pictures
those that are photographs, 24 of 76.

Fashion-MNIST needs nothing: `--data.source unpacked/usr/share/datasets/fashion-mnist` is read as it is.
"""

import argparse
import io
import json
import tarfile
from pathlib import Path

from PIL import Image
from tqdm import tqdm

SIZE, SHORT_SIDE = 32, 512
PHOTOGRAPHS = (
    *("BytheWater", "ColdRipple", "ColorfulCups", "DarkestHour", "EveningGlow", "FallenLeaf", "Grey", "Kite"),
    *("OneStandsOut", "Path", "Volna", "summer_1am"),
)
"""Among plasma-workspace-wallpapers, a folder each; those of mate-backgrounds are all in its folder `nature`."""


def emoji(package: Path, out: Path) -> int:
    """Emoji in the folders of their categories; how many."""
    with tarfile.open(package) as files:
        listed = json.loads(files.extractfile("package/emoji.json").read())  # type: ignore[union-attr]
        names = {each["image"]: each["category"] for each in listed if each["has_img_google"]}
        count = 0
        for member in tqdm(files, "Emoji", delay=2):
            path = Path(member.name)
            if path.parent.as_posix() != "package/img/google/64" or path.name not in names:
                continue
            folder = out / names[path.name].replace(" & ", " and ")
            folder.mkdir(parents=True, exist_ok=True)
            data = files.extractfile(member).read()  # type: ignore[union-attr]
            picture = Image.open(io.BytesIO(data)).convert("RGBA")
            picture.convert("RGBa").resize((SIZE, SIZE), Image.Resampling.BOX).convert("RGBA").save(folder / path.name)
            count += 1
    return count


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
    parser.add_argument("what", choices=("emoji", "tiles"))
    parser.add_argument("packages", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    count = {"emoji": emoji, "tiles": tiles}[arguments.what](arguments.packages, arguments.out)
    print(f"{count} pictures in {arguments.out}")


if __name__ == "__main__":
    main()
