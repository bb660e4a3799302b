"""Training: one loop, read from top to bottom. To resume, run the same command again.

Nothing that happens in step k depends on anything but the weights after step k - 1, the configuration and k: the
images, timesteps, noise and dropped labels of sample n come from (seed, n), dropout from (seed, k), the learning rate
from k. A run that was killed and started again therefore ends with the same weights as one that wasn't: bit for bit on
the same machine with the same number of threads (a run keeps its own), for both decide in which order sums are taken.
(Where the loss itself learns, `Objective.state`, that is kept with the weights.)
"""

from __future__ import annotations

import contextlib
import math
import signal
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import ProjectConfiguration
from diffusers.training_utils import EMAModel
from torch import Tensor
from tqdm import tqdm

from logsnr.base.errors import CheckpointError, TrainingError, out_of_memory
from logsnr.base.files import read_json, replacing_folder
from logsnr.base.seeds import sample_seed
from logsnr.base.threads import Pace, keep
from logsnr.folders.checkpoint import Checkpoint, Tensors, load_latest, save_checkpoint
from logsnr.folders.model_folder import GUIDE, save_model
from logsnr.folders.run_folder import CONFIG
from logsnr.models.precision import precision_in_words, resolve_precision
from logsnr.objectives.objective import Objective
from logsnr.settings.presets import require_config
from logsnr.settings.run import RunConfig
from logsnr.settings.schedule import ScheduleConfig
from logsnr.tasks.task import Task, open_task, parts_of
from logsnr.training.effort import Clock, note_model_step
from logsnr.training.heartbeat import GONE, heartbeat
from logsnr.training.interrupt import Interrupt
from logsnr.training.monitor import Log, log_held_out, log_samples
from logsnr.training.optimizers import make_optimizers
from logsnr.training.runs import (
    claim,
    export_model,
    hold,
    require_place,
    require_tracker,
    size_in_words,
)
from logsnr.training.together import together


@dataclass(frozen=True)
class TrainResult:
    """How a call of `train` ended: steps done, whether that is all of them, the signal that stopped it if one did."""

    step: int
    finished: bool
    stopped_by: signal.Signals | None
    folders: list[Path]


