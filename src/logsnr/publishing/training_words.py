"""How a model was trained, in words: the short table of settings, the effort, the held-out loss."""

from __future__ import annotations

import dataclasses

from logsnr.publishing.published import Published, Training
from logsnr.settings.objective import (
    ConsistencyConfig,
    CrossEntropyConfig,
    HybridConfig,
    ObjectiveConfig,
    TransitionBoundConfig,
    VlbConfig,
    WeightedConfig,
)
from logsnr.settings.schedule import CurveConfig, ScheduleConfig, TransitionConfig

_SYMBOLS = {"gamma": "γ", "bias": "b", "sigma_data": "σ_data"}
"""How the settings of weightings are called on a card."""


def target(prediction_type: str, noun: str) -> str:
    """What the network predicts."""
    return {
        "epsilon": "the noise ε",
        "sample": f"the clean {noun} x_0",
        "v_prediction": "v = a ε − s x_0",
        "x0_minus_noise": "x_0 − ε",
    }[prediction_type]


def settings_rows(published: Published, training: Training) -> list[tuple[str, str]]:
    """The rows of the short table of settings."""
    config, options = training.config, training.config.train
    objective, condition = config.objective, config.condition
    optimiser = "Muon, and AdamW for what is no matrix" if options.optimizer == "muon" else "AdamW"
    rows = [
        ("schedule", f"{config.schedule.name}, {config.schedule.num_train_timesteps:,} steps"),
        *_learned(config.schedule, objective, published.parts.noun),
        *published.words.settings,
        (
            "optimiser",
            f"{optimiser}, learning rate {options.learning_rate:g}, {options.lr_warmup_steps} steps of warm-up",
        ),
        ("weights", f"averaged, decay {options.ema_decay:g}"),
        ("seed", str(options.seed)),
    ]
    if published.words.asks and condition.dropout:
        rows.insert(
            3, (f"{condition.name.replace('_', ' ')} dropped", f"{100 * condition.dropout:g} %, which guidance needs")
        )
    if isinstance(objective, ConsistencyConfig):
        origin = f"the model {objective.base_digest}, trained for {objective.base_steps:,} steps"
        rows.insert(0, ("distilled from", origin))
    return rows


def _learned(schedule: CurveConfig, objective: ObjectiveConfig, noun: str) -> list[tuple[str, str]]:
    """What the network is taught, and by which loss."""
    rows = []
    if isinstance(schedule, ScheduleConfig):
        rows.append(("target", target(schedule.prediction_type, noun)))
    if isinstance(objective, ConsistencyConfig):
        loss = f"distillation from {objective.teacher_steps} evaluations into one, c = {objective.huber_c:g}"
        return [*rows, ("loss", loss)]
    of_states = {
        CrossEntropyConfig: "the cross-entropy of states that noise took",
        TransitionBoundConfig: "the variational bound, in bits a state",
    }
    if (said := of_states.get(type(objective))) is not None:
        return [*rows, ("loss", said)]
    return [*rows, ("loss weighting", _weighting_text(objective))]


def _weighting_text(objective: ObjectiveConfig) -> str:
    if not isinstance(objective, WeightedConfig | HybridConfig):
        return "the variational bound's own" if isinstance(objective, VlbConfig) else f"that of {objective.name}"
    weighting = objective.weighting
    own = [(_SYMBOLS[f.name], getattr(weighting, f.name)) for f in dataclasses.fields(weighting) if f.init]
    text = ", ".join([weighting.name, *(f"{symbol} = {value:g}" for symbol, value in own)])
    if isinstance(objective, HybridConfig):
        text += f", and {objective.vlb_weight:g} times the variational bound for the learned variance"
    return text


def effort_text(training: Training, noun: str) -> str:
    """How long it took, on what."""
    options, effort = training.config.train, training.effort
    sessions = [s for s in effort.sessions if s.to_step > s.from_step]
    steps = f"{options.num_steps:,} steps"
    if effort.model_step is not None and effort.model_step != options.num_steps:
        steps = f"{effort.model_step:,} of {options.num_steps:,} steps (an unfinished run)"
    if not sessions:
        batch = options.batch_size * options.gradient_accumulation_steps
        return f"It took {steps} of {batch} {noun}s a process. On what and for how long isn't recorded."
    samples = sum(s.images for s in sessions)
    machines = list(dict.fromkeys(_machine(s.device, s.processes, s.precision) for s in sessions))
    versions = ", ".join(f"{name} {version}" for name, version in sessions[-1].versions.items())
    times = f", in {len(sessions)} sessions" if len(sessions) > 1 else ""
    return (
        f"It took {steps} and {samples:,} {noun}s, each counted as often as it was seen, "
        f"{_duration(sum(s.seconds for s in sessions))} on {' and '.join(machines)}{times}. Versions: {versions}."
    )


def _machine(device: str, processes: int, precision: str) -> str:
    return f"{f'{processes} processes, each on ' if processes > 1 else ''}{device} in {precision}"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"


def held_out_text(training: Training, noun: str) -> str | None:
    """What the picture of the held-out loss shows; None where it wasn't measured."""
    if not training.held_out:
        return None
    last = training.held_out[-1]
    if isinstance(training.config.schedule, TransitionConfig):
        return (
            f"The loss on {noun}s that were kept from training, by noise level, of the averaged weights: bits for each "
            f"place that noise took. Weighted it is a bound on all of them: {last.loss:.3f} bits a token at step "
            f"{last.step:,}."
        )
    return (
        f"The loss on {noun}s that were kept from training, by noise level (unweighted, of the averaged weights). "
        f"Weighted as in training it is {last.loss:.4f} at step {last.step:,}."
    )
