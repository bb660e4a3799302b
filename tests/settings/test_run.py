"""logsnr.settings.run: what is written to config.json is what is read, and what is wrong in it is named."""

from __future__ import annotations

import dataclasses
import json
import typing
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logsnr.base.errors import ConfigError
from logsnr.settings.choice import Choice
from logsnr.settings.condition import CaptionConfig, ClassLabelConfig, ConditionConfig, NoConditionConfig
from logsnr.settings.image import DataConfig, ModelConfig
from logsnr.settings.kind import kind_named
from logsnr.settings.objective import (
    ConsistencyConfig,
    CrossEntropyConfig,
    EdmWeighting,
    ElboWeighting,
    HybridConfig,
    MinSnrWeighting,
    ObjectiveConfig,
    SigmoidWeighting,
    VlbConfig,
    WeightedConfig,
    WeightingConfig,
)
from logsnr.settings.options import EvaluateOptions, SampleOptions, TuneOptions
from logsnr.settings.picture import PictureConfig
from logsnr.settings.presets import presets
from logsnr.settings.registry import known, resolve
from logsnr.settings.run import FORMAT, RunConfig, TrainConfig, differences, from_record, to_json, to_record
from logsnr.settings.schedule import CurveConfig, LearnedSchedule, ScheduleConfig, TransitionConfig
from logsnr.settings.text import TextDataConfig, TextModelConfig
from logsnr.settings.text_to_image import CaptionedDataConfig, PromptedModelConfig
from logsnr.tasks.parts import Parts

UNIONS: list[type[Choice]] = [ScheduleConfig, TransitionConfig, ObjectiveConfig, WeightingConfig, ConditionConfig]
ALL = [
    member
    for union in UNIONS
    for member in (*union.members().values(), *[union][: union in (ScheduleConfig, TransitionConfig)])
]


def values(hint: Any) -> st.SearchStrategy[Any]:
    """Any value of a type, of those that the settings use."""
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
    if isinstance(hint, type) and issubclass(hint, Choice):
        return st.one_of(*(section(member) for member in ALL if issubclass(member, hint)))
    return {
        bool: st.booleans(),
        int: st.integers(2, 9),
        float: st.floats(0.001, 0.999),
        str: st.text(min_size=1, max_size=20).filter(lambda text: text != "learned"),
    }[hint]


def section(cls: type[Any]) -> st.SearchStrategy[Any]:
    hints = typing.get_type_hints(cls)
    fields = {f.name: values(hints[f.name]) for f in dataclasses.fields(cls) if f.init}
    if issubclass(cls, PictureConfig):
        fields |= {"resolution": st.integers(1, 64).map(lambda n: 8 * n), "held_out_fraction": st.floats(0.001, 0.5)}
    if cls is CaptionedDataConfig:
        fields |= {"captions": st.just("found")}
    if cls in (ModelConfig, PromptedModelConfig):
        fields |= {"norm_num_groups": st.sampled_from([1, 2, 4, 8]), "attention_levels": st.just((0,))}
        fields |= {"attention_head_dim": st.sampled_from([1, 2, 4, 8])}
    if issubclass(cls, CurveConfig):
        fields |= {"num_train_timesteps": st.integers(100, 10**6)}
    if issubclass(cls, ScheduleConfig):
        fields |= {"zero_terminal_snr": st.just(False)}
    if cls is TransitionConfig:
        fields |= {"kernel": st.just("mask_and_replace")}
    if cls is TextDataConfig:
        settings = ("alphabet", "lower_case", "others", "vocabulary_size")  # that mean something with some tokens alone
        fields = {name: value for name, value in fields.items() if name not in settings}
        fields |= {"held_out_fraction": st.floats(0.001, 0.5)}
    if cls is TextModelConfig:
        fields |= {"hidden_size": st.just(48), "num_attention_heads": st.sampled_from([1, 2, 3, 4, 6])}
    return st.builds(cls, **fields)


