"""Emoji get the captions that somebody would type, and what is alike is held out together."""

from __future__ import annotations

import csv
import io
import json
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from travelling import load_alone

pictures = load_alone(Path(__file__).parents[2] / "benchmarks" / "pictures.py")


@pytest.mark.parametrize(
    ("name", "subcategory", "caption", "group"),
    [
        (":red_heart:", "heart", "red heart", "red heart"),
        (":Japan:", "country-flag", "flag of japan", "flag of japan"),
        (":rainbow_flag:", "flag", "rainbow flag", "rainbow flag"),
        (":Côte_d’Ivoire:", "country-flag", "flag of côte d'ivoire", "flag of côte d'ivoire"),
        (":woman_running_facing_right:", "person-activity", "woman running facing right", "running"),
        (":firefighter:", "person-role", "firefighter", "firefighter"),
        (":merman:", "person-fantasy", "merman", "mer"),
        (":man_curly_hair:", "person", "man with curly hair", "with curly hair"),
        (":man_getting_haircut:", "person-activity", "man getting haircut", "getting haircut"),
        (":woman_bald:", "person", "bald woman", "bald"),
        (":family_man_woman_girl_boy:", "family", "family: man, woman, girl and boy", "family"),
        (":kiss_woman_man:", "family", "kiss: woman and man", "kiss"),
        (":kiss_mark:", "emotion", "kiss mark", "kiss mark"),
        (":girl:", "person", "girl", "person"),
    ],
)
def test_captions_and_groups(name: str, subcategory: str, caption: str, group: str) -> None:
    assert pictures.caption_of(name, subcategory) == caption
    assert pictures.group_of(caption) == group


def test_skin_tones_are_said_last() -> None:
    assert pictures.caption_of(":woman_light_skin_tone_curly_hair:", "person") == "woman with curly hair, light skin"
    assert pictures.caption_of(":thumbs_up_medium-dark_skin_tone:", "hand") == "thumbs up, medium-dark skin"
    assert pictures.caption_of(":medium_skin_tone:", "skin-tone") == "medium skin tone"


def test_folder_of_captioned_emoji(tmp_path: Path) -> None:
    def form(unified: str) -> dict[str, Any]:
        return {"unified": unified, "image": f"{unified.lower()}.png", "has_img_google": True}

    def entry(unified: str, category: str, subcategory: str) -> dict[str, Any]:
        return form(unified) | {"short_name": unified, "category": category, "subcategory": subcategory}

    tones = {tone: form(f"1F91D-{tone}") for tone in ("1F3FB", "1F3FC", "1F3FB-1F3FC")}
    listed = [
        entry("2764-FE0F", "Smileys & Emotion", "heart"),
        entry("1F1F3-1F1F4", "Flags", "country-flag"),
        entry("1F1E7-1F1FB", "Flags", "country-flag"),
        entry("1F91D", "People & Body", "hands") | {"skin_variations": tones},
    ]
    # medium-light is drawn as it is without a tone
    colours = {"2764-FE0F": (255, 0, 0, 128), "1F91D-1F3FB": "bisque", "1F91D": "yellow", "1F91D-1F3FC": "yellow"}
    with tarfile.open(tmp_path / "emoji.tgz", "w:gz") as package:

        def add(name: str, content: bytes) -> None:
            described = tarfile.TarInfo(name)
            described.size = len(content)
            package.addfile(described, io.BytesIO(content))

        for each in (*listed, *tones.values()):
            picture = io.BytesIO()
            Image.new("RGBA", (64, 64), colours.get(each["unified"], "blue")).save(picture, "PNG")
            add(f"package/img/google/64/{each['image']}", picture.getvalue())
        add("package/emoji.json", json.dumps(listed).encode())
    names = {"❤": ":red_heart:", "🇳🇴": ":Norway:", "🇧🇻": ":Bouvet_Island:", "🤝": ":handshake:"}
    names |= {"🤝🏻": ":handshake_light_skin_tone:", "🤝🏼": ":handshake_medium-light_skin_tone:"}
    names["🤝🏻🏼"] = ":handshake_light_skin_tone_medium-light_skin_tone:"
    with zipfile.ZipFile(tmp_path / "emoji.whl", "w") as wheel:
        wheel.writestr("emoji/unicode_codes/emoji.json", json.dumps({key: {"en": names[key]} for key in names}))

    assert pictures.emoji_names(tmp_path / "emoji.tgz", tmp_path / "out", tmp_path / "emoji.whl", size=32) == 5
    with (tmp_path / "out" / "metadata.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["text"], row["group"]) for row in rows] == [
        ("red heart", "red heart"),
        ("flag of norway", "flag of norway"),
        ("flag of bouvet island", "flag of norway"),  # which is drawn alike
        ("handshake", "handshake"),
        ("handshake, light skin", "handshake"),
    ]
    heart = Image.open(tmp_path / "out" / rows[0]["file_name"])
    assert (heart.mode, heart.size, heart.getpixel((0, 0))) == ("RGB", (32, 32), (255, 127, 127))
