"""Where a model comes from, as far as others may know: its configuration, its command and its data, without paths.

`config.json` of a run lists under `local` the settings that name a folder of the machine it ran on. In public such a
setting is a placeholder; whoever repeats the run puts a path of their own there.
"""

from __future__ import annotations

import dataclasses
import shlex
from typing import Any

from logsnr.settings.flags import as_flag, with_members
from logsnr.settings.kind import kind_named
from logsnr.settings.objective import ConsistencyConfig
from logsnr.settings.presets import presets
from logsnr.settings.run import FREE, HIDDEN, RunConfig, differences, flat, from_record
from logsnr.tasks.task import parts_of
from logsnr.tasks.words import DataOrigin


def public_config(record: dict[str, Any]) -> RunConfig:
    """The configuration in a run's `config.json` (`record`), with placeholders for folders of its machine."""
    config = from_record(record)
    placeholders = kind_named(config.kind).placeholders
    for name in record["local"]:
        section, setting = name.split(".")
        changed = dataclasses.replace(getattr(config, section), **{setting: placeholders[name]})
        config = dataclasses.replace(config, **{section: changed})
    return config


def data_origin(config: RunConfig, stated_license: str | None) -> DataOrigin:
    """What is known of the data of a public configuration; `stated_license` is the author's word and wins."""
    origin = parts_of(config.kind).origin(config)
    known = origin.license
    if known is None and origin.hub_id is not None:
        known = f"stated at [{origin.hub_id}]({hub_url(origin.hub_id, True)})"
    return dataclasses.replace(origin, license=stated_license or known)


def base_of(config: RunConfig) -> str | None:
    """The model whose weights training began with; None where it began with none, or the kind knows no such thing."""
    base: str | None = getattr(config.model, "init_from", None)
    return base


def is_placeholder(config: RunConfig, value: str | None) -> bool:
    """Whether it stands for a folder of the author's."""
    return value in kind_named(config.kind).placeholders.values()


def hub_url(repo_id: str, dataset: bool = False) -> str:
    """The page of a repo."""
    return f"https://huggingface.co/{'datasets/' if dataset else ''}{repo_id}"


def nearest_preset(config: RunConfig) -> str | None:
    """The preset of the same kind that the fewest settings have to be changed from; None where the kind has none."""
    same_kind = {name: preset for name, preset in presets().items() if preset.config.kind == config.kind}
    return min(same_kind, key=lambda name: len(differences(same_kind[name].config, config)), default=None)


def training_command(config: RunConfig, out: str) -> list[str]:
    """`logsnr train …` or `distill …` in pieces, each a flag with its values: the preset, and what differs from it.
    Empty where no command makes it: of a kind without a preset."""
    if isinstance(config.objective, ConsistencyConfig):
        begin, given = f"logsnr distill {shlex.quote(str(base_of(config)))}", _of_distillation(config)
    elif (preset := nearest_preset(config)) is not None:
        begin, given = f"logsnr train {preset}", _changed(presets()[preset].config, config)
    else:
        return []
    values = flat(config)
    return [f"{begin} --out {shlex.quote(out)}", *(as_flag(name, values[name]) for name in given)]


def _of_distillation(config: RunConfig) -> list[str]:
    """Every setting that the weights depend on and the base doesn't decide: the defaults are made of the base's."""
    sections = {"objective": config.objective, "condition": config.condition, "train": config.train}
    names = [name for section, settings in sections.items() for name in flat(settings, section)]
    return [name for name in names if name not in FREE | HIDDEN and not name.endswith(".name")]


def _changed(preset: RunConfig, config: RunConfig) -> list[str]:
    """The settings that make `config` of a preset: choices, and what differs from the preset's or else the default."""
    values, before = flat(config), flat(preset)
    names = {name: value for name, value in values.items() if name.endswith(".name")}
    start = {"kind": preset.kind}
    for section in dataclasses.fields(preset):
        if section.name != "kind":
            start |= flat(with_members(getattr(preset, section.name), names, section.name), section.name)
    changed = [name for name, value in values.items() if value != (before.get(name) if name in names else start[name])]
    return [name for name in changed if name not in HIDDEN]
