"""logsnr.settings.flags: flags choose members of unions, and a setting of another member is refused."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from logsnr.base.errors import ConfigError
from logsnr.commands.train import TrainArguments, parse_train
from logsnr.settings.choice import Choice
from logsnr.settings.condition import ConditionConfig, NoConditionConfig
from logsnr.settings.flags import as_flag, chosen
from logsnr.settings.objective import (
    HybridConfig,
    ObjectiveConfig,
    SigmoidWeighting,
    VlbConfig,
    WeightedConfig,
    WeightingConfig,
)
from logsnr.settings.presets import presets
from logsnr.settings.run import RunConfig
from logsnr.settings.schedule import LearnedSchedule, ScheduleConfig


def parsed(preset: str, *argv: str) -> RunConfig:
    return parse_train(preset, [*argv, "--out", "x"])[0]


def test_a_name_chooses_and_what_both_have_stays() -> None:
    assert parsed("mnist").objective == WeightedConfig(SigmoidWeighting())
    learned = ("--schedule.variance-type", "learned_range")
    assert parsed("mnist", *learned, "--objective.name", "hybrid").objective == HybridConfig(SigmoidWeighting())
    assert parsed("mnist", "--objective.name=vlb").objective == VlbConfig()
    found = parsed("smoke", "--schedule.shift", "1", "--schedule.name", "linear").schedule
    assert found == dataclasses.replace(presets()["smoke"].config.schedule, name="linear", shift=1.0)
    found = parsed("mnist", "--schedule.name", "learned", "--schedule.teacher", "losses", "--schedule.shift=1").schedule
    assert found == LearnedSchedule(teacher="losses", shift=1.0)
    assert parsed("smoke", "--condition.name", "none").condition == NoConditionConfig()


def test_the_last_of_two_flags_counts() -> None:
    assert parsed("smoke", "--objective.name", "weighted", "--objective.name", "vlb").objective == VlbConfig()


@pytest.mark.parametrize("preset", presets())
def test_every_setting_can_be_given_as_it_is(preset: str) -> None:
    config = presets()[preset].config
    for section in ("schedule", "model"):
        for name, value in vars(getattr(config, section)).items():
            if value not in (None, {}):
                assert parsed(preset, *as_flag(f"{section}.{name}", value).split()) == config


SECTIONS: list[tuple[str, type[Choice], list[str]]] = [
    ("schedule", ScheduleConfig, ["cosine", "learned"]),
    ("objective", ObjectiveConfig, list(ObjectiveConfig.members())),
    ("objective.weighting", WeightingConfig, list(WeightingConfig.members())),
    ("condition", ConditionConfig, list(ConditionConfig.members())),
]


@pytest.mark.parametrize(
    ("path", "union", "names"), SECTIONS, ids=lambda value: value if isinstance(value, str) else ""
)
def test_a_setting_of_another_member_is_refused(path: str, union: type[Choice], names: list[str]) -> None:
    """Each setting that some member has, beside the name of each that hasn't; and the cure that is named is one."""
    default = TrainArguments(Path("x"))
    settings = {name: {f.name for f in dataclasses.fields(union.member(name, path))} for name in names}
    for name, own in settings.items():
        for setting in set().union(*settings.values()) - own:
            flag = as_flag(f"{path}.{setting}", 1)
            with pytest.raises(ConfigError) as caught:
                chosen(default, [f"--{path}.name", name, *flag.split()])
            message = str(caught.value)
            assert f"and the {path.rpartition('.')[2]} is {name}: it would do nothing." in message
            cure = re.search(rf"Give (--{re.escape(path)}\.name) (\w+) or leave it out\.", message)
            assert cure is not None
            chosen(default, [*cure.groups(), *flag.split()])


def test_a_setting_of_a_choice_within_another_is_refused() -> None:
    words = r"weighting\.gamma is a setting of hybrid and weighted, and the objective is vlb"
    with pytest.raises(ConfigError, match=words):
        parsed("smoke", "--objective.name", "vlb", "--objective.weighting.gamma", "3")


def test_unknown_names_and_losses_of_other_commands() -> None:
    for argv, words in [
        (
            ("--objective.name", "hybird"),
            r"objective\.name 'hybird' is unknown\. Did you mean hybrid\? `logsnr train` knows: hybrid",
        ),
        (("--objective.weighting.name", "snrr"), r"objective\.weighting\.name 'snrr' is unknown\. Did you mean"),
        (("--condition.name", "text"), r"condition\.name 'text' is unknown\. .*Known: caption, class_label, none"),
        (("--objective.name", "consistency"), r"is what `logsnr distill RUN` trains"),
    ]:
        with pytest.raises(ConfigError, match=words):
            parsed("smoke", *argv)
