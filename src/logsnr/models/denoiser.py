"""A trained network as a function of a noisy sample, its timestep and a condition: the only place that calls one.

A network is called as diffusers calls its own, `network(sample, timestep, return_dict=False, **condition)[0]`, with a
timestep for each sample. What it says is of the schedule's `prediction_type`; with a learned variance it has twice the
channels, the second half for the variance (Nichol and Dhariwal, 2102.09672, section 3.1).

Conditions come encoded, as keywords of the network; where none is given the network gets the null one. Samples may lie
on another device and be of another dtype than the network: it sees its own, and what it says comes back in theirs.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from logsnr.base.errors import ModelError
from logsnr.conditions.conditioner import Conditioner, Unconditioned
from logsnr.data.seeded import Condition
from logsnr.schedulers.scheduling_beta import BetaScheduler


class Prediction(NamedTuple):
    """What a network says of a batch, in the shape, dtype and place of the noisy samples."""

    output: Tensor
    """Of the schedule's prediction type."""
    variance: Tensor | None
    """Where in the log-variance's range the reverse step's variance lies, about [-1, 1]; None unless it is learned."""


class Denoises(Protocol):
    """`Denoiser`, or one that is wrapped, as by `Guided`."""

    schedule: Any
    conditioner: Conditioner

    @property
    def device(self) -> torch.device: ...

    def __call__(self, x_t: Tensor, t: Tensor | int, condition: Condition) -> Prediction: ...


class Denoiser:
    """A network under the noise schedule that it was, or is being, trained with.

    Called as `denoiser(x_t, t, condition)` it gives a `Prediction`: what the network says, and of the variance if that
    is learned.

    Args:
        network: any `torch.nn.Module` that is called as diffusers calls a `UNet2DModel`:
            `network(sample, timestep, return_dict=False, **condition)[0]`, with `timestep` of shape (batch,).
        schedule: the scheduler whose `prediction_type` the network's output is of.
        conditioner: what is shown where nothing is asked for; a network without conditions needs none.
    """

    def __init__(self, network: Any, schedule: Any, conditioner: Conditioner | None = None) -> None:
        self.network, self.schedule = network, schedule
        self.conditioner: Conditioner = Unconditioned() if conditioner is None else conditioner

    def of(self, network: Any) -> Denoiser:
        """The same of another network, such as this one wrapped for several processes."""
        return Denoiser(network, self.schedule, self.conditioner)

    @property
    def device(self) -> torch.device:
        """Where the network is; one without weights is at home on the CPU."""
        weights = next(self.network.parameters(), None)
        return torch.device("cpu") if weights is None else weights.device

    def __call__(self, x_t: Tensor, t: Tensor | int, condition: Condition) -> Prediction:
        """What the network says of x_t, (batch, channels, ...), at timesteps t, (batch,) or one for all.

        Raises ModelError where the network's channels don't fit the schedule's variance.
        """
        weights = next(self.network.parameters(), x_t)  # one without weights computes as it is asked to
        given = condition or self.conditioner.null(len(x_t), weights.device)
        keywords = {name: value.to(weights.device) for name, value in given.items()}
        timesteps = torch.as_tensor(t, device=weights.device).expand(len(x_t))
        said = self.network(x_t.to(weights.device, weights.dtype), timesteps, return_dict=False, **keywords)[0]
        output: Tensor = said.to(x_t.device, x_t.dtype)
        variance_type = self.schedule.config.get("variance_type")
        learned = variance_type == "learned_range"
        channels = x_t.shape[1] * (2 if learned else 1)
        if output.shape[1] != channels:
            raise ModelError(
                f"The scheduler's variance_type {variance_type} needs a network with {channels} output channels, and "
                f"this one has {output.shape[1]}."
            )
        return Prediction(*output.chunk(2, dim=1)) if learned else Prediction(output, None)


class Guided:
    """A denoiser with classifier-free guidance (Ho and Salimans, 2207.12598, eq. 6, whose w is this one less 1).

    output = null + w (conditional - null), both in one batch; w = 1 is the plain one and costs half. The variance is
    the conditional one's.
    """

    def __init__(self, denoiser: Denoises, guidance_scale: float) -> None:
        self.denoiser, self.guidance_scale = denoiser, guidance_scale
        self.schedule, self.conditioner = denoiser.schedule, denoiser.conditioner

    @property
    def device(self) -> torch.device:
        return self.denoiser.device

    def __call__(self, x_t: Tensor, t: Tensor | int, condition: Condition) -> Prediction:
        if self.guidance_scale == 1 or not condition:
            return self.denoiser(x_t, t, condition)
        nothing = self.conditioner.null(len(x_t), x_t.device)
        both = {name: torch.cat([nothing[name], value.to(x_t.device)]) for name, value in condition.items()}
        twice = torch.cat([t, t]) if isinstance(t, Tensor) and t.ndim else t
        output, variance = self.denoiser(torch.cat([x_t, x_t]), twice, both)
        null, conditional = output.chunk(2)
        guided = null + self.guidance_scale * (conditional - null)
        return Prediction(guided, None if variance is None else variance.chunk(2)[1])


def original(denoiser: Denoises, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
    """The clean sample x_0 that the denoiser sees in x_t at timesteps t (batch,), not clipped."""
    schedule: BetaScheduler = denoiser.schedule
    output, _ = denoiser(x_t, t, condition)
    return schedule.convert(output, x_t, t, schedule.prediction_type, "sample")
