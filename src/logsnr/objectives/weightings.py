"""How much each noise level counts: weights as functions of the log-SNR.

A weighting is stated once, as a weight w on |x_0 - x_0'|^2, and is the same loss for every target (see
`logsnr.objectives.targets`):

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

import torch
from torch import Tensor

from logsnr.objectives.targets import squared_error_in_sample
from logsnr.schedulers.scheduling_beta import BetaScheduler
from logsnr.settings.objective import (
    EdmWeighting,
    ElboWeighting,
    MinSnrWeighting,
    P2Weighting,
    SigmoidWeighting,
    SimpleWeighting,
    SnrWeighting,
    TruncatedSnrWeighting,
    WeightingConfig,
)


def sample_weights(log_snr: Tensor, weighting: WeightingConfig) -> Tensor:
    """The weight on |x_0 - x_0'|^2 at each timestep, (T,) from the whole table of log-SNRs (T,), float64."""
    snr = log_snr.exp()
    match weighting:
        case SnrWeighting():
            return snr
        case TruncatedSnrWeighting():
            return snr.clamp(min=1)
        case MinSnrWeighting(gamma=gamma):
            return snr.clamp(max=gamma)
        case P2Weighting(gamma=gamma):
            weights: Tensor = snr / (1 + snr) ** gamma
            return weights
    decrease = len(snr) * (torch.cat([2 * snr[:1], snr[:-1]]) - snr)
    return integral_weights(log_snr, decrease, weighting)


def integral_weights(log_snr: Tensor, decrease: Tensor, weighting: WeightingConfig) -> Tensor:
    """The last three on |x_0 - x_0'|^2, for log-SNRs where the SNR falls by D = `decrease`; all of one shape."""
    match weighting:
        case ElboWeighting():
            return decrease / 2
        case SigmoidWeighting(bias=bias):
            return torch.sigmoid(bias - log_snr) * decrease / 2
        case EdmWeighting(sigma_data=sigma_data):
            lognormal = torch.exp(-0.5 * ((log_snr - 2.4) / 2.4).square()) / (2.4 * (2 * torch.pi) ** 0.5)
            # written with snr outside the bracket, so that zero terminal SNR gives 0 and not 0 times infinity
            weights: Tensor = lognormal * (torch.exp(-log_snr.clamp(min=-60)) / sigma_data**2 + 1) * decrease
            return weights
    raise TypeError(f"{weighting} is no weighting of |x_0 - x_0'|^2.")


def loss_weights(scheduler: BetaScheduler, weighting: WeightingConfig) -> Tensor:
    """The weight on the squared error of the scheduler's own target at each timestep, (T,), float32."""
    log_snr = scheduler.log_snr(torch.arange(len(scheduler))).double()
    if isinstance(weighting, SimpleWeighting):
        return torch.ones(len(log_snr))
    factor = squared_error_in_sample(scheduler.prediction_type, log_snr)
    return (sample_weights(log_snr, weighting) * factor).float()