def go_together(objective: ObjectiveConfig, schedule: ScheduleConfig) -> bool:
    try:
        objective.check(schedule)
    except ConfigError:
        return False
    return True


@pytest.mark.parametrize("member", ALL, ids=lambda cls: cls.__name__)
@given(data=st.data())
@settings(max_examples=20, deadline=None)
def test_what_is_written_is_what_is_read(member: type[Any], data: st.DataObject) -> None:
    """Of every member of every union, with any values."""
    made = data.draw(section(member))
    objective = made if isinstance(made, ObjectiveConfig) else data.draw(section(ObjectiveConfig.members()["vlb"]))
    if isinstance(made, WeightingConfig):
        objective = data.draw(st.sampled_from([WeightedConfig, HybridConfig]))(made)
    if isinstance(made, LearnedSchedule):
        objective = WeightedConfig(ElboWeighting())
        made = replace(made, variance_type="fixed_large")
    states = isinstance(made, TransitionConfig) or objective.noise is TransitionConfig
    if states and objective.noise is not TransitionConfig:
        objective = CrossEntropyConfig()
    schedule = made if isinstance(made, CurveConfig) else TransitionConfig() if states else ScheduleConfig()
    if isinstance(schedule, ScheduleConfig) and not go_together(objective, schedule):
        schedule = replace(schedule, variance_type="learned_range")
    condition = made if isinstance(made, ConditionConfig) else ClassLabelConfig()
    kind = kind_named("text" if states else "text-to-image" if condition.reads_captions else "image")
    sections = [data.draw(section(cls)) for cls in (kind.data, kind.model, TrainConfig)]
    config = RunConfig(sections[0], schedule, sections[1], objective, condition, sections[2], kind.name)
    again = from_record(json.loads(to_json(config)))
    assert again == config
    assert differences(config, again) == []
    assert to_json(again) == to_json(config)


@pytest.mark.parametrize("name", presets())
def test_presets(name: str) -> None:
    config = presets()[name].config
    record = json.loads(to_json(config))
    assert from_record(record) == config
    assert list(record) == ["format", "kind", "config"]
    assert list(record["config"]) == ["data", "schedule", "model", "objective", "condition", "train"]


def test_members_are_told_by_name() -> None:
    objective = {"name": "weighted", "weighting": {"name": "min_snr", "gamma": 5.0}}
    assert to_record(RunConfig())["config"]["objective"] == objective
    assert to_record(RunConfig(condition=NoConditionConfig()))["config"]["condition"] == {"name": "none"}
    learned = RunConfig(schedule=LearnedSchedule(teacher="losses"), objective=WeightedConfig(EdmWeighting()))
    schedule = to_record(learned)["config"]["schedule"]
    assert (schedule["name"], schedule["teacher"]) == ("learned", "losses")


def test_what_is_declared_is_there() -> None:
    for group in ("logsnr.schedulers", "logsnr.features"):
        assert all(callable(resolve(reference)) for reference in known(group).values())
    assert all(callable(resolve(cls.builds)) for cls in ObjectiveConfig.members().values())
    assert all(isinstance(resolve(kind_named(name).parts), Parts) for name in known("logsnr.tasks"))
    assert {type(preset.config.objective) for preset in presets().values()} <= set(ObjectiveConfig.members().values())


def test_differences_name_each_setting() -> None:
    a = RunConfig()
    b = replace(a, train=replace(a.train, seed=3, num_steps=5), model=replace(a.model, block_out_channels=(8, 16, 32)))
    assert differences(a, b) == [
        "model.block_out_channels: (32, 64, 64) -> (8, 16, 32)",
        "train.num_steps: 1000 -> 5",
        "train.seed: 0 -> 3",
    ]
    assert differences(a, a) == []
    gamma = replace(a, objective=WeightedConfig(MinSnrWeighting(3.0)))
    assert differences(a, gamma) == ["objective.weighting.gamma: 5.0 -> 3.0"]
    sigmoid = replace(a, objective=WeightedConfig(SigmoidWeighting()), condition=NoConditionConfig())
    assert differences(a, sigmoid) == [
        "objective.weighting.name: 'min_snr' -> 'sigmoid'",
        "condition.name: 'class_label' -> 'none'",
    ]
    assert differences(a, replace(a, objective=VlbConfig())) == ["objective.name: 'weighted' -> 'vlb'"]


