"""logsnr.config: what is written to config.json is what is read, and a wrong value is named."""

from __future__ import annotations

import dataclasses
import json
import typing
from dataclasses import replace
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logsnr.config import (
    DataConfig,
    ModelConfig,
    ObjectiveConfig,
    RunConfig,
    SampleOptions,
    ScheduleConfig,
    TrainConfig,
    differences,
    from_json,
    to_json,
)
from logsnr.errors import ConfigError
from logsnr.presets import PRESETS

SECTIONS = [DataConfig, ScheduleConfig, ModelConfig, ObjectiveConfig, TrainConfig]


def values(hint: Any) -> st.SearchStrategy[Any]:
    """Any value of a type, of those that the configuration uses."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return st.sampled_from(arguments)
    if origin is typing.Annotated:
        return values(arguments[0])
    if origin is tuple:
        return st.lists(st.integers(1, 9).map(lambda n: 8 * n), min_size=1, max_size=4).map(tuple)
    if origin is dict:
        return st.dictionaries(st.text(max_size=5), st.floats(allow_nan=False), max_size=3)
    if arguments:  # X | None
        return st.none() | values(arguments[0])
    return {
        bool: st.booleans(),
        int: st.integers(2, 10**9),
        float: st.floats(0.001, 0.999),
        str: st.text(min_size=1, max_size=20),
    }[hint]


def section(cls: type[Any]) -> st.SearchStrategy[Any]:
    hints = typing.get_type_hints(cls)
    fields = {name: values(hint) for name, hint in hints.items()}
    if cls is DataConfig:
        fields["resolution"] = st.integers(1, 64).map(lambda n: 8 * n)
    if cls is ModelConfig:
        fields |= {"norm_num_groups": st.sampled_from([1, 2, 4, 8]), "attention_levels": st.just((0,))}
    if cls is ScheduleConfig:
        fields |= {
            "zero_terminal_snr": st.just(False),
            "variance_type": st.sampled_from(["fixed_small", "fixed_large"]),
        }
    if cls is ObjectiveConfig:
        fields["loss"] = st.sampled_from(["weighted", "vlb"])
    return st.builds(cls, **fields)


@given(st.builds(RunConfig, *map(section, SECTIONS)))
@settings(max_examples=50, deadline=None)
def test_what_is_written_is_what_is_read(config: RunConfig) -> None:
    again = from_json(to_json(config))
    assert again == config
    assert differences(config, again) == []
    assert to_json(again) == to_json(config)


@pytest.mark.parametrize("name", PRESETS)
def test_presets(name: str) -> None:
    _, config = PRESETS[name]
    assert from_json(to_json(config)) == config
    assert list(json.loads(to_json(config))) == ["data", "schedule", "model", "objective", "train"]
    assert not config.data.source.startswith(("/", "~"))  # a folder of one machine


def test_differences_name_each_setting() -> None:
    a = RunConfig()
    b = replace(a, train=replace(a.train, seed=3, num_steps=5), model=replace(a.model, block_out_channels=(8, 16, 32)))
    assert differences(a, b) == [
        "model.block_out_channels: (32, 64, 64) -> (8, 16, 32)",
        "train.num_steps: 1000 -> 5",
        "train.seed: 0 -> 3",
    ]
    assert differences(a, a) == []


def test_an_unknown_key_is_named() -> None:
    text = to_json(RunConfig()).replace('"seed"', '"sead"')
    with pytest.raises(ConfigError, match=r"train\.sead, which this version of logsnr doesn't know"):
        from_json(text)
    with pytest.raises(ConfigError, match=r"config\.json has trian,"):
        from_json('{"trian": {}}')


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DataConfig(source=""), r"data\.source must be a folder"),
        (lambda: DataConfig(resolution=3), r"data\.resolution must be at least 4, and is 3"),
        (lambda: DataConfig(held_out_fraction=1.0), r"data\.held_out_fraction must be in \[0, 1\), and is 1\.0"),
        (lambda: DataConfig(num_workers=-1), r"data\.num_workers"),
        (lambda: ScheduleConfig(num_train_timesteps=1), r"schedule\.num_train_timesteps must be at least 2"),
        (lambda: ScheduleConfig(zero_terminal_snr=True, prediction_type="epsilon"), r"Use v_prediction"),
        (lambda: ModelConfig(block_out_channels=()), r"model\.block_out_channels must be at least one level"),
        (lambda: ModelConfig(block_out_channels=(8, 12, 16)), r"norm_num_groups.* 8 doesn't divide 12"),
        (lambda: ModelConfig(attention_levels=(3,)), r"model\.attention_levels must be among 0\.\.2"),
        (lambda: ModelConfig(layers_per_block=0), r"model\.layers_per_block"),
        (lambda: ModelConfig(dropout=1.0), r"model\.dropout"),
        (lambda: ObjectiveConfig(label_dropout=1.1), r"objective\.label_dropout"),
        (lambda: ObjectiveConfig(vlb_weight=0), r"objective\.vlb_weight"),
        (lambda: ObjectiveConfig(min_snr_gamma=0), r"objective\.min_snr_gamma"),
        (lambda: ObjectiveConfig(sigma_data=0), r"objective\.sigma_data"),
        (lambda: TrainConfig(num_steps=0), r"train\.num_steps must be at least 1, and is 0"),
        (lambda: TrainConfig(batch_size=0), r"train\.batch_size"),
        (lambda: TrainConfig(keep_checkpoints=0), r"train\.keep_checkpoints"),
        (lambda: TrainConfig(sample_every=-1), r"train\.sample_every must be 0 or more"),
        (lambda: TrainConfig(learning_rate=float("nan")), r"train\.learning_rate must be above 0, and is nan"),
        (lambda: TrainConfig(ema_decay=1), r"train\.ema_decay"),
        (lambda: TrainConfig(adam_beta2=1), r"train\.adam_beta2"),
        (
            lambda: RunConfig(schedule=ScheduleConfig(variance_type="learned_range")),
            r"schedule\.variance_type learned_range needs objective\.loss hybrid or vlb",
        ),
        (
            lambda: RunConfig(objective=ObjectiveConfig(loss="hybrid")),
            r"objective\.loss hybrid trains a learned variance, and schedule\.variance_type is fixed_small\. Use",
        ),
        (
            lambda: RunConfig(schedule=ScheduleConfig(name="learned")),
            r"schedule\.name learned needs .* objective\.weighting elbo, sigmoid or edm, .* weighted and min_snr",
        ),
        (
            lambda: RunConfig(
                schedule=ScheduleConfig(name="learned", zero_terminal_snr=True),
                objective=ObjectiveConfig(weighting="elbo"),
            ),
            r"schedule\.name learned has two finite ends",
        ),
        (lambda: SampleOptions(num=0), r"--num must be at least 1, and is 0"),
        (lambda: SampleOptions(batch_size=0), r"--batch-size must be"),
    ],
)
def test_a_wrong_value_is_named_with_its_rule(make: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


@pytest.mark.parametrize(
    ("resolution", "levels", "advice"),
    [(45, 3, "multiple of 4 .* is 45. Use 44 or 48"), (28, 4, "multiple of 8 .* Use 24 or 32"), (5, 4, "Use 8,")],
)
def test_a_size_that_the_network_cannot_take(resolution: int, levels: int, advice: str) -> None:
    model = ModelConfig(block_out_channels=(8,) * levels, attention_levels=())
    with pytest.raises(ConfigError, match=advice):
        RunConfig(DataConfig(resolution=resolution), model=model)
    # the network of a trained model is not this one
    RunConfig(DataConfig(resolution=resolution), model=replace(model, init_from="x"))


def test_a_configuration_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        RunConfig().train.seed = 1  # type: ignore[misc]
