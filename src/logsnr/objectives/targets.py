"""What a network may predict, and its squared error in each.

It may predict the noise, the clean sample, v or x_0 - eps; given x_t each determines the others by an affine map, so
that an error in one is a multiple of an error in another. With lambda = log_snr, snr = e^lambda, a and s as in
`logsnr.schedulers.scheduling_beta`:

    |x_0 - x_0'|^2  =  f(lambda) |target - target'|^2
    f: epsilon 1 / snr,  sample 1,  v_prediction s^2 = 1 / (1 + snr),  x0_minus_noise (s / (a + s))^2
"""

from __future__ import annotations

import torch
from torch import Tensor

from logsnr.data.seeded import Batch
from logsnr.models.denoiser import Denoises
from logsnr.objectives.objective import noised
from logsnr.schedulers.scheduling_beta import BetaScheduler


def squared_error_in_sample(prediction_type: str, log_snr: Tensor) -> Tensor:
    """f(lambda): how much a squared error in the target is in x_0. Same shape as `log_snr`."""
    half = 0.5 * log_snr
    return {
        "epsilon": torch.exp(-log_snr),
        "sample": torch.ones_like(log_snr),
        "v_prediction": torch.sigmoid(-log_snr),
        "x0_minus_noise": torch.sigmoid(-half).square(),  # s / (a + s) = 1 / (1 + a / s)
    }[prediction_type]


def target(scheduler: BetaScheduler, images: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
    """What the network should say for x_t made from `images` and `noise`, both (batch, channels, height, width)."""
    if scheduler.prediction_type == "epsilon":
        return noise
    if scheduler.prediction_type == "sample":
        return images
    if scheduler.prediction_type == "v_prediction":
        velocity: Tensor = scheduler.get_velocity(images, noise, timesteps)
        return velocity
    return images - noise


def squared_errors(
    scheduler: BetaScheduler, model_output: Tensor, images: Tensor, noise: Tensor, timesteps: Tensor
) -> Tensor:
    """Mean squared error of each image's prediction, unweighted, in float32: (batch,)."""
    error = model_output.float() - target(scheduler, images, noise, timesteps)
    return error.square().flatten(1).mean(1)


def target_errors(denoiser: Denoises, schedule: BetaScheduler, batch: Batch, timesteps: Tensor, stream: str) -> Tensor:
    """`squared_errors` of noisy samples whose noise comes from (0, position) and `stream`: the same in every run."""
    clean, noise = noised(batch, 0, stream, timesteps.device)
    x_t = schedule.add_noise(clean, noise, timesteps)
    output, _ = denoiser(x_t, timesteps, denoiser.conditioner.encode(batch.condition, timesteps.device))
    return squared_errors(schedule, output, clean, noise, timesteps)
