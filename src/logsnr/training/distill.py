"""`logsnr distill RUN`: the configuration of a run that distils the model of another.

The result is a run like any other: same trainer, data, schedule and network, begun with the weights of RUN/model, and
with the objective of `logsnr.objectives.consistency`.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from logsnr.base.errors import ConfigError
from logsnr.folders.model_folder import find_model, model_digest
from logsnr.folders.run_folder import read_run
from logsnr.settings.condition import CaptionConfig, ClassLabelConfig
from logsnr.settings.objective import ConsistencyConfig
from logsnr.settings.run import RunConfig, TrainConfig

COST = 2.6
"""Of a step, in steps of plain training: the teacher's three evaluations, without a gradient, take longer than one, and
the contrast is measured in the end."""
_SHARE, _RATE, _EMA, _WARMUP = 0.25, 0.5, 0.98, 10


def distilled(run: Path) -> RunConfig:
    """The configuration of distilling the model of `run`, for a quarter of the time it was trained.

    Raises CheckpointError, ModelError or ConfigError where that can't be.
    """
    _, base = read_run(run)
    if isinstance(base.objective, ConsistencyConfig):
        raise ConfigError(f"{run} is distilled already. Give the run that it came from.")
    if not hasattr(base.model, "init_from"):
        raise ConfigError(
            f"logsnr distill can't take {base.kind}: its networks can't begin from another model's weights."
        )
    origin = ConsistencyConfig(base_digest=model_digest(find_model(run)), base_steps=base.train.num_steps)
    model = dataclasses.replace(base.model, init_from=str(run))
    condition = base.condition
    if isinstance(condition, ClassLabelConfig | CaptionConfig):  # the share that the base dropped isn't this loss's
        condition = dataclasses.replace(condition, dropout=type(condition).dropout)
    return dataclasses.replace(base, model=model, objective=origin, condition=condition, train=_shorter(base.train))


def require_other(run: Path, out: Path) -> None:
    """Raise ConfigError if the two are one folder."""
    if run.resolve() == out.resolve():
        raise ConfigError(f"--out must be another folder than RUN, and both are {run}.")


def _shorter(train: TrainConfig) -> TrainConfig:
    """The settings of training for a quarter of its time, with smaller updates and a shorter memory of the weights."""
    part = _SHARE / COST
    return dataclasses.replace(
        train,
        budget=0,
        num_steps=max(1, int(train.num_steps * part)),
        learning_rate=train.learning_rate * _RATE,
        lr_warmup_steps=min(train.lr_warmup_steps, _WARMUP),
        ema_decay=min(train.ema_decay, _EMA),
        held_out_every=int(train.held_out_every * part),
        sample_every=int(train.sample_every * part),
    )