def train(config: RunConfig, run: Path | str) -> TrainResult:
    """Train in the folder `run`, or go on where the last call stopped, and export the model to `run`/model.

    A call that is interrupted (Ctrl-C or SIGTERM) saves the step that it is at and returns; one more call with the
    configuration unchanged goes on from there, to the weights that there would have been without the interruption.

    A configuration is a preset's, with other values where they are wanted:

        from dataclasses import replace

        config = logsnr.presets()["images-32"].config
        config = replace(
            config, data=replace(config.data, source="photos"), train=replace(config.train, num_steps=2000)
        )
        logsnr.train(config, "runs/photos")

    Raises TypeError for what is no RunConfig, and DataError, ConfigError, ModelError, CheckpointError or TrainingError
    with a message for the user.
    """
    require_config(config, "train")
    options, run = config.train, Path(run)

    # Set-up: processes, data, model, optimiser
    accelerator = Accelerator(
        cpu=not torch.accelerator.is_available(),  # or accelerate takes several processes without a GPU for strangers
        mixed_precision=resolve_precision(options.mixed_precision),
        log_with=None if options.tracker == "none" else options.tracker,
        project_config=ProjectConfiguration(project_dir=str(run), logging_dir=str(run / "logs")),
    )
    main = accelerator.is_main_process
    say = print if main else _silence
    with together(accelerator):
        require_tracker(options.tracker)
        if main:
            require_place(run, config)
        parts = parts_of(config.kind)
        data = parts.open_data(config) if main else None  # first in one process: what the Hub sends is kept for all
    with together(accelerator):
        task = open_task(config, data, device=accelerator.device, autocast=accelerator.autocast)
    data, network, objective, averaged = task.data, task.network, task.objective, task.denoiser
    for line in data.examples.complaints:
        say(line)
    say(data.description)
    if isinstance(config.schedule, ScheduleConfig) and config.schedule.prediction_type == "x0_minus_noise":
        say("The target x0_minus_noise has no stock form: the model will need trust_remote_code or logsnr to load.")
    say(f"{type(network).__name__} with {size_in_words(network)}, {describe(accelerator)}")
    optimizers = make_optimizers(network, options, parts.trunk(network))
    network.train()
    ema = EMAModel(network.parameters(), decay=options.ema_decay, foreach=True)
    ema.to(accelerator.device)

    with (
        _explained(config, run),
        Interrupt() as interrupt,
        parts.kernels(network),
        contextlib.ExitStack() as at_exit,
        heartbeat(accelerator),
    ):
        # Resume
        with together(accelerator):
            if main:
                at_exit.enter_context(hold(run))
                for line in claim(run, task, accelerator.num_processes, accelerator.mixed_precision):
                    say(f"Now with {line}")
        with together(accelerator):
            for line in keep(read_json(run / CONFIG)["machine"]):
                say(line)
            latest, complaints = load_latest(run)
        for line in complaints:
            say(line)
        done = 0
        if latest is not None:
            _restore(latest, network, ema, optimizers, objective)
            done = latest.step
            say(f"Going on from step {done} of {options.num_steps}.")
            if done == options.num_steps:
                say("Nothing is left to train.")
        del latest

        # What a step needs
        model, *optimizers = accelerator.prepare(network, *optimizers)
        denoiser = task.denoiser.of(torch.compile(model) if options.compile else model)
        samples_per_step = options.batch_size * options.gradient_accumulation_steps * accelerator.num_processes
        batches = data.batches(
            seed=options.seed,
            batch_size=options.batch_size,
            start_step=done,
            num_steps=options.num_steps - done,
            accumulation_steps=options.gradient_accumulation_steps,
            process_index=accelerator.process_index,
            num_processes=accelerator.num_processes,
        )
        log = Log(run, accelerator, done) if main else None
        clock = Clock(run, done, samples_per_step, accelerator) if main else None
        accelerator.init_trackers("train")
        for tracker in accelerator.trackers:
            at_exit.callback(tracker.finish)
        bar = tqdm(total=options.num_steps, initial=done, unit="step", disable=not main, dynamic_ncols=True)
        at_exit.callback(bar.close)
        losses: list[Tensor] = []
        norms: list[Tensor] = []
        stopped_by = None
        pace = Pace(accelerator.device.type, options.num_steps - done)

        # The loop
        while done < options.num_steps and stopped_by is None:
            pace.begin()
            lr = learning_rate(config, done)
            for group in (group for optimizer in optimizers for group in optimizer.param_groups):
                group["lr"] = lr
            torch.manual_seed(sample_seed(options.seed, done, f"dropout {accelerator.process_index}"))

            # Forward and backward; gradients are exchanged between processes with the last batch only
            loss = torch.zeros((), device=accelerator.device)
            for micro in range(options.gradient_accumulation_steps):
                last = micro == options.gradient_accumulation_steps - 1
                with contextlib.nullcontext() if last else accelerator.no_sync(model):
                    part = objective.loss(denoiser, next(batches)) / options.gradient_accumulation_steps
                    accelerator.backward(part)
                    loss += part.detach()

            # Update
            norms.append(accelerator.clip_grad_norm_(model.parameters(), options.max_grad_norm))
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            ema.step(network.parameters())
            objective.after_step(accelerator.gather, done / options.num_steps)
            done += 1
            losses.append(loss)
            bar.update()
            if (said := pace.end()) is not None and main:
                bar.write(said)

            # Log, look, save
            at_end = done == options.num_steps
            due = done % options.checkpoint_every == 0 or at_end
            log_now = due or done % options.log_every == 0
            if log_now or accelerator.num_processes == 1:  # to ask the others takes an exchange
                stopped_by = interrupt.agreed(accelerator)
            if log_now or stopped_by is not None:
                measured = accelerator.reduce(torch.stack([torch.stack(losses), torch.stack(norms)]), "mean").tolist()
                _require_finite(measured, done, run)
                mean = float(np.mean(measured[0]))
                rate = samples_per_step * (bar.format_dict["rate"] or 0.0)
                bar.set_postfix_str(f"loss {mean:.4f}, {rate:.0f} {data.examples.noun}s/s")
                if log is not None and clock is not None:
                    values = {"loss": mean, "learning_rate": lr, "samples_per_second": rate, "seconds": clock.seconds}
                    log.scalars(done, values)
                losses, norms = [], []
            if at_end:
                with _averaged(network, ema), accelerator.autocast(), _said(bar, "last measurements"):
                    objective.finish(averaged)
            if log is not None and options.held_out_every and (done % options.held_out_every == 0 or at_end):
                with _averaged(network, ema), accelerator.autocast(), _said(bar, "held-out loss"):
                    log_held_out(log, done, objective, averaged, data)
            if main and done == math.ceil(options.keep_guide * options.num_steps):
                with _said(bar, "a model to guide by"), replacing_folder(run / GUIDE) as guide:
                    save_model(task.pipeline(_averaged_network(task, ema), objective.sampler), guide)
            if log is not None and options.sample_every and (done % options.sample_every == 0 or at_end):
                with _averaged(network, ema), accelerator.autocast(), _said(bar, "samples"):
                    log_samples(log, done, task)
            if accelerator.num_processes == 1:  # it may have come while one looked
                stopped_by = interrupt.agreed(accelerator)
            if due or stopped_by is not None:
                with together(accelerator), _said(bar, "checkpoint"):
                    if clock is not None:
                        clock.reached(done)
                        save_checkpoint(
                            run, _state(done, network, ema, optimizers, objective), options.keep_checkpoints
                        )

        # Export the averaged weights
        folders: list[Path] = []
        finished = done == options.num_steps
        if finished:
            with together(accelerator), _said(bar, "export"):
                if main:
                    pipeline = task.pipeline(_averaged_network(task, ema), objective.sampler)
                    folders = export_model(run, parts, pipeline)
                    note_model_step(run, done)
        bar.close()

        # The wrapped network goes before the process group, or freeing it waits for a thread that waits for Python
        del model, denoiser
        accelerator.free_memory()
        accelerator.state.destroy_process_group()
        return TrainResult(done, finished, None if finished else stopped_by, folders)


