"""Where a published model comes from: the command that trains it again, its data, and what its training took."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path

import pytest
from commands import run
from huggingface_hub import ModelCard
from loopback_hub import LoopbackHub
from published_parts import published, recorded, training

from logsnr.commands.distill import parse_distill
from logsnr.commands.train import parse_train
from logsnr.publishing.card import render_card
from logsnr.publishing.provenance import data_origin, nearest_preset, public_config, training_command
from logsnr.settings.condition import ClassLabelConfig, NoConditionConfig
from logsnr.settings.image import DataConfig
from logsnr.settings.objective import (
    ConsistencyConfig,
    EdmWeighting,
    ElboWeighting,
    HybridConfig,
    P2Weighting,
    SigmoidWeighting,
    VlbConfig,
    WeightedConfig,
)
from logsnr.settings.presets import presets
from logsnr.settings.run import RunConfig, TrainConfig
from logsnr.settings.schedule import LearnedSchedule, ScheduleConfig
from logsnr.tasks.words import DataOrigin
from logsnr.training.effort import read_effort

CONFIGS = [
    *(preset.config for preset in presets().values()),
    RunConfig(
        data=DataConfig(source="two words", horizontal_flip=True, label_column="a b"), condition=NoConditionConfig()
    ),
    RunConfig(condition=ClassLabelConfig(dropout=0.25), objective=WeightedConfig(P2Weighting(gamma=0.5))),
    RunConfig(objective=WeightedConfig(P2Weighting())),
    RunConfig(objective=VlbConfig()),
    RunConfig(
        schedule=ScheduleConfig(name="my:Own", options={"beta_end": 0.03, "beta_start": 1e-5}, clip_sample=False)
    ),
    RunConfig(model=dataclasses.replace(presets()["mnist"].config.model, attention_levels=(), init_from="ada/shapes")),
    RunConfig(objective=WeightedConfig(EdmWeighting(0.1)), train=TrainConfig(learning_rate=3e-5)),
    RunConfig(schedule=ScheduleConfig(variance_type="learned_range"), objective=HybridConfig(ElboWeighting(), 0.1)),
    RunConfig(schedule=LearnedSchedule(teacher="losses"), objective=WeightedConfig(SigmoidWeighting())),
]


@pytest.mark.parametrize("config", CONFIGS)
def test_the_command_is_the_configuration(config: RunConfig) -> None:
    words = shlex.split(" ".join(training_command(config, "runs/x y")))
    assert words[:2] == ["logsnr", "train"]
    parsed, arguments = parse_train(words[2], words[3:])
    assert arguments.out == Path("runs/x y")
    assert parsed == config


def test_the_command_of_a_distilled_model_is_its_configuration() -> None:
    base = presets()["mnist"].config
    config = dataclasses.replace(
        base,
        model=dataclasses.replace(base.model, init_from="path/to/model"),
        train=dataclasses.replace(base.train, num_steps=77, learning_rate=3e-4, compile=True),
        objective=ConsistencyConfig(base_digest="ab", base_steps=9, steps=4, huber_c=0.1),
        condition=ClassLabelConfig(dropout=0.25),
    )
    words = shlex.split(" ".join(training_command(config, "runs/x")))
    assert words[:3] == ["logsnr", "distill", "path/to/model"]
    default = dataclasses.replace(
        config, objective=ConsistencyConfig("ab", 9), condition=ClassLabelConfig(), train=base.train
    )
    parsed, arguments = parse_distill(default, Path("path/to/model"), words[3:])
    assert arguments.out == Path("runs/x")
    assert parsed == config


def test_the_nearest_preset() -> None:
    for name, preset in presets().items():
        config = preset.config
        changed = dataclasses.replace(config, train=dataclasses.replace(config.train, seed=7))
        assert nearest_preset(changed) == name
        assert training_command(changed, "x") == [f"logsnr train {name} --out x", "--train.seed 7"]


def test_folders_become_placeholders_and_public_names_stay(at_hub: LoopbackHub) -> None:
    config = RunConfig(
        data=DataConfig(source="clinic/patients"),
        model=dataclasses.replace(presets()["mnist"].config.model, init_from="runs/secret"),
    )
    hub_names = public_config(recorded(config, local=[]))
    assert hub_names == config
    assert data_origin(hub_names, None).hub_id == "clinic/patients"
    hidden = public_config(recorded(config, local=["data.source", "model.init_from"]))
    assert (hidden.data.source, hidden.model.init_from) == ("path/to/images", "path/to/model")
    assert data_origin(hidden, None).hub_id is None
    for name in ("mnist", "fashion-mnist"):
        record = recorded(presets()[name].config)
        assert public_config(record) == presets()[name].config
        assert data_origin(public_config(record), None).license
    folder_of_that_name = public_config(recorded(presets()["fashion-mnist"].config, local=["data.source"]))
    assert data_origin(folder_of_that_name, None) == DataOrigin("a folder of images that isn't public", None, None)
    card = ModelCard(render_card(published(training=training(config=hub_names))))
    assert card.data.datasets == ["clinic/patients"]
    assert card.data.base_model == "runs/secret"
    card = ModelCard(render_card(published(training=training(config=hidden))))
    assert card.data.datasets is None
    assert card.data.base_model is None
    assert "`path/to/images` and `path/to/model` stand for folders of the author's." in card.content


def test_training_is_recorded_over_a_resume(tiny: list[str], tmp_path: Path) -> None:
    command = ("train", *tiny, "--out", tmp_path / "run")
    assert run(tmp_path / "log.txt", *command).status == 0
    whole = read_effort(tmp_path / "run")
    assert [(s.from_step, s.to_step, s.images, s.processes, s.precision) for s in whole.sessions] == [
        (0, 12, 48, 1, "float32")
    ]
    assert whole.model_step == 12
    assert whole.sessions[0].device == "1 CPU core"
    for path in (tmp_path / "run" / "checkpoints").glob("step-*12"):
        path.rename(tmp_path / "lost")
    assert run(tmp_path / "log.txt", *command).status == 0
    again = read_effort(tmp_path / "run")
    assert [(s.from_step, s.to_step) for s in again.sessions] == [(0, 8), (8, 12)]
    assert all(s.seconds > 0 for s in again.sessions)