def test_an_unknown_key_is_named() -> None:
    text = to_json(RunConfig())
    for old, new, words in [
        ('"seed"', '"sead"', r"config\.json has train\.sead, which this version of logsnr doesn't know"),
        ('"train"', '"trian"', r"config\.json has trian,"),
        ('"min_snr"', '"min-snr"', r"objective\.weighting\.name 'min-snr' is unknown\. Did you mean min_snr or snr\?"),
        ('"weighted"', '"weihgted"', r"objective\.name 'weihgted' is unknown\. Did you mean weighted\?"),
        ('"kind": "image"', '"kind": "sound"', r"kind 'sound' is unknown\. Known: image, text, text-to-image\."),
        ('"name": "none"', '"x": 1', "has no condition.name"),
    ]:
        made = to_json(RunConfig(condition=NoConditionConfig())) if old not in text else text
        with pytest.raises(ConfigError, match=words):
            from_record(json.loads(made.replace(old, new)))


@pytest.mark.parametrize("union", UNIONS, ids=lambda cls: cls.__name__)
def test_a_setting_of_another_member_is_refused(union: type[Choice]) -> None:
    """Each setting that some member has, in the configuration of each that hasn't."""
    names = {cls: {f.name for f in dataclasses.fields(cls)} for cls in ALL if issubclass(cls, union)}
    path = {ScheduleConfig: ("schedule",), ConditionConfig: ("condition",), WeightingConfig: ("objective", "weighting")}
    for cls, own in names.items():
        for setting in set().union(*names.values()) - own:
            record = to_record(RunConfig())
            at = record["config"]
            *above, last = path.get(union, ("objective",))
            for part in above:
                at = at[part]
            at[last] = {"name": cls().name, setting: 1}
            refused = rf"{last}\.{setting} in config\.json is a setting of .* it would do nothing\. Give --"
            with pytest.raises(ConfigError, match=refused):
                from_record(record)