def learning_rate(config: RunConfig, step: int) -> float:
    """Linear warm-up, then half a cosine to zero; `step` counts from 0."""
    options = config.train
    warm_up = min(1.0, (step + 1) / max(1, options.lr_warmup_steps))
    return options.learning_rate * warm_up * 0.5 * (1 + math.cos(math.pi * step / options.num_steps))


def describe(accelerator: Accelerator) -> str:
    """Device, processes and precision in words."""
    device = accelerator.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type.upper()
    count = f"{accelerator.num_processes} processes on " if accelerator.num_processes > 1 else ""
    return f"{count}{name}, {precision_in_words(accelerator.mixed_precision)}"


def _state(step: int, network: Any, ema: EMAModel, optimizers: list[Any], objective: Objective) -> Checkpoint:
    names = {parameter: name for name, parameter in network.named_parameters()}
    moments: Tensors = {}
    for optimizer in optimizers:
        for parameter, state in optimizer.state.items():
            moments |= {f"{key}.{names[parameter]}": value for key, value in state.items()}
    averaged = dict(zip(names.values(), ema.shadow_params, strict=True))
    return Checkpoint(step, dict(network.named_parameters()), averaged, moments, objective.state())


def _restore(
    checkpoint: Checkpoint,
    network: Any,
    ema: EMAModel,
    optimizers: list[torch.optim.Optimizer],
    objective: Objective,
) -> None:
    network.load_state_dict(checkpoint.network)
    for (name, _), shadow in zip(network.named_parameters(), ema.shadow_params, strict=True):
        shadow.copy_(checkpoint.ema[name])
    moments = defaultdict[str, Tensors](dict)
    for place, value in checkpoint.optimizer.items():
        key, _, name = place.partition(".")
        moments[name][key] = value
    names = {parameter: name for name, parameter in network.named_parameters()}
    for optimizer in optimizers:
        for parameter in (parameter for group in optimizer.param_groups for parameter in group["params"]):
            # copies: on the CPU the tensors loaded are the file itself, mapped into memory
            state = moments[names[parameter]].items()
            optimizer.state[parameter] = {key: value.to(parameter.device, copy=True) for key, value in state}
    ema.optimization_step = checkpoint.step
    objective.restore(checkpoint.objective)


