"""What a kind of data brings: the parts that a task is made of. One object a kind, named by its `Kind` in the settings.

A new kind is such an object, a pipeline, and whatever it is made of; nothing else is touched. Conditions keep their
keywords all the way: what `Example.condition` calls `class_labels` is an argument of that name of the pipeline.
"""

from __future__ import annotations

import abc
import contextlib
import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from torch import nn

from logsnr.base.errors import ConfigError, ModelError
from logsnr.conditions.conditioner import Conditioner, Unconditioned
from logsnr.data.seeded import SeededData
from logsnr.media.medium import Medium
from logsnr.models.denoiser import Denoiser
from logsnr.models.networks import load_network, portable_config
from logsnr.models.schedules import NoiseSchedule, make_scheduler, swapped
from logsnr.models.states import StateDenoiser
from logsnr.settings.kind import kind_of_pipeline
from logsnr.settings.options import EvaluateOptions, SampleOptions
from logsnr.settings.registry import resolve
from logsnr.settings.run import RunConfig
from logsnr.tasks.truth import Truth
from logsnr.tasks.words import CardWords, DataOrigin

Facts = Mapping[str, Any]
"""What of the data belongs to a model, as JSON: the arguments of its pipeline beside the components."""


CHOICES = {"class_labels": ("Classes", "a class"), "prompts": ("Prompts", "a text")}
"""By the option of `SampleOptions` that names them: what they are called, and what a model of one is told."""


