"""logsnr.settings.damage: what was done to a picture, in words."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from logsnr.base.errors import ConfigError
from logsnr.settings.damage import KINDS, Damage, Step, read_damage


def test_words_become_steps_in_their_order() -> None:
    damage = read_damage("Blur 2.0 + down 4 + noise 0.05")
    assert damage == Damage((Step("blur", (2.0,)), Step("down", (4.0,))), 0.05)
    assert str(damage) == "blur 2 + down 4 + noise 0.05"
    assert damage.factor == 4
    assert read_damage("none") == Damage((), 0.0)
    assert read_damage("none + noise .1") == read_damage("noise 0.1")


@pytest.mark.parametrize("name", KINDS)
def test_every_example_is_read_and_written_back(name: str) -> None:
    damage = read_damage(f"{KINDS[name].example}+noise 0.05")
    assert damage.names == (() if name == "none" else (name,))
    assert read_damage(str(damage)) == damage
    assert (damage.no_picture is None) == KINDS[name].picture


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "must say what was done"),
        ("blur 2 +", "words on both sides of each +"),
        ("blurr 2", "no damage 'blurr'. Did you mean blur? There are: none, mask"),
        ("blur", "blur takes its width, as in 'blur 2.0', and is 'blur'"),
        ("blur 2 noise 0.05", "Put a + before 'noise'."),
        ("gray 3", "gray takes no number"),
        ("motion 9", "takes its length and its angle, as in 'motion 9 45'"),
        ("blur two", "the width of blur must be above 0, and 100 at most, and is 'two'"),
        ("blur nan", "and is 'nan'"),
        ("down 2.5", "the factor of down must be a whole number from 2 to 32, and is '2.5'"),
        ("missing 60", "the share of missing must be above 0 and below 1, and is '60'. 60 % is 0.6."),
        ("missing 1", "above 0 and below 1"),
        ("noise 25", "from 0 to 1, where black is 0 and white is 1, and is '25'. Of 255 it is 0.098."),
        ("noise 0,05", "and is '0,05'. Write 0.05."),
        ("noise 5%", "and is '5%'. Write 0.05."),
        ("blur 1,5", "and is '1,5'. Write 1.5."),
        ("noise ,%", "and is ',%'"),
        ("noise -1", "the sigma of noise"),
        ("noise 0.1 + blur 2", "noise must be the last step"),
        ("noise 0.1 + noise 0.1", "noise must be the last step, once"),
        ("none + blur 2", "none stands alone"),
        ("mask + mask", "mask must be there once"),
        ("radon 20 + blur 2", "radon must be the last step but for noise"),
        ("clip 0.8 0.2", "the darkest value of clip must be below its brightest"),
    ],
)
def test_a_refusal_names_the_word_the_rule_and_the_cure(text: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_damage(text)
    assert words in str(caught.value)
    assert str(caught.value).startswith("operator")


def test_it_needs_no_torch() -> None:
    code = "import logsnr.settings.damage, sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_page_has_every_word() -> None:
    page = (Path(__file__).parents[2] / "docs" / "restore.md").read_text()
    assert not [kind.example for kind in KINDS.values() if f"| `{kind.example}` |" not in page]
