"""Prediction targets and loss weightings, in log-SNR: what training minimises.

A network may predict the noise, the clean image, v or x_0 - eps; given x_t each determines the others by an affine
map, so an error in one is a multiple of an error in another. With lambda = log_snr, snr = e^lambda, a and s as in
`scheduling_beta`:

    |x_0 - x_0'|^2  =  f(lambda) |target - target'|^2
    f: epsilon 1 / snr,  sample 1,  v_prediction s^2 = 1 / (1 + snr),  x0_minus_noise (s / (a + s))^2

A weighting is therefore stated once, as a weight w on |x_0 - x_0'|^2, and is the same loss for every target:

    snr            snr                               DDPM's loss on the noise (Ho et al., 2006.11239, eq. 14)
    truncated_snr  max(snr, 1)                       (Salimans and Ho, 2202.00512, section 4)
    min_snr        min(snr, gamma)                   (Hang et al., 2303.09556, eq. 8)
    p2             snr / (1 + snr)^gamma             (Choi et al., 2204.00227, eq. 8)
    elbo           D / 2                             (Kingma et al., 2107.00630, eq. 14)
    sigmoid        sigmoid(b - lambda) D / 2         (Kingma and Gao, 2303.00848; Hoogeboom et al., 2410.19324)
    edm            N(lambda; 2.4, 2.4^2) (1/snr + sigma_data^2) / sigma_data^2 D
                                                     (Karras et al., 2206.00364, table 1, as read by 2303.00848)

where D_t = T (snr_{t-1} - snr_t), the discrete -d snr / d(t/T): the last three are integrals over lambda, the same
whatever the schedule. At t = 0, whose term is a decoder and not a KL divergence, D = T snr_0, a Gaussian decoder of
variance 1 / snr_0. `simple` is the exception: the plain squared error of whatever the network predicts.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from logsnr.config import ObjectiveConfig
from logsnr.schedulers.scheduling_beta import BetaScheduler


def squared_error_in_sample(prediction_type: str, log_snr: Tensor) -> Tensor:
    """f of the module's text: how much a squared error in the target is in x_0. Same shape as `log_snr`."""
    half = 0.5 * log_snr
    return {
        "epsilon": torch.exp(-log_snr),
        "sample": torch.ones_like(log_snr),
        "v_prediction": torch.sigmoid(-log_snr),
        "x0_minus_noise": torch.sigmoid(-half).square(),  # s / (a + s) = 1 / (1 + a / s)
    }[prediction_type]


def sample_weights(log_snr: Tensor, config: ObjectiveConfig) -> Tensor:
    """The weight on |x_0 - x_0'|^2 at each timestep, (T,) from the whole table of log-SNRs (T,), float64."""
    snr = log_snr.exp()
    decrease = len(snr) * (torch.cat([2 * snr[:1], snr[:-1]]) - snr)
    if config.weighting in ("elbo", "sigmoid", "edm"):
        return integral_weights(log_snr, decrease, config)
    weights: Tensor = {
        "snr": snr,
        "truncated_snr": snr.clamp(min=1),
        "min_snr": snr.clamp(max=config.min_snr_gamma),
        "p2": snr / (1 + snr) ** config.p2_gamma,
    }[config.weighting]
    return weights


def integral_weights(log_snr: Tensor, decrease: Tensor, config: ObjectiveConfig) -> Tensor:
    """The last three on |x_0 - x_0'|^2, for log-SNRs where the SNR falls by D = `decrease`; all of one shape."""
    sigma_data = config.sigma_data
    lognormal = torch.exp(-0.5 * ((log_snr - 2.4) / 2.4).square()) / (2.4 * (2 * torch.pi) ** 0.5)
    weights: Tensor = {
        "elbo": decrease / 2,
        "sigmoid": torch.sigmoid(config.sigmoid_bias - log_snr) * decrease / 2,
        # written with snr outside the bracket, so that zero terminal SNR gives 0 and not 0 times infinity
        "edm": lognormal * (torch.exp(-log_snr.clamp(min=-60)) / sigma_data**2 + 1) * decrease,
    }[config.weighting]
    return weights


def loss_weights(scheduler: BetaScheduler, config: ObjectiveConfig) -> Tensor:
    """The weight on the squared error of the scheduler's own target at each timestep, (T,), float32."""
    log_snr = scheduler.log_snr(torch.arange(len(scheduler))).double()
    if config.loss == "vlb":  # the bound's KL divergences with the posterior's variance
        config = dataclasses.replace(config, weighting="elbo")
    if config.weighting == "simple":
        return torch.ones(len(log_snr))
    factor = squared_error_in_sample(scheduler.prediction_type, log_snr)
    return (sample_weights(log_snr, config) * factor).float()


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
