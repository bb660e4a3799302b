"""A trained model and seeds -> samples. Sample k has seed `seed + k`, whatever the batch it is made in."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers import DPMSolverMultistepScheduler
from torch import Tensor
from tqdm import tqdm

from logsnr.base.errors import ConfigError, ModelError
from logsnr.base.files import write_atomically
from logsnr.base.warn import warn_caller
from logsnr.media.plots import columns_of, save_png
from logsnr.models.schedules import resolve_scheduler_class, usual_steps
from logsnr.sampling.edited import edited
from logsnr.sampling.guidance import guiding
from logsnr.schedulers.scheduling_beta import BetaScheduler
from logsnr.schedulers.scheduling_few_step import FewStepScheduler
from logsnr.settings.guidance import PLAIN
from logsnr.settings.options import TUNABLE, EvaluateOptions, SampleOptions
from logsnr.tasks.parts import Parts, parts_of_pipeline

DEFAULT_GUIDANCE = 2.0
DEFAULT_STEPS = Parts.steps
FEW_STEP = "few-step"
"""The name of FewStepScheduler, with the tables of `logsnr tune`."""
SDE = "sde"
"""The name of stock DPM-Solver++ for the reverse SDE (Lu et al. 2022, arXiv 2211.01095, eq. 19), second order. What is
drawn by default: noise added again mends what earlier steps did wrong. On digits in 20 steps it has a third of the FID
of the deterministic steps, and in 10 half of that of first-order ancestral ones (benchmarks/samplers.md)."""
_SDE_OPTIONS = {"algorithm_type": "sde-dpmsolver++", "timestep_spacing": "trailing"}


_DEFAULTS = SampleOptions()


def sample(pipeline: Any, options: SampleOptions = _DEFAULTS) -> Tensor:
    """Draw samples with a trained model, sample k from the seed `options.seed + k`; with a progress bar.

    Args:
        pipeline: what `logsnr.load` gives. It has its own scheduler again afterwards, whatever is drawn with.
        options: how many samples, of what, and how they are drawn.

            pipe = logsnr.load("runs/mnist")
            logsnr.sample(pipe, logsnr.SampleOptions(num=16, steps=50))

    Returns them in order, on the CPU, as the pipeline gives tensors: images in [0, 1], (n, channels, height, width);
    texts as tokens, int64, (n, length). Raises ModelError if they can't be made as asked, and DataError for a picture
    that can't be read.
    """
    if isinstance(pipeline, str | Path):
        raise TypeError(f"sample takes a loaded model, and was given {str(pipeline)!r}: logsnr.load gives one.")
    own = pipeline.scheduler
    try:
        arguments = prepare(pipeline, options)
        scale = options.guidance_scale
        parts = parts_of_pipeline(pipeline)
        if scale is None and (parts.guides(arguments) or options.guidance != PLAIN):
            scale = DEFAULT_GUIDANCE
        guidance = {} if scale is None else guiding(pipeline, scale, options.guidance)
        seeds = range(options.seed, options.seed + options.num)
        steps, same = steps_of(pipeline, options.steps), {**edited(pipeline, options), **parts.manner(options)}
        request = Request(steps, guidance, options.eta, options.batch_size, same)
        with tqdm(total=request.evaluations(options.num), unit="step", delay=2, dynamic_ncols=True) as bar:
            return draw(pipeline, request, seeds, arguments, bar)
    finally:
        pipeline.scheduler = own


@dataclass(frozen=True)
class Request:
    """How samples are drawn, whatever they are of."""

    steps: int
    guidance: Mapping[str, Any]
    """Arguments of the pipeline that guide it, such as `guidance_scale`."""
    eta: float | None
    """None leaves it out."""
    batch_size: int
    same: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of the pipeline that are the same for all samples, such as the picture that is changed, and how."""

    def evaluations(self, num: int) -> int:
        """Steps in all, a batch's counted once."""
        return -(-num // self.batch_size) * int(self.steps * self.same.get("strength", 1))


def draw(
    pipeline: Any, request: Request, seeds: Sequence[int], arguments: Mapping[str, Sequence[Any]], bar: tqdm[Any]
) -> Tensor:
    """A sample for each seed, with its value of each of the `arguments`; `bar` counts steps. ModelError if it can't
    be."""

    def advance(_: Any, step: int, timestep: Any, kept: dict[str, Any]) -> dict[str, Any]:
        bar.update()
        return kept

    pipeline.set_progress_bar_config(disable=True)
    given = {**request.guidance, **({} if request.eta is None else {"eta": request.eta})}
    samples, output_type = [], parts_of_pipeline(pipeline).output_type
    try:
        for start in range(0, len(seeds), request.batch_size):
            rows = slice(start, start + request.batch_size)
            made, *_ = pipeline(
                batch_size=len(seeds[rows]),
                num_inference_steps=request.steps,
                generator=list(seeds[rows]),
                output_type=output_type,
                callback_on_step_end=advance,
                return_dict=False,
                **{name: list(values[rows]) for name, values in arguments.items()},
                **given,
                **request.same,
            )
            samples.append((made.float() if made.is_floating_point() else made).cpu())
    except ValueError as error:
        raise ModelError(str(error)) from error
    return torch.cat(samples)


def prepare(pipeline: Any, options: SampleOptions) -> Mapping[str, list[Any]]:
    """Swap to the scheduler of `options`, and choose what is drawn: arguments of the pipeline, a value for each sample.

    Raises ModelError for a scheduler that doesn't fit the model, steps that don't, or a class that it doesn't have; and
    for a picture that can't be changed, ModelError or DataError.
    """
    choose_scheduler(pipeline, options)
    edited(pipeline, options)
    parts = parts_of_pipeline(pipeline)
    parts.refuse_foreign(options)
    try:
        return parts.arguments(pipeline, options)
    except ValueError as error:
        raise ModelError(str(error)) from error


def choose_scheduler(pipeline: Any, options: SampleOptions | EvaluateOptions) -> None:
    """Swap to the scheduler that `options` ask for. Raises ModelError where it doesn't fit the model, or the steps
    don't."""
    scheduler = options.scheduler
    if scheduler is None and options.eta is None and _knows_sde(pipeline.scheduler):
        scheduler = SDE
    try:
        if scheduler is not None:
            swap(pipeline, scheduler)
        require_steps(pipeline, steps_of(pipeline, options.steps))
    except ValueError as error:  # what pipelines call the target of a swap is the option of this name
        raise ModelError(re.sub("^target ", "scheduler ", str(error))) from error


def _knows_sde(scheduler: Any) -> bool:
    """Whether it is a noise schedule, not a sampler already, of a model that the stock solver can draw with: it fails
    at zero terminal SNR and at outputs of twice the channels, and knows three targets."""
    return (
        isinstance(scheduler, BetaScheduler)
        and scheduler.prediction_type in ("epsilon", "sample", "v_prediction")
        and scheduler.variance_type != "learned_range"
        and float(scheduler.betas[-1]) < 1
    )


def sampler_in_words(scheduler: Any, eta: float | None) -> str:
    """The name of the class, and what of its settings decides what is drawn."""
    name, algorithm = type(scheduler).__name__, scheduler.config.get("algorithm_type")
    if algorithm is not None:
        return f"{name} ({algorithm})"
    return name if eta is None else f"{name}, eta {eta:g}"


def steps_of(pipeline: Any, steps: int | None) -> int:
    """`steps`, or where not given what is usual for the model."""
    return usual_steps(pipeline.scheduler, parts_of_pipeline(pipeline).steps) if steps is None else steps


def require_steps(pipeline: Any, steps: int) -> None:
    """Raise ModelError or ValueError if the scheduler can't take so many."""
    total = pipeline.scheduler.config.get("num_train_timesteps")  # stock's of states have none
    if total is not None and steps > total:
        raise ModelError(f"steps must be at most {total}, the length of the model's chain, and is {steps}.")
    distilled = pipeline.scheduler.config.get("_consistency")
    if distilled is not None and steps != distilled:
        raise ModelError(f"steps must be {distilled}, for which this model was distilled, and is {steps}.")
    pipeline.scheduler.set_timesteps(steps)
    if isinstance(pipeline.scheduler, FewStepScheduler) and steps not in pipeline.scheduler.tuned_steps:
        there = ", ".join(map(str, pipeline.scheduler.tuned_steps)) or "none"
        cure = f" Tune it: logsnr tune RUN --steps {steps}" if steps in TUNABLE else ""
        warn_caller(f"no table is tuned for {steps} steps (there are: {there}): untuned.{cure}")


def swap(pipeline: Any, scheduler: str) -> None:
    """Sample with another scheduler: sde, few-step, a class of diffusers by name, or one's own as
    package.module:Class."""
    if scheduler in (SDE, FEW_STEP) and pipeline.scheduler.config.get("_consistency") is not None:
        raise ModelError(f"This model is distilled for few steps already: leave out --scheduler {scheduler}.")
    target: str | type[Any] = scheduler
    if scheduler == SDE:
        target = DPMSolverMultistepScheduler
    elif scheduler == FEW_STEP:
        target = FewStepScheduler
    elif ":" in scheduler:
        target = resolve_scheduler_class(scheduler)
    parts_of_pipeline(pipeline).swap_scheduler(pipeline, target, _SDE_OPTIONS if scheduler == SDE else {})


def write(samples: Tensor, out: Path, seed: int, pipeline: Any, turn: int) -> str:
    """One picture if `out` ends in .png, all texts if it ends in .txt, else a folder with a file a sample. Returns a
    line that says where.

    turn: after how many samples the choices, of classes or the like, begin again. Raises ConfigError for .txt of what
    is no text.
    """
    parts = parts_of_pipeline(pipeline)
    medium = parts.medium_of(pipeline)
    if out.suffix.lower() == ".txt":
        require_words(out, pipeline)
        write_atomically(out, f"{medium.sheet(samples)}\n")
        return f"{len(samples)} {parts.noun}s in {out}"
    if out.suffix.lower() == ".png":
        out.parent.mkdir(parents=True, exist_ok=True)
        save_png(medium.show(samples, columns_of(len(samples), turn)), out)
        return f"{len(samples)} {parts.noun}s in {out}"
    out.mkdir(parents=True, exist_ok=True)
    names = [f"seed-{seed + k:06d}" for k in range(len(samples))]
    older = sum(path.stem not in names for path in out.iterdir())
    medium.write(samples, out, names)
    beside = f", beside {older} that were there" if older else ""
    return f"{len(samples)} {parts.noun}s in the folder {out}{beside}"


def require_words(out: Path, pipeline: Any) -> None:
    """Raise ConfigError where `out` is a file of texts, and the model makes none."""
    parts = parts_of_pipeline(pipeline)
    if out.suffix.lower() == ".txt" and not parts.medium_of(pipeline).in_words:
        raise ConfigError(
            f"--out must end in .png, for one picture, or name a folder, and is {out}: this model makes {parts.noun}s, "
            "no texts."
        )


def choose_device() -> str:
    """The GPU where there is one."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"