def test_a_file_of_another_format_is_refused() -> None:
    record = to_record(RunConfig())
    for found, words in [
        ({"config": record["config"]}, rf"earlier version of logsnr \(format 1, this one reads {FORMAT}\)\. Train"),
        (record | {"format": 99}, r"made by a later version of logsnr \(format 99, "),
    ]:
        with pytest.raises(ConfigError, match=words):
            from_record(found)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DataConfig(source=""), r"data\.source must be a folder"),
        (lambda: DataConfig(resolution=3), r"data\.resolution must be at least 4, and is 3"),
        (lambda: DataConfig(held_out_fraction=0.99), r"data\.held_out_fraction must be in \[0, 0\.5\], .* is 0\.99"),
        (lambda: DataConfig(num_workers=-1), r"data\.num_workers"),
        (lambda: ScheduleConfig(num_train_timesteps=1), r"schedule\.num_train_timesteps must be at least 2"),
        (lambda: ScheduleConfig(zero_terminal_snr=True, prediction_type="epsilon"), r"Use v_prediction"),
        (lambda: ModelConfig(block_out_channels=()), r"model\.block_out_channels must be at least one level"),
        (lambda: ModelConfig(block_out_channels=(8, 12, 16)), r"norm_num_groups.* 8 doesn't divide 12"),
        (lambda: ModelConfig(attention_levels=(3,)), r"model\.attention_levels must be among 0\.\.2"),
        (lambda: ModelConfig(layers_per_block=0), r"model\.layers_per_block"),
        (lambda: ModelConfig(dropout=1.0), r"model\.dropout"),
        (
            lambda: ClassLabelConfig(dropout=1.0),
            r"condition\.dropout must be in \[0, 1\), as at 1 no class is ever seen",
        ),
        (lambda: HybridConfig(vlb_weight=0), r"objective\.vlb_weight"),
        (lambda: MinSnrWeighting(gamma=0), r"objective\.weighting\.gamma"),
        (lambda: EdmWeighting(sigma_data=0), r"objective\.weighting\.sigma_data"),
        (lambda: TrainConfig(num_steps=0), r"train\.num_steps must be at least 1, and is 0"),
        (lambda: TrainConfig(batch_size=0), r"train\.batch_size"),
        (lambda: TrainConfig(batch_size="8"), r"train\.batch_size must be of type int, and is '8'"),
        (lambda: TrainConfig(batch_size=8.0), r"train\.batch_size must be of type int, and is 8\.0"),
        (lambda: TrainConfig(num_steps=True), r"train\.num_steps must be of type int, and is True"),
        (lambda: TrainConfig(learning_rate="1e-3"), r"train\.learning_rate must be of type float, and is '1e-3'"),
        (lambda: TrainConfig(compile=1), r"train\.compile must be of type bool, and is 1"),
        (lambda: TrainConfig(mixed_precision="fp16"), r"train\.mixed_precision must be one of auto, no, bf16, and is"),
        (lambda: RunConfig(train={"num_steps": 3}), r"train must be a TrainConfig, and is \{'num_steps': 3\}"),
        (lambda: RunConfig(schedule="cosine"), r"schedule must be a ScheduleConfig for kind image: 'cosine'"),
        (lambda: TrainConfig(keep_checkpoints=0), r"train\.keep_checkpoints"),
        (lambda: TrainConfig(sample_every=-1), r"train\.sample_every must be 0 or more"),
        (lambda: TrainConfig(learning_rate=float("nan")), r"train\.learning_rate must be above 0, and is nan"),
        (lambda: TrainConfig(ema_decay=1), r"train\.ema_decay"),
        (lambda: TrainConfig(adam_beta2=1), r"train\.adam_beta2"),
        (lambda: TrainConfig(seed=-1), r"train\.seed must be 0 or more, and less than 2\^63, and is -1"),
        (lambda: TrainConfig(seed=1 << 63), r"train\.seed must be 0 or more, and less than 2\^63"),
        (lambda: SampleOptions(seed=1 << 64), r"^seed must be 0 or more, and less than 2\^63"),
        (
            lambda: ModelConfig(block_out_channels=(8, 16), attention_levels=(0,), attention_head_dim=16),
            r"model\.attention_head_dim must be from 1 to 8, .* and is 16",
        ),
        (lambda: ModelConfig(attention_head_dim=0), r"model\.attention_head_dim must be from 1 to 64"),
        (
            lambda: RunConfig(schedule=ScheduleConfig(variance_type="learned_range")),
            r"schedule\.variance_type learned_range needs objective\.name hybrid or vlb",
        ),
        (
            lambda: RunConfig(objective=HybridConfig()),
            r"objective\.name hybrid trains a learned variance, and schedule\.variance_type is fixed_small\. Use",
        ),
        (
            lambda: RunConfig(schedule=LearnedSchedule()),
            r"schedule\.name learned needs .* elbo, sigmoid or edm, .* and has weighted with min_snr\.",
        ),
        (
            lambda: RunConfig(schedule=LearnedSchedule(), objective=VlbConfig()),
            r"schedule\.name learned needs .* and has vlb\.",
        ),
        (lambda: ScheduleConfig(name="learned"), r"make a LearnedSchedule"),
        (
            lambda: RunConfig(schedule=LearnedSchedule(), objective=ConsistencyConfig()),
            r"distill needs a model of another schedule\.name than learned",
        ),
        (
            lambda: RunConfig(model=DataConfig()),
            r"model must be a ModelConfig for kind image",
        ),
        (
            lambda: LearnedSchedule(zero_terminal_snr=True),
            r"schedule\.name learned has two finite ends",
        ),
        (lambda: SampleOptions(num=0), r"^num must be at least 1, and is 0"),
        (lambda: SampleOptions(batch_size=0), r"^batch_size must be"),
        (lambda: SampleOptions(guidance_scale=-1), r"^guidance_scale must be 0 or more, and is -1"),
        (lambda: SampleOptions(strength=0.5), r"^strength is for a picture that is changed, and there is no image"),
        (lambda: SampleOptions(mask_image=Path("m.png")), r"^mask_image is for a picture that is changed"),
        (lambda: SampleOptions(image=Path("a.png"), strength=0), r"^strength must be above 0 and at most 1, and is 0"),
        (lambda: SampleOptions(seed=-1), r"^seed must be 0 or more, and less than 2\^63, and is -1"),
        (lambda: SampleOptions(class_labels="disc"), r"^class_labels must be a list of names or numbers.* is 'disc'"),
        (lambda: SampleOptions(class_labels=[]), r"^class_labels must be a list .*at least one, and is \[\]"),
        (lambda: SampleOptions(class_labels=[1.5]), r"^class_labels must be a list"),  # type: ignore[list-item]
        (lambda: EvaluateOptions(num=8), r"^num must be at least 20, and is 8"),
        (lambda: EvaluateOptions(reference="test"), r"^reference must be train or held_out, and is 'test'"),  # type: ignore[arg-type]
        (lambda: EvaluateOptions(seed=-1), r"^seed must be 0 or more"),
        (lambda: TuneOptions(steps=(1,)), r"^steps must be whole numbers from 2 to 20, and is \(1,\)"),
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


