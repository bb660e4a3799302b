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

import abc
import math

import torch
from torch import Tensor

from logsnr.base.noise import chances_like
from logsnr.base.seeds import sample_seeds
from logsnr.data.seeded import Batch
from logsnr.models.denoiser import Denoises
from logsnr.objectives.objective import Context, Fixed, shown_condition
from logsnr.objectives.timesteps import draw_timesteps
from logsnr.schedulers.scheduling_transition import TransitionScheduler
from logsnr.settings.objective import ObjectiveConfig, require_settings


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


def bound_weights(schedule: TransitionScheduler, device: torch.device) -> Tensor:
    """w_t, (T,), float32: the mean of w_t e_t over samples and timesteps is the bound, in bits a token."""
    return (len(schedule) * step_survival(schedule, device)).float()


class StateObjective(Fixed, abc.ABC):
    """A loss of states; what it is of a batch is its own.

    Args:
        schedule: the noise of the states.
        settings: of the class that the loss is built by; those, which have nothing to set, when not given.
        context: seed, device and how many conditions are dropped.

    Raises TypeError for a schedule of numbers.
    """

    config: type[ObjectiveConfig]
    """The class of its settings."""

    def __init__(
        self, schedule: TransitionScheduler, settings: ObjectiveConfig | None = None, context: Context | None = None
    ) -> None:
        require_states(schedule)
        require_settings(self.config() if settings is None else settings, self.config)
        self.schedule = self.sampler = schedule
        self.context = context or Context()
        self.weights = bound_weights(schedule, self.context.device)

    @abc.abstractmethod
    def loss_of(self, logits: Tensor, clean: Tensor, x_t: Tensor, timesteps: Tensor) -> Tensor:
        """The mean loss of states x_0 and x_t at these timesteps, of which the network says these logits."""

    def loss(self, denoiser: Denoises, batch: Batch) -> Tensor:
        """The mean loss of a training batch: a tensor without axes, for `backward()`.

        Timesteps and noise come from `context.seed` and `batch.positions`. Raises ValueError where the denoiser doesn't
        know the batch's condition or misses it, and ModelError where the network's output doesn't fit.
        """
        seed, device = self.context.seed, self.context.device
        t = torch.from_numpy(draw_timesteps(seed, batch.positions.numpy(), len(self.schedule))).to(device)
        clean, x_t = noised_states(self.schedule, batch, seed, "noise", t)
        logits, _ = denoiser(x_t, t, shown_condition(denoiser, batch, self.context))
        return self.loss_of(logits, clean, x_t, t)

    def errors(self, denoiser: Denoises, batch: Batch, timesteps: Tensor, stream: str) -> Tensor:
        """Bits for each unit of survival that the step takes away, (batch,), at given timesteps, int64, (batch,).

        What a held-out loss is made of, whatever trains: weighted by `weights[timesteps]` their mean is the bound in
        bits a token. The noise of position n comes from (0, n) and `stream`, any word, so that the same call has the
        same noise for every model.
        """
        clean, x_t = noised_states(self.schedule, batch, 0, stream, timesteps)
        logits, _ = denoiser(x_t, timesteps, denoiser.conditioner.encode(batch.condition, timesteps.device))
        return bound_errors(self.schedule, logits, clean, x_t, timesteps)
