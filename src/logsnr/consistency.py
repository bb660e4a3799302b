"""Consistency tuning: the loss that makes a consistency model of a trained denoiser, and everything random about it.

The clean image that a denoiser predicts from x_t is the mean of all that x_t may come from; a consistency model says
where the path of the probability-flow ODE through x_t ends, an image, in one evaluation (Song et al., 2303.01469). Both
are the same network with the same output: f(x_t, t) is the x_0 that its prediction implies. Tuning (ECT: Geng et al.,
2406.14548) asks f to agree with itself between two noise levels of the same image and noise,

    loss = w d(f(x_t, t), sg f(x_r, r)),    d(u, v) = sqrt(|u - v|^2 + c^2) - c,    w = 1 / (phi_t - phi_r)

|.| the root mean square, sg: no gradient. At phi = 0 f is the clean image itself, so that what is known there spreads
to all noise levels. Noise is measured by the angle phi, tan(phi) = s / a, in which the ODE is dx/dphi = v and nothing
is singular (the paper measures it by tan(phi), and its d and w are these). The gap closes in stages,

    phi_r = phi_t (1 - 2^-k),    k = 1 .. K over the run                               (the paper's eq. 11, q = 2)

k = 0 would be r at the clean image, which is the denoiser's own loss: the model is pretrained. t is uniform in phi.

Both evaluations have the same dropout. As in `logsnr.denoising` all noise is from (seed, n), n the number of the sample
in the run; so is k.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import Tensor

from logsnr.config import DistillConfig, RunConfig
from logsnr.data import Batch, sample_seed
from logsnr.denoising import drop_labels, predicted, uniform, with_noise
from logsnr.models import num_class_embeds
from logsnr.registry import consistency_scheduler
from logsnr.schedulers.scheduling_beta import BetaScheduler


class ConsistencyObjective:
    """The tuning loss of a batch; to the training loop the like of `Objective`."""

    def __init__(
        self,
        config: RunConfig,
        scheduler: BetaScheduler,
        class_names: list[str] | None,
        device: torch.device,
        num_processes: int,
    ) -> None:
        assert config.distill is not None
        self.config: DistillConfig = config.distill
        self.scheduler, self.device, self.seed = scheduler, device, config.train.seed
        self.model_scheduler = consistency_scheduler(scheduler)
        embeds = num_class_embeds(class_names)
        self.null_label = None if embeds is None else embeds - 1
        options = config.train
        self._samples = options.num_steps * options.batch_size * options.gradient_accumulation_steps * num_processes
        self._angles = self.model_scheduler.angles.float().to(device)
        self.weights = torch.ones(len(scheduler), device=device)
        """Of the held-out errors, which are added up as they are."""

    def loss(self, model: Any, batch: Batch) -> Tensor:
        """The mean loss of a training batch."""
        n = batch.positions.numpy()
        labels = drop_labels(batch.labels, self.null_label, self.config.label_dropout, self.seed, n, self.device)
        images, noise = with_noise(batch.images, self.seed, n, "noise", self.device)
        angles = self._angles[-1] * torch.from_numpy(uniform(self.seed, n)).float().to(self.device)
        timesteps = torch.searchsorted(self._angles, angles).clamp(max=len(self.scheduler) - 1)
        stages = torch.from_numpy(1 + n * self.config.stages // self._samples).to(self.device)
        dropout = sample_seed(self.seed, int(n[0]), "dropout")
        errors, gaps = self.disagreement(model, images, noise, labels, timesteps, stages, dropout)
        c = self.config.huber_c
        return (((errors + c**2).sqrt() - c) / gaps).mean()

    def disagreement(
        self,
        model: Any,
        images: Tensor,
        noise: Tensor,
        labels: Tensor | None,
        timesteps: Tensor,
        stages: Tensor,
        dropout: int = 0,
    ) -> tuple[Tensor, Tensor]:
        """|f(x_t) - sg f(x_r)|^2, and phi_t - phi_r, each (batch,), for timesteps and stages k (batch,)."""
        earlier = self.earlier(timesteps, stages)
        clean = earlier < 0
        earlier = earlier.clamp(min=0)
        torch.manual_seed(dropout)
        image = self._image(model, self.scheduler.add_noise(images, noise, timesteps), timesteps, labels)
        torch.manual_seed(dropout)
        with torch.no_grad():
            wanted = self._image(model, self.scheduler.add_noise(images, noise, earlier), earlier, labels)
            wanted = torch.where(clean.view(-1, 1, 1, 1), images, self.scheduler.clip_original_sample(wanted))
        gaps = self._angles[timesteps] - torch.where(clean, 0, self._angles[earlier])
        return (image - wanted).square().flatten(1).mean(1), gaps

    def earlier(self, timesteps: Tensor, stages: Tensor) -> Tensor:
        """r: the last timestep whose angle is at most phi_t (1 - 2^-k), -1 where that is the clean image's."""
        wanted = self._angles[timesteps] * (1 - torch.exp2(-stages.float()))
        return torch.searchsorted(self._angles, wanted, right=True) - 1

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
        """Squared disagreement at the last stage's gap (batch,), the noise of each image drawn from its own seed."""
        images, noise = with_noise(images, seed, positions, stream, self.device)
        last = torch.full_like(timesteps, self.config.stages)
        return self.disagreement(model, images, noise, labels, timesteps, last)[0]

    def learn(self, accelerator: Accelerator, progress: float) -> None:
        """Nothing: this loss learns nothing itself."""

    def state(self) -> dict[str, Tensor]:
        return {}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Nothing, as there is no state."""