class Parts(abc.ABC):
    """A kind of data. What isn't abstract has an answer for a kind without conditions and without a stock form."""

    network_class: type[Any]
    """Class of the network, one of diffusers' `ModelMixin`."""
    network_name: str = "network"
    """What the pipeline calls its network: a component, and a folder of the model."""
    medium: Medium
    """How samples are shown and written, of a kind for which that is the same for all models; see `medium_of`."""
    noun: str
    """What to call a sample."""
    measures: str = "logsnr.evaluation.arrays:ARRAYS"
    """`package.module:attribute` of what `logsnr evaluate` measures, a `logsnr.evaluation.measures.Measures`; resolved
    when it is needed. That of a kind whose samples are arrays of numbers, unless it names its own."""
    compares: str = "logsnr.studies.compare_arrays:ARRAYS"
    """`package.module:attribute` of what `logsnr compare` measures, a `logsnr.studies.comparison.Comparison`; as
    `measures`."""
    numbers: bool = True
    """Whether samples are numbers that noise is added to, not states that it replaces."""
    output_type: str = "pt"
    """What the pipeline calls samples as tensors."""
    steps: int = 20
    """Network evaluations a sample where nobody says how many."""
    option: Literal["class_labels", "prompts"] = "class_labels"
    """Which of `SampleOptions` names what is asked for; the other is refused."""

    @abc.abstractmethod
    def open_data(self, config: RunConfig) -> SeededData[Any]:
        """The data of a run. Raises DataError."""

    @abc.abstractmethod
    def make_network(self, config: RunConfig, data: SeededData[Any]) -> nn.Module:
        """The network, its weights from `config.train.seed`. With a learned variance it has twice the output channels.

        Where `config.model` has `init_from`, and it is set, the weights are those of the model there; what has no such
        setting can't be distilled. Raises ConfigError or ModelError."""

    @abc.abstractmethod
    def pipeline(self, network: Any, scheduler: Any, facts: Facts) -> Any:
        """What draws: called as `pipeline(batch_size=…, num_inference_steps=…, guidance_scale=…, generator=[seeds],
        output_type=…, callback_on_step_end=…, return_dict=False, **arguments)`; `guidance_scale` only where there
        are arguments, `eta` where it is asked for. Whoever calls it by hand may leave out any. Raises ValueError."""

    def again(self, pipeline: Any, scheduler: Any) -> Any:
        """A pipeline like this one, with its network and another scheduler."""
        return self.pipeline(self.network_of(pipeline), scheduler, {})

    def medium_of(self, pipeline: Any) -> Medium:
        """How what this model draws is shown and written."""
        return self.medium

    def make_schedule(self, config: RunConfig, facts: Facts) -> NoiseSchedule:
        """The noise schedule that training begins with, of data with these facts. Raises ConfigError."""
        return make_scheduler(config.schedule)

    def denoiser(
        self, network: Any, schedule: NoiseSchedule, data: SeededData[Any] | None = None
    ) -> Denoiser | StateDenoiser:
        """The network under its noise schedule, on these data where there are any."""
        return Denoiser(network, schedule, self.conditioner(network, data))

    def network_config(self, network: Any) -> dict[str, Any]:
        """The network's configuration as JSON has it, from which `unlearned` makes its like."""
        return portable_config(network)

    def facts(self, data: SeededData[Any]) -> Facts:
        """What of the data belongs to the model."""
        return {}

    def network_of(self, pipeline: Any) -> Any:
        """The network that a pipeline draws with, as training has it."""
        return getattr(pipeline, self.network_name)

    def trunk(self, network: Any) -> nn.Module:
        """The part of the network that takes noisy samples and gives what is predicted of them."""
        trunk: nn.Module = network
        return trunk

    def unlearned(self, config: RunConfig, network: Mapping[str, Any]) -> Any:
        """A network with the configuration of one of a run of `config`, whose weights are yet to be filled in."""
        return self.network_class.from_config(network)

    def load(self, folder: Path, scheduler: Any, facts: Facts, source: str) -> Any:
        """The pipeline of a model folder. Raises ModelError, naming the folder `source`, where it can't be."""
        return self.pipeline(load_network(folder, self.network_name, self.network_class, source), scheduler, facts)

    def conditioner(self, network: Any, data: SeededData[Any] | None = None) -> Conditioner:
        """What the network can be conditioned on, on these data where there are any."""
        return Unconditioned()

    def arguments(self, pipeline: Any, options: SampleOptions) -> Mapping[str, list[Any]]:
        """What `options` ask to be drawn, in arguments of the pipeline, one value for each of `options.num` samples;
        empty where there is nothing to ask for. Raises ValueError or ModelError."""
        return {}

    def manner(self, options: SampleOptions | EvaluateOptions) -> Mapping[str, Any]:
        """How `options` ask samples to be drawn, in arguments of the pipeline that are the same for all of them."""
        return {}

    def guides(self, arguments: Mapping[str, list[Any]]) -> bool:
        """Whether these arguments, of `arguments`, are something that guidance leads to."""
        return bool(arguments)

    def asked(self, conditions: Sequence[Mapping[str, Any]], data: SeededData[Any]) -> Mapping[str, list[Any]]:
        """What draws samples of these conditions of the data's examples: arguments of the pipeline, one value each."""
        return {keyword: [condition[keyword] for condition in conditions] for keyword in conditions[0]}

    def truth(self, config: RunConfig, data: SeededData[Any], attributes: Sequence[str] = ()) -> Truth:
        """What is known of the data's examples, so that what is drawn can be judged by it; with these attributes of
        theirs. Raises DataError or ConfigError where there is no such attribute."""
        if attributes:
            raise ConfigError(
                f"attributes is {attributes[0]}, but {self.noun}s of this kind have no such columns. Leave it out."
            )
        return Truth()

    def refuse_foreign(self, options: SampleOptions) -> None:
        """Raise ModelError where `options` ask in a way that this kind doesn't know."""
        for name, (_, told) in CHOICES.items():
            if name != self.option and getattr(options, name) is not None:
                raise ModelError(f"{name} is for models that are told {told}, and this one isn't. Leave it out.")
        for name in ("infill", "temperature"):
            if getattr(options, name) is not None:
                raise ModelError(
                    f"{name} is for models that write texts, and this one draws {self.noun}s. Leave it out."
                )

    def choices(self, pipeline: Any) -> list[str]:
        """Names of all there is to ask for, in the order in which it is drawn where nobody asks; empty where there is
        nothing, or where it can't be listed."""
        return []

    def vocabulary(self, pipeline: Any) -> Collection[str]:
        """Words of the data that its files are full of, and that say nothing of whoever publishes them."""
        return ()

    @abc.abstractmethod
    def shape(self, pipeline: Any) -> tuple[int, ...]:
        """Shape of a clean sample."""

    def swap_scheduler(self, pipeline: Any, target: str | type[Any], options: Mapping[str, Any]) -> None:
        """Have the pipeline draw with another scheduler from now on: a class, or one of diffusers' by name.

        Raises ValueError where it doesn't fit the model."""
        pipeline.scheduler = swapped(pipeline.scheduler, target, options)

    def stock(self, pipeline: Any) -> Any | None:
        """The form for stock diffusers, beside the model itself; None where that is the same, or there is none."""
        return None

    def stock_of(self, pipeline: Any, class_label: str) -> Any:
        """A plain stock model of one class, by its name or number. Raises ConfigError where there is none."""
        raise ConfigError(f"--class-label is {class_label}, and this model has no classes. Leave it out.")

    def describe(self, pipeline: Any) -> str:
        """What a model draws, in words: `28x28 gray, 10 classes (0, 1, …)`."""
        return type(pipeline).__name__

    def origin(self, config: RunConfig) -> DataOrigin:
        """What is known of where the data of a public configuration come from."""
        return DataOrigin(f"{self.noun}s of the author's", None, None)

    def card_words(self, pipeline: Any, data: str) -> CardWords:
        """What a model's card says in the words of this kind. `data` is the description of those that it was trained
        on, empty where that isn't recorded."""
        numbers = "×".join(map(str, self.shape(pipeline)))
        asked = [
            f"{name}={json.dumps(list(values), ensure_ascii=False)}"
            for name, values in self.arguments(pipeline, SampleOptions(num=4)).items()
        ]
        return CardWords(
            draws=f"{self.noun}s, each of {numbers} numbers",
            asks=", ".join(["batch_size=4", *asked]) if asked else "",
        )

    def features(self, data: SeededData[Any]) -> str | None:
        """The feature network of `logsnr evaluate` where none is named; None where there is none for this kind."""
        return None

    def kernels(self, network: Any) -> contextlib.AbstractContextManager[None]:
        """What to train the network in, where the choice of kernels matters."""
        return contextlib.nullcontext()


def require_numbers(parts: Parts, command: str) -> None:
    """Raise ModelError for a kind of states, whose samples `command` can't take yet."""
    if not parts.numbers:
        raise ModelError(
            f"{command} is for samples of numbers, such as images, and {parts.noun}s are states. `logsnr evaluate RUN` "
            "measures a model of them, and `logsnr sample RUN` shows what it makes."
        )


def parts_of_pipeline(pipeline: Any) -> Parts:
    """The parts of the kind that a pipeline draws. Raises ModelError where no such kind is installed."""
    return parts_of_class(type(pipeline).__name__)


def parts_of_class(name: str) -> Parts:
    """The parts of the kind whose models have a pipeline of that class. Raises ModelError where none is installed."""
    kind = kind_of_pipeline(name)
    if kind is None:
        raise ModelError(f"{name} is a pipeline that no installed kind of data knows. Install the package it is from.")
    parts: Parts = resolve(kind.parts)
    return parts
