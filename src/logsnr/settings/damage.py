"""What has been done to a picture, in words: `blur 2.0 + noise 0.05`.

Steps are joined by +, and the first acts first on the clean picture. Noise comes last, and its standard deviation is
stated on [0, 1], where black is 0 and white is 1: a sigma of 12.75 grey levels of 255 is 0.05.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from logsnr.base.errors import ConfigError, did_you_mean

WHERE = "operator"
"""What the argument is called that holds these words."""


@dataclass(frozen=True)
class Value:
    """A number that a kind of damage takes."""

    meaning: str
    rule: str
    low: float
    high: float
    whole: bool = False
    open_low: bool = True
    """Whether `low` itself is left out; `high` is allowed but where the rule says below."""
    cure: str = ""
    """A sentence with a number in place of {value}, that of a share in per cent or the like."""

    def fits(self, value: float) -> bool:
        return (
            (value > self.low if self.open_low else value >= self.low)
            and (value < self.high if "below" in self.rule else value <= self.high)
            and (not self.whole or value == round(value))
        )


@dataclass(frozen=True)
class Kind:
    """A kind of damage: what it does, the numbers that it takes, an example."""

    does: str
    example: str
    values: tuple[Value, ...] = ()
    picture: bool = True
    """Whether what is measured is a picture again, which other damage can follow and a file can hold."""
    linear: bool = True


_PERCENT = " {value:g} % is {percent:g}."
_SHARE = "above 0 and below 1"
_MEASURES = "above 0, and 1 at most"
_PIXELS = "above 0, and 100 at most"

KINDS: Mapping[str, Kind] = {
    "none": Kind("nothing, where there is noise alone", "none"),
    "mask": Kind("hides what is white in the file of --mask", "mask"),
    "missing": Kind(
        "hides that share of the pixels, at random", "missing 0.6", (Value("share", _SHARE, 0, 1, cure=_PERCENT),)
    ),
    "box": Kind(
        "hides a rectangle in the middle, of that share of the width and of the height",
        "box 0.5",
        (Value("share", _SHARE, 0, 1, cure=_PERCENT),),
    ),
    "down": Kind(
        "shrinks that many times, each pixel the average of a square",
        "down 4",
        (Value("factor", "a whole number from 2 to 32", 2, 32, True, False),),
    ),
    "bicubic": Kind(
        "shrinks that many times by bicubic interpolation",
        "bicubic 4",
        (Value("factor", "a whole number from 2 to 32", 2, 32, True, False),),
    ),
    "blur": Kind(
        "blurs by a Gaussian of that standard deviation in pixels", "blur 2.0", (Value("width", _PIXELS, 0, 100),)
    ),
    "motion": Kind(
        "blurs along a line of that length in pixels, at that angle in degrees (90 is upright)",
        "motion 9 45",
        (
            Value("length", "above 1, and 200 at most", 1, 200),
            Value("angle", "from -360 to 360", -360, 360, open_low=False),
        ),
    ),
    "gray": Kind("takes the colours away, and leaves the luma", "gray"),
    "projections": Kind(
        "measures random sums over all pixels, that share of their number",
        "projections 0.1",
        (Value("share", _MEASURES, 0, 1, cure=_PERCENT),),
        picture=False,
    ),
    "fourier": Kind(
        "measures one in that many of the picture's frequencies, low ones more often",
        "fourier 4",
        (Value("acceleration", "from 1 to 64", 1, 64, open_low=False),),
        picture=False,
    ),
    "radon": Kind(
        "measures sums along lines at that many angles, as a CT scanner does",
        "radon 20",
        (Value("angles", "a whole number from 1 to 720", 1, 720, True, False),),
        picture=False,
    ),
    "jpeg": Kind(
        "is saved as JPEG of that quality",
        "jpeg 10",
        (Value("quality", "a whole number from 1 to 100", 1, 100, True, False),),
        linear=False,
    ),
    "clip": Kind(
        "cuts off what is darker than the first or brighter than the second value",
        "clip 0.2 0.8",
        (
            Value("darkest", "from 0 to below 1", 0, 1, open_low=False),
            Value("brightest", _MEASURES, 0, 1),
        ),
        linear=False,
    ),
}
"""By their words."""

_NOISE = Value(
    "sigma", "from 0 to 1, where black is 0 and white is 1", 0, 1, open_low=False, cure=" Of 255 it is {of_255:.3g}."
)
_RANDOM = ("missing", "projections", "fourier")


@dataclass(frozen=True)
class Step:
    """One kind of damage, by its word, with its numbers."""

    name: str
    values: tuple[float, ...] = ()

    def __str__(self) -> str:
        return " ".join([self.name, *(f"{value:g}" for value in self.values)])


@dataclass(frozen=True)
class Damage:
    """What is done to a clean picture: steps, the first of which acts first, then noise.

    steps: none for noise alone.
    noise_std: standard deviation of the noise that is added last, on [0, 1].
    """

    steps: tuple[Step, ...]
    noise_std: float

    def __str__(self) -> str:
        """The words of it, always the same for the same damage."""
        noise = [f"noise {self.noise_std:g}"] if self.noise_std else []
        return " + ".join([*map(str, self.steps), *noise]) or "none"

    @property
    def names(self) -> tuple[str, ...]:
        """The words of the steps."""
        return tuple(step.name for step in self.steps)

    @property
    def factor(self) -> int:
        """How many times smaller than the clean picture what is measured is, in width and height."""
        return math.prod(int(step.values[0]) for step in self.steps if step.name in ("down", "bicubic"))

    @property
    def no_picture(self) -> str | None:
        """The word of the step that measures what is no picture; None where there is none."""
        return next((name for name in self.names if not KINDS[name].picture), None)

    @property
    def not_linear(self) -> str | None:
        """The word of the first step that isn't linear; None where there is none."""
        return next((name for name in self.names if not KINDS[name].linear), None)

    @property
    def hides(self) -> bool:
        """Whether it hides pixels and does nothing else to them but noise."""
        return bool(self.steps) and set(self.names) <= {"mask", "missing", "box"}

    @property
    def random(self) -> bool:
        """Whether a seed decides what is measured."""
        return any(name in _RANDOM for name in self.names)