@contextlib.contextmanager
def _said(bar: tqdm[Any], what: str) -> Iterator[None]:
    """Names before the progress bar what it waits for."""
    bar.set_description(what)
    yield
    bar.set_description("")


@contextlib.contextmanager
def _averaged(network: Any, ema: EMAModel) -> Iterator[None]:
    """The averaged weights in the network, for looking at it; the trained ones come back, bit for bit."""
    parameters = list(network.parameters())
    kept = [p.detach().clone() for p in parameters]
    ema.copy_to(parameters)
    network.eval()
    try:
        yield
    finally:
        for parameter, value in zip(parameters, kept, strict=True):
            parameter.data.copy_(value)
        network.train()


def _averaged_network(task: Task, ema: EMAModel) -> Any:
    """A new network with the averaged weights, on the CPU, without accelerate's wrapping of `forward`."""
    averaged = task.parts.unlearned(task.config, task.parts.network_config(task.network))
    ema.copy_to(averaged.parameters())
    return averaged


def _require_finite(values: list[list[float]], done: int, run: Path) -> None:
    """Raise unless all losses (`values[0]`) and gradient norms (`values[1]`) of the last steps, up to `done`, are."""
    losses, norms = values
    bad = [i for i in range(len(losses)) if not (math.isfinite(losses[i]) and math.isfinite(norms[i]))]
    if bad:
        step = done - len(losses) + bad[0] + 1
        folders = sorted((run / "checkpoints").glob("step-*"))
        good = f"The last good checkpoint is {folders[-1]}." if folders else "There is no checkpoint yet."
        raise TrainingError(
            f"At step {step} the loss is {losses[bad[0]]}, the gradient's norm {norms[bad[0]]}. {good} Try a lower "
            "train.learning_rate, more train.lr_warmup_steps, a smaller train.max_grad_norm or "
            "train.mixed_precision no, in a new --out."
        )


@contextlib.contextmanager
def _explained(config: RunConfig, run: Path) -> Iterator[None]:
    """What the machine lacks, as a message: memory, a disk that takes logs and pictures, the other processes."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise TrainingError(_out_of_memory(config, "the GPU's memory")) from error
    except OSError as error:
        raise CheckpointError(
            f"{run} can't be written: {error}. Mend that, then run the same command again; the checkpoints in it are "
            "whole."
        ) from error
    except RuntimeError as error:
        if out_of_memory(error):
            raise TrainingError(_out_of_memory(config, "memory")) from error
        if not isinstance(error, torch.distributed.DistError) and "by peer" not in str(error):  # gloo's own words
            raise
        raise TrainingError(GONE) from error


def _out_of_memory(config: RunConfig, place: str) -> str:
    batch, accumulation = config.train.batch_size, config.train.gradient_accumulation_steps
    if batch == 1:
        return f"One sample of this network doesn't fit into {place}. Use a smaller model, or smaller samples."
    smaller = max(divisor for divisor in range(1, batch // 2 + 1) if batch % divisor == 0)
    return (
        f"A batch of {batch} doesn't fit into {place}. Try --train.batch-size {smaller} "
        f"--train.gradient-accumulation-steps {accumulation * batch // smaller}, which gives steps of the same size, "
        "in a new --out."
    )


def _silence(*_: object) -> None:
    """print, in the processes that aren't the main one."""
