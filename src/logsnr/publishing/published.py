"""What is known of a model that is to be published: what its card, its files and its refusals are made of."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, Literal

from logsnr.models.schedules import NoiseSchedule, noise_schedule
from logsnr.sampling.few_evaluations import Curve
from logsnr.sampling.sample import steps_of
from logsnr.schedulers.scheduling_consistency import ConsistencyScheduler
from logsnr.settings.options import SampleOptions
from logsnr.settings.run import RunConfig
from logsnr.tasks.parts import Parts, parts_of_pipeline
from logsnr.tasks.words import CardWords
from logsnr.training.effort import Effort
from logsnr.training.monitor import HeldOutLoss


@dataclass(frozen=True)
class Training:
    """What a run tells of a model, beside the model itself."""

    record: dict[str, Any]
    """What the run's config.json says."""
    config: RunConfig
    """The configuration as it is published."""
    effort: Effort
    held_out: list[HeldOutLoss]
    metrics: dict[str, Any]
    """What the run's metrics.json says; empty where nothing was measured."""

    @property
    def data(self) -> str:
        """The description of what was trained on."""
        return str(self.record["data"]["description"])


@dataclass(frozen=True)
class Published:
    """A model under the name that it is published by."""

    repo_id: str
    pipeline: Any
    code: str | None
    """The name, without its ending, of the pipeline's file that is published with the model; None: diffusers has it."""
    names_code: bool
    """Whether model_index.json names that file, so that nothing loads without it."""
    repairs: str | None
    """The name, without its ending, of the file of the pipeline that repairs with the model; None where it can't."""
    samples: SampleOptions
    """How the grid of samples was made."""
    shown: list[str] | None
    """What its rows are asked for, classes or prompts; None where there is nothing to ask for."""
    training: Training | None
    curve: Curve | None
    """What its tables for few evaluations are worth; None where it wasn't tuned."""
    license: str | None
    data_license: str | None

    @functools.cached_property
    def parts(self) -> Parts:
        """What its kind of data brings."""
        return parts_of_pipeline(self.pipeline)

    @functools.cached_property
    def words(self) -> CardWords:
        """What is said of it in the words of its kind."""
        return self.parts.card_words(self.pipeline, "" if self.training is None else self.training.data)

    @functools.cached_property
    def stock_form(self) -> Any | None:
        """Its form for stock diffusers, where that is another than the model itself."""
        return self.parts.stock(self.pipeline)

    @property
    def stock(self) -> Literal["main", "branch"] | None:
        """Where the form for stock diffusers is: in `main`, on a `branch` of its own, or None, nowhere."""
        if not self.names_code:
            return "main"
        return None if self.stock_form is None else "branch"

    @property
    def classes(self) -> list[str]:
        """Names of all classes there are to ask for."""
        return self.parts.choices(self.pipeline) if self.parts.option == "class_labels" else []

    @property
    def prompts(self) -> list[str]:
        """Some of the texts that it can be asked for."""
        return self.parts.choices(self.pipeline) if self.parts.option == "prompts" else []

    @property
    def name(self) -> str:
        """Without its owner's."""
        return self.repo_id.split("/")[1]

    @property
    def steps(self) -> int:
        """How many steps the card's pictures are drawn in."""
        return steps_of(self.pipeline, self.samples.steps)

    @property
    def network(self) -> Any:
        """What was trained."""
        return self.parts.network_of(self.pipeline)

    @property
    def scheduler(self) -> NoiseSchedule:
        """The noise schedule."""
        scheduler = noise_schedule(self.pipeline.scheduler)
        assert scheduler is not None
        return scheduler

    @property
    def distilled(self) -> bool:
        """Whether it is a consistency model, drawn with in a few steps."""
        return isinstance(self.pipeline.scheduler, ConsistencyScheduler)