def read_damage(text: str, of_files: bool = False) -> Damage:
    """Damage in words, such as `blur 2.0 + noise 0.05`. `KINDS` has the words; an error offers those alone that leave a
    picture where it is `of_files`.

    Raises ConfigError, which names the word, its rule, what was given, and the cure.
    """
    parts = [part.split() for part in text.split("+")]
    if not text.strip():
        raise ConfigError(f'{WHERE} must say what was done to the picture, as "blur 2.0 + noise 0.05", and is empty.')
    if not all(parts):
        raise ConfigError(f"{WHERE} must have words on both sides of each +, and is {text!r}.")
    steps: list[Step] = []
    noise_std = 0.0
    for place, (word, *numbers) in enumerate(parts):
        name = word.lower()
        if name == "noise":
            if place < len(parts) - 1:
                raise ConfigError(
                    f"{WHERE}: noise must be the last step, once, and in {text!r} comes before "
                    f"{parts[place + 1][0]!r}. Noise before a step isn't known here: move it to the end."
                )
            (noise_std,) = _values(name, (_NOISE,), "noise 0.05", numbers)
        elif name in KINDS:
            steps.append(Step(name, _values(name, KINDS[name].values, KINDS[name].example, numbers)))
        else:
            known = [*(word for word, kind in KINDS.items() if kind.picture or not of_files), "noise"]
            raise ConfigError(
                f"{WHERE}: there is no damage {word!r}.{did_you_mean(name, known)} There are: {', '.join(known)}."
            )
    _require_order(steps, text)
    return Damage(tuple(step for step in steps if step.name != "none"), noise_std)


def _values(name: str, rules: tuple[Value, ...], example: str, words: list[str]) -> tuple[float, ...]:
    if len(words) != len(rules):
        takes = " and ".join(f"its {rule.meaning}" for rule in rules)
        rule = f"takes {takes}, as in {example!r}" if rules else "takes no number"
        raise ConfigError(f"{WHERE}: {name} {rule}, and is {' '.join([name, *words])!r}.{_joined(words)}")
    return tuple(_value(name, rule, word) for rule, word in zip(rules, words, strict=True))


def _joined(words: list[str]) -> str:
    """A sentence where a plus may be missing."""
    letters = [word for word in words if word[:1].isalpha()]
    return f" Put a + before {letters[0]!r}." if letters else ""


def _value(name: str, rule: Value, word: str) -> float:
    try:
        value = float(word)
    except ValueError:
        value = math.nan
    if math.isfinite(value) and rule.fits(value):
        return value
    cure = ""
    if (meant := _meant(word)) is not None and rule.fits(meant):
        cure = f" Write {meant:g}."
    elif 1 < value < 256:
        cure = rule.cure.format(value=value, percent=value / 100, of_255=value / 255)
    raise ConfigError(f"{WHERE}: the {rule.meaning} of {name} must be {rule.rule}, and is {word!r}.{cure}")


def _meant(word: str) -> float | None:
    """0.05 of `0,05` and of `5%`; None of what is neither."""
    plain = re.fullmatch(r"(\d*)[.,]?(\d*)(%?)", word)
    if plain is None or not ("," in word or plain[3]) or not plain[1] + plain[2]:
        return None
    return float(f"{plain[1] or 0}.{plain[2] or 0}") / (100 if plain[3] else 1)


def _require_order(steps: list[Step], text: str) -> None:
    names = [step.name for step in steps]
    if "none" in names and len(names) > 1:
        raise ConfigError(f"{WHERE}: none stands alone or beside noise, and is in {text!r}. Leave it out.")
    for name in ("mask", "gray"):
        if names.count(name) > 1:
            raise ConfigError(f"{WHERE}: {name} must be there once, and is there {names.count(name)} times.")
    for name, after in itertools.pairwise(names):
        if not KINDS[name].picture:
            raise ConfigError(
                f"{WHERE}: {name} must be the last step but for noise, since what it measures is no picture, and "
                f"comes before {after}. Put {after} before it, or leave it out."
            )
    for step in steps:
        if step.name == "clip" and step.values[0] >= step.values[1]:
            raise ConfigError(
                f"{WHERE}: the darkest value of clip must be below its brightest, and they are {step.values[0]:g} and "
                f"{step.values[1]:g}."
            )