def test_captions_are_for_those_who_have_them() -> None:
    with pytest.raises(ConfigError, match=r"condition\.name can't be caption for kind image"):
        RunConfig(condition=CaptionConfig())
    with pytest.raises(ConfigError, match=r"condition\.name can't be class_label for kind text-to-image"):
        replace(presets()["captions-32"].config, condition=ClassLabelConfig())


def test_losses_are_for_numbers_or_for_states() -> None:
    text = presets()["text-128"].config
    with pytest.raises(ConfigError, match=r"weighted is a loss of numbers, .*--objective\.name cross_entropy or trans"):
        replace(text, objective=WeightedConfig())
    with pytest.raises(
        ConfigError, match=r"cross_entropy is a loss of states, .*--objective\.name hybrid or vlb or we"
    ):
        RunConfig(objective=CrossEntropyConfig())
    with pytest.raises(ConfigError, match=r"schedule must be a TransitionConfig for kind text"):
        replace(text, schedule=ScheduleConfig())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TransitionConfig("learned"), r"schedule\.name can't be learned for states"),
        (lambda: TransitionConfig(kernel="mask"), r"schedule\.kernel must be one of absorbing, .* is 'mask'"),
        (
            lambda: TransitionConfig(replace_share=0.5),
            r"schedule\.replace_share .* it would do nothing\. Give --schedule",
        ),
        (
            lambda: TransitionConfig(kernel="mask_and_replace", replace_share=1.0),
            r"schedule\.replace_share must be in \(0, 1\), and is 1\.0",
        ),
        (lambda: TransitionConfig(num_train_timesteps=1), r"schedule\.num_train_timesteps must be at least 2"),
        (lambda: TextModelConfig(hidden_size=20), r"model\.hidden_size must be a multiple of 12, twice"),
        (lambda: TextModelConfig(dropout=1.0), r"model\.dropout must be in \[0, 1\)"),
        (lambda: SampleOptions(temperature=-1.0), r"^temperature must be 0 or more, and is -1\.0"),
        (lambda: SampleOptions(infill="the [blank]"), r"^infill must be a list of texts"),
        (lambda: SampleOptions(infill=["a [blank]"], prompts=["a"]), r"^prompts can't stand beside infill"),
    ],
)
def test_a_wrong_value_of_texts_is_named_with_its_rule(make: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()
