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
in turn, n the number of the sample: all noise is from (seed, n), as in `logsnr.denoising`. At t_1 x_t is pure noise, so
that the first segment learns from the teacher alone.

A network that can't quite follow its target predicts less variance than the target has, and a contrast that is 3 % too
low can treble FID. So in the end the x_0 of each step gets the factor that gives it its target's contrast.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import Tensor

from logsnr.config import DistillConfig, RunConfig
from logsnr.data import Batch
from logsnr.denoising import drop_labels, predicted, with_noise
from logsnr.errors import ConfigError
from logsnr.models import num_class_embeds
from logsnr.registry import consistency_scheduler
from logsnr.schedulers.scheduling_beta import BetaScheduler

Grid = tuple[Tensor, Tensor]

_PATHS, _PATHS_AT_ONCE, _FINE = 128, 64, 16
"""From which contrasts are measured: their number, how many at a time, and the teacher's evaluations in a segment. (A
coarse path loses contrast too.)"""
_CONTRASTS = "contrasts"


class ConsistencyObjective:
    """The distillation loss of a batch; to the training loop the like of `Objective`.

    teacher: the network that is distilled; left as it is.
    """

    def __init__(
        self,
        config: RunConfig,
        scheduler: BetaScheduler,
        class_names: list[str] | None,
        teacher: Any,
        accelerator: Accelerator,
    ) -> None:
        assert config.distill is not None
        self.config: DistillConfig = config.distill
        self.scheduler, self.seed = scheduler, config.train.seed
        self.teacher, self.accelerator, self.device = teacher, accelerator, accelerator.device
        self.model_scheduler = consistency_scheduler(scheduler, self.config.steps)
        embeds = num_class_embeds(class_names)
        self.null_label = None if embeds is None else embeds - 1
        self.weights = torch.ones(len(scheduler), device=self.device)
        """Of the held-out errors, which are added up as they are."""
        self.grid = self._grid(self.config.teacher_steps)
        if not _descends(self.grid):
            raise ConfigError(
                f"distill.steps {self.config.steps} and distill.teacher_steps {self.config.teacher_steps} need more "
                f"timesteps than the schedule has, {len(scheduler)}. Use fewer."
            )

    def _grid(self, count: int) -> Grid:
        """Of each segment the teacher's timesteps, (n, K = count), about equally spaced in phi, and their angles with
        that of the segment's end, (n, K + 1)."""
        angles = self.model_scheduler.angles
        starts = self.model_scheduler.timesteps.tolist()
        timesteps, nodes = [], []
        ends = [*angles[starts[1:]].tolist(), 0.0]
        for start, end in zip(starts, ends, strict=True):
            wanted = torch.linspace(float(angles[start]), end, count + 1, dtype=torch.float64)[1:-1]
            inner = (angles - wanted[:, None]).abs().argmin(1).tolist()
            timesteps.append([start, *inner])
            nodes.append([*angles[timesteps[-1]].tolist(), end])
        return torch.tensor(timesteps, device=self.device), torch.tensor(nodes, device=self.device)

    def loss(self, model: Any, batch: Batch) -> Tensor:
        """The mean loss of a training batch."""
        n = batch.positions.numpy()
        labels = drop_labels(
            batch.condition.get("class_labels"), self.null_label, self.config.label_dropout, self.seed, n, self.device
        )
        images, noise = with_noise(batch.clean, self.seed, n, "noise", self.device)
        segments = (batch.positions % self.config.steps).to(self.device)
        errors = self.squared_errors(model, images, noise, labels, segments)
        c = self.config.huber_c
        return ((errors + c**2).sqrt() - c).mean()

    def squared_errors(
        self, model: Any, images: Tensor, noise: Tensor, labels: Tensor | None, segments: Tensor
    ) -> Tensor:
        """|J f(x_t, t) - teacher(x_t)|^2 of each image in its segment, 0 to n - 1: (batch,)."""
        timesteps, angles = self.grid
        noisy = self.scheduler.add_noise(images, noise, timesteps[segments, 0])
        image = self._image(model, noisy, timesteps[segments, 0], labels)
        reached = _ddim(noisy, image, angles[segments, 0], angles[segments, -1])
        return (reached - self.path(noisy, labels, segments, self.grid)).square().flatten(1).mean(1)

    @torch.no_grad()
    def path(self, sample: Tensor, labels: Tensor | None, segments: Tensor, grid: Grid) -> Tensor:
        """Where the teacher's path from x_t (`sample`), t the start of the image's segment, leaves that segment."""
        before: Tensor | None = None
        timesteps, angles = (table[segments].T for table in grid)
        for k, t in enumerate(timesteps):
            at, after = angles[k], angles[k + 1]
            with self.accelerator.autocast():
                image = self._image(self.teacher, sample, t, labels)
            image = self.scheduler.clip_original_sample(image)
            velocity = (at.cos().view(-1, 1, 1, 1) * sample - image) / at.sin().view(-1, 1, 1, 1)
            if before is None:
                sample = _ddim(sample, image, at, after)
            else:
                step, last = after - at, at - angles[k - 1]
                slope = (step / (2 * last)).view(-1, 1, 1, 1) * (velocity - before)
                sample = sample + step.view(-1, 1, 1, 1) * (velocity + slope)
            before = velocity
        return sample

    def _image(self, model: Any, noisy: Tensor, timesteps: Tensor, labels: Tensor | None) -> Tensor:
        """f(x_t, t)."""
        output, _ = predicted(model, self.scheduler, noisy, timesteps, labels)
        return self.scheduler.convert(output, noisy, timesteps, self.scheduler.prediction_type, "sample")

    def errors(
        self,
        model: Any,
        images: Tensor,
        labels: Tensor | None,
        timesteps: Tensor,
        seed: int,
        positions: NDArray[np.int64],
        stream: str,
    ) -> Tensor:
        """Squared errors (batch,) in the segments in which `timesteps` lie, each image's noise from its own seed."""
        images, noise = with_noise(images, seed, positions, stream, self.device)
        segments = (timesteps[:, None] <= self.grid[0][:, 0]).sum(1) - 1
        return self.squared_errors(model, images, noise, labels, segments)

    def learn(self, accelerator: Accelerator, progress: float) -> None:
        """Nothing: this loss learns nothing itself."""

    def _fine_grid(self) -> Grid:
        """Of `_FINE` evaluations in each segment, or as many as the schedule has timesteps for."""
        counts = range(max(_FINE, self.config.teacher_steps), self.config.teacher_steps, -1)
        return next((grid for count in counts if _descends(grid := self._grid(count))), self.grid)

    @torch.no_grad()
    def settle(self, model: Any) -> None:
        """Measure, on paths from noise, by what `model`'s x_0 must be multiplied in each step for the contrast that it
        has on the teacher's own path."""
        generator = torch.Generator().manual_seed(self.seed)
        reached = sample = torch.randn(_PATHS, *_image_shape(model), generator=generator).to(self.device)
        labels = None if self.null_label is None else torch.arange(_PATHS, device=self.device) % self.null_label
        contrasts, clip = [], self.scheduler.clip_original_sample
        timesteps, angles = fine = self._fine_grid()
        for segment, (at, after) in enumerate(angles[:, [0, -1], None]):
            images, ends = [], []
            for rows in torch.arange(_PATHS, device=self.device).split(_PATHS_AT_ONCE):
                classes = None if labels is None else labels[rows]
                images.append(self._image(model, sample[rows], timesteps[segment, 0].expand(len(rows)), classes))
                ends.append(self.path(reached[rows], classes, torch.full_like(rows, segment), fine))
            before, reached = reached, torch.cat(ends)
            wanted = (at.sin() * reached - after.sin() * before) / (at - after).sin()  # from where `_ddim` lands there
            image, contrast = torch.cat(images), 1.0
            for _ in range(8):  # clipping takes some of it back
                contrast *= (_variance(clip(wanted)) / _variance(clip(contrast * image))) ** 0.5
            contrasts.append(contrast)
            sample = _ddim(sample, clip(contrast * image), at, after)
        self.restore({_CONTRASTS: torch.tensor(contrasts)})

    def state(self) -> dict[str, Tensor]:
        """The factors, once they are measured."""
        contrasts = self.model_scheduler.contrasts
        return {} if contrasts is None else {_CONTRASTS: torch.tensor(contrasts)}

    def restore(self, state: dict[str, Tensor]) -> None:
        """The inverse of `state`."""
        self.model_scheduler = consistency_scheduler(self.scheduler, self.config.steps, kept_contrasts(state))


def kept_contrasts(state: dict[str, Tensor]) -> list[float] | None:
    """What `ConsistencyObjective.state` holds."""
    return state[_CONTRASTS].tolist() if _CONTRASTS in state else None


def _descends(grid: Grid) -> bool:
    return bool((grid[1].diff(dim=1) < 0).all())


def _variance(images: Tensor) -> float:
    """Over an image's pixels, of all images."""
    return float(images.float().flatten(1).var(1).mean())


def _image_shape(model: Any) -> tuple[int, int, int]:
    size = model.config["sample_size"]
    return model.config["in_channels"], size, size


def _ddim(sample: Tensor, image: Tensor, at: Tensor, after: Tensor) -> Tensor:
    """J of the module's text, from angles `at` to `after`, each (batch,)."""
    of_sample, of_image = after.sin() / at.sin(), (at - after).sin() / at.sin()
    return of_sample.view(-1, 1, 1, 1) * sample + of_image.view(-1, 1, 1, 1) * image
