"""Multistep consistency distillation: a trained denoiser learns where its own sampling path will be, far ahead.

The path of the probability-flow ODE from noise to an image is cut into n segments, at the timesteps of n-step sampling
(`trailing`), t_1 = T - 1 > t_2 > ... > t_n, and "t_n+1" is the clean image. A consistency model says in one evaluation
where the path ends (Song et al., 2303.01469); a multistep one where it leaves its segment (Heek et al., 2403.06807),
which is easier to learn: from pure noise nothing sharp has to be foreseen. Sampling is then n steps of DDIM, so that
what is learned is an x_0, f(x_t, t), the same output of the same network as before, from which DDIM's step

    J f = (sin(phi_t') x_t + sin(phi_t - phi_t') f) / sin(phi_t),    tan(phi) = s / a      (2010.02502, eq. 12, eta = 0)

lands on the path. Where that is, the teacher says: the network as it was, in K evaluations from t to t'. In the angle
the ODE is dx/dphi = v (Salimans and Ho, 2202.00512, eq. 11), and the teacher's steps are of Adams and Bashforth's
second order. The loss is, |.| being the root mean square and x_t a training image with noise,

    loss = sqrt(|J f(x_t, t) - teacher(x_t)|^2 + c^2) - c

pseudo-Huber (Song and Dhariwal, 2310.14189, eq. 8). Only the n timesteps that will be used are trained on, the segments
in turn, n the number of the sample: all noise is from (seed, n), as everywhere. At t_1 x_t is pure noise, so
that the first segment learns from the teacher alone.

A network that can't quite follow its target predicts less variance than the target has, and a contrast that is 3 % too
low can treble FID. So in the end the x_0 of each step gets the factor that gives it its target's contrast.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from logsnr.base.errors import ConfigError
from logsnr.data.seeded import Batch, Condition
from logsnr.models.denoiser import Denoiser, Denoises, original
from logsnr.models.schedules import consistency_scheduler
from logsnr.objectives.objective import Context, Gather, noised, require_schedule, shown_condition
from logsnr.schedulers.scheduling_beta import BetaScheduler
from logsnr.settings.objective import ConsistencyConfig, require_settings

Grid = tuple[Tensor, Tensor]

_PATHS, _PATHS_AT_ONCE, _FINE = 128, 64, 16
"""From which contrasts are measured: their number, how many at a time, and the teacher's evaluations in a segment. (A
coarse path loses contrast too.)"""
_CONTRASTS = "contrasts"


class ConsistencyObjective:
    """Distillation: how far the network's step lands from where the trained network's sampling path leads.

    Args:
        schedule: the noise that the network was trained with.
        settings: in how many evaluations the new model draws, and how the teacher leads there.
        context: its `denoiser` is the teacher, copied as it is now; its `shape` is that of a clean sample.

    Raises ConfigError where the schedule has too few timesteps for the steps, and ValueError without a teacher.
    """

    def __init__(self, schedule: BetaScheduler, settings: ConsistencyConfig, context: Context) -> None:
        require_schedule(schedule)
        require_settings(settings, ConsistencyConfig)
        if not isinstance(context.denoiser, Denoiser):
            raise ValueError(f"`context.denoiser` must be the denoiser that is distilled, and is {context.denoiser}.")
        self.schedule, self.settings, self.context = schedule, settings, context
        network = copy.deepcopy(context.denoiser.network).eval().requires_grad_(False)
        self.teacher = Denoiser(network, schedule, context.denoiser.conditioner)
        self.sampler = consistency_scheduler(schedule, settings.steps)
        self.weights = torch.ones(len(schedule), device=context.device)
        """Weights of the held-out errors: all 1, they are added up as they are."""
        self.grid = self._grid(settings.teacher_steps)
        if not _descends(self.grid):
            raise ConfigError(
                f"objective.steps {settings.steps} and objective.teacher_steps {settings.teacher_steps} need more "
                f"timesteps than the schedule has, {len(schedule)}. Use fewer."
            )

    def _grid(self, count: int) -> Grid:
        """Of each segment the teacher's timesteps, (n, K = count), about equally spaced in phi, and their angles with
        that of the segment's end, (n, K + 1)."""
        angles = self.sampler.angles
        starts = self.sampler.timesteps.tolist()
        timesteps, nodes = [], []
        ends = [*angles[starts[1:]].tolist(), 0.0]
        for start, end in zip(starts, ends, strict=True):
            wanted = torch.linspace(float(angles[start]), end, count + 1, dtype=torch.float64)[1:-1]
            inner = (angles - wanted[:, None]).abs().argmin(1).tolist()
            timesteps.append([start, *inner])
            nodes.append([*angles[timesteps[-1]].tolist(), end])
        return torch.tensor(timesteps, device=self.context.device), torch.tensor(nodes, device=self.context.device)

    def loss(self, denoiser: Denoises, batch: Batch) -> Tensor:
        """The mean loss of a training batch: a tensor without axes, for `backward()`.

        Timesteps and noise come from `context.seed` and `batch.positions`. Raises ValueError where the denoiser doesn't
        know the batch's condition or misses it, and ModelError where the network's output doesn't fit.
        """
        condition = shown_condition(denoiser, batch, self.context)
        clean, noise = noised(batch, self.context.seed, "noise", self.context.device)
        segments = (batch.positions % self.settings.steps).to(self.context.device)
        errors = self.squared_errors(denoiser, clean, noise, condition, segments)
        c = self.settings.huber_c
        return ((errors + c**2).sqrt() - c).mean()

    def squared_errors(
        self, denoiser: Denoises, clean: Tensor, noise: Tensor, condition: Condition, segments: Tensor
    ) -> Tensor:
        """|J f(x_t, t) - teacher(x_t)|^2 of each sample in its segment, 0 to n - 1: (batch,)."""
        timesteps, angles = self.grid
        t = timesteps[segments, 0]
        x_t = self.schedule.add_noise(clean, noise, t)
        x_0 = original(denoiser, x_t, t, condition)
        reached = _ddim(x_t, x_0, angles[segments, 0], angles[segments, -1])
        return (reached - self.path(x_t, condition, segments, self.grid)).square().flatten(1).mean(1)

    @torch.no_grad()
    def path(self, sample: Tensor, condition: Condition, segments: Tensor, grid: Grid) -> Tensor:
        """Where the teacher's path from x_t (`sample`), t the start of the sample's segment, leaves that segment."""
        before: Tensor | None = None
        timesteps, angles = (table[segments].T for table in grid)
        for k, t in enumerate(timesteps):
            at, after = angles[k], angles[k + 1]
            with self.context.autocast():
                x_0 = original(self.teacher, sample, t, condition)
            x_0 = self.schedule.clip_original_sample(x_0)
            velocity = (_spread(at.cos(), sample) * sample - x_0) / _spread(at.sin(), sample)
            if before is None:
                sample = _ddim(sample, x_0, at, after)
            else:
                step, last = after - at, at - angles[k - 1]
                slope = _spread(step / (2 * last), sample) * (velocity - before)
                sample = sample + _spread(step, sample) * (velocity + slope)
            before = velocity
        return sample

    def errors(self, denoiser: Denoises, batch: Batch, timesteps: Tensor, stream: str) -> Tensor:
        """Squared errors (batch,) in the segments in which `timesteps` lie."""
        clean, noise = noised(batch, 0, stream, self.context.device)
        segments = (timesteps[:, None] <= self.grid[0][:, 0]).sum(1) - 1
        condition = denoiser.conditioner.encode(batch.condition, self.context.device)
        return self.squared_errors(denoiser, clean, noise, condition, segments)

    def after_step(self, gather: Gather, progress: float) -> None:
        """Does nothing: this loss learns nothing from its batches."""

    def _fine_grid(self) -> Grid:
        """Of `_FINE` evaluations in each segment, or as many as the schedule has timesteps for."""
        counts = range(max(_FINE, self.settings.teacher_steps), self.settings.teacher_steps, -1)
        return next((grid for count in counts if _descends(grid := self._grid(count))), self.grid)

    @torch.no_grad()
    def finish(self, denoiser: Denoises) -> None:
        """Measure, on paths from noise, by what the network's x_0 must be multiplied in each step for the contrast
        that it has on the teacher's own path."""
        device, generator = self.context.device, torch.Generator().manual_seed(self.context.seed)
        reached = sample = torch.randn(_PATHS, *self.context.shape, generator=generator).to(device)
        conditions = denoiser.conditioner.in_turn(_PATHS, device)
        contrasts, clip = [], self.schedule.clip_original_sample
        timesteps, angles = fine = self._fine_grid()
        for segment, (at, after) in enumerate(angles[:, [0, -1], None]):
            seen, ends = [], []
            for rows in torch.arange(_PATHS, device=device).split(_PATHS_AT_ONCE):
                some = {name: values[rows] for name, values in conditions.items()}
                seen.append(original(denoiser, sample[rows], timesteps[segment, 0].expand(len(rows)), some))
                ends.append(self.path(reached[rows], some, torch.full_like(rows, segment), fine))
            before, reached = reached, torch.cat(ends)
            wanted = (at.sin() * reached - after.sin() * before) / (at - after).sin()  # from where `_ddim` lands there
            x_0, contrast = torch.cat(seen), 1.0
            for _ in range(8):  # clipping takes some of it back
                contrast *= (_variance(clip(wanted)) / _variance(clip(contrast * x_0))) ** 0.5
            contrasts.append(contrast)
            sample = _ddim(sample, clip(contrast * x_0), at, after)
        self.restore({_CONTRASTS: torch.tensor(contrasts)})

    def state(self) -> dict[str, Tensor]:
        """The factors, once they are measured."""
        contrasts = self.sampler.contrasts
        return {} if contrasts is None else {_CONTRASTS: torch.tensor(contrasts)}

    def restore(self, state: dict[str, Tensor]) -> None:
        """The inverse of `state`."""
        self.sampler = consistency_scheduler(self.schedule, self.settings.steps, kept_contrasts(state))


def kept_contrasts(state: dict[str, Tensor]) -> list[float] | None:
    """What `ConsistencyObjective.state` holds."""
    return state[_CONTRASTS].tolist() if _CONTRASTS in state else None


def _descends(grid: Grid) -> bool:
    return bool((grid[1].diff(dim=1) < 0).all())


def _variance(samples: Tensor) -> float:
    """Over a sample's values, of all samples."""
    return float(samples.float().flatten(1).var(1).mean())


def _spread(values: Tensor, samples: Tensor) -> Tensor:
    """One value a sample, (batch,), with as many axes as the samples have."""
    return values.view(-1, *[1] * (samples.ndim - 1))


def _ddim(sample: Tensor, x_0: Tensor, at: Tensor, after: Tensor) -> Tensor:
    """J of the step above, from angles `at` to `after`, each (batch,)."""
    of_sample, of_x_0 = after.sin() / at.sin(), (at - after).sin() / at.sin()
    return _spread(of_sample, sample) * sample + _spread(of_x_0, sample) * x_0
