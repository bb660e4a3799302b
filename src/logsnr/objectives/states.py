"""What the losses of states have in common: noise, cross-entropy, and the terms of the bound.

    -log2 p(x_0) <= sum over t of L_t,    L_t = E KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t))

(Austin et al., 2107.03006, eq. 1; at t = 0 it is -log p(x_0 | x_t).) Here L_t are bits a token. The error of a noise
level is L_t for each unit of survival that its step takes away,

    e_t = L_t / (alpha_bar_{t-1} - alpha_bar_t),    sum over t of L_t = mean over t of w_t e_t,
    w_t = T (alpha_bar_{t-1} - alpha_bar_t)

so that it says how well the network does there, whatever the schedule: of the absorbing kernel e_t is the
cross-entropy of a masked place (2406.07524, eq. 10). All is linear in the samples.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from logsnr.base.noise import chances_like
from logsnr.base.seeds import sample_seeds
from logsnr.data.seeded import Batch
from logsnr.models.denoiser import Denoises
from logsnr.schedulers.scheduling_transition import TransitionScheduler


def require_states(schedule: object) -> None:
    """Raise TypeError unless it is a scheduler of states."""
    if not isinstance(schedule, TransitionScheduler):
        name = schedule.__name__ if isinstance(schedule, type) else type(schedule).__name__
        raise TypeError(
            f"schedule must be a TransitionScheduler, and is {name}: this is a loss of states, such as letters. Of "
            "numbers there are WeightedObjective and others."
        )


def noised_states(
    schedule: TransitionScheduler, batch: Batch, seed: int, stream: str, timesteps: Tensor
) -> tuple[Tensor, Tensor]:
    """x_0 and x_t of a batch, on the device of the timesteps; the chance of each sample comes from its own seed."""
    clean = batch.clean.to(timesteps.device)
    chances = chances_like(clean, sample_seeds(seed, batch.positions.numpy(), stream))
    return clean, schedule.add_noise(clean, chances, timesteps)


def step_survival(schedule: TransitionScheduler, device: torch.device) -> Tensor:
    """alpha_bar_{t-1} - alpha_bar_t of each timestep, (T,), float64: what a step takes away."""
    survival = schedule.alphas_cumprod
    return (torch.cat([torch.ones_like(survival[:1]), survival[:-1]]) - survival).to(device)


def cross_entropies(schedule: TransitionScheduler, logits: Tensor, clean: Tensor, x_t: Tensor) -> Tensor:
    """-log p(x_0 | x_t) of each place where x_t is noise, in nats, 0 elsewhere, (batch, length).

    Of the absorbing kernel these are the masks; of the others any place may be.
    """
    nats = torch.nn.functional.cross_entropy(logits.flatten(0, 1), clean.flatten(), reduction="none").view_as(clean)
    if schedule.kernel == "absorbing":
        nats = nats * (x_t == schedule.mask_token_id)
    return nats


def bound_errors(
    schedule: TransitionScheduler, logits: Tensor, clean: Tensor, x_t: Tensor, timesteps: Tensor
) -> Tensor:
    """e_t of each sample, in bits, (batch,), float32."""
    if schedule.kernel == "absorbing":
        masked = 1 - schedule.alphas_cumprod.to(timesteps.device)[timesteps]
        nats = cross_entropies(schedule, logits, clean, x_t).mean(1) / masked
    else:
        taken = step_survival(schedule, timesteps.device)[timesteps]
        nats = schedule.bound(logits, clean, x_t, timesteps).mean(1) / taken
    return (nats / math.log(2)).float()


def held_out_errors(
    denoiser: Denoises, schedule: TransitionScheduler, batch: Batch, timesteps: Tensor, stream: str
) -> Tensor:
    """`bound_errors` of noisy samples whose noise comes from (0, position) and `stream`: the same in every run."""
    clean, x_t = noised_states(schedule, batch, 0, stream, timesteps)
    logits, _ = denoiser(x_t, timesteps, denoiser.conditioner.encode(batch.condition, timesteps.device))
    return bound_errors(schedule, logits, clean, x_t, timesteps)


def bound_weights(schedule: TransitionScheduler, device: torch.device) -> Tensor:
    """w_t, (T,), float32: the mean of w_t e_t over samples and timesteps is the bound, in bits a token."""
    return (len(schedule) * step_survival(schedule, device)).float()
