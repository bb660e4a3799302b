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
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from diffusers.utils.outputs import BaseOutput
from torch import Tensor

from logsnr.base.errors import ModelError
from logsnr.conditions.conditioner import Conditioner, Unconditioned
from logsnr.data.seeded import Condition
from logsnr.schedulers.scheduling_beta import BetaScheduler

LEARNED = "learned_range"
"""The `variance_type` for which a network has twice the channels."""


class Prediction(NamedTuple):
    """What a network says of a batch, in the shape, dtype and place of the noisy samples; of states, logits."""

    output: Tensor
    """What the network says, in the schedule's prediction type; logits of the clean state, (batch, ..., K), of states.
    """
    variance: Tensor | None
    """Where in the log-variance's range the reverse step's variance lies, about [-1, 1]; None unless it is learned."""


class Denoises(Protocol):
    """`Denoiser`, `StateDenoiser`, or one that is wrapped, as by `Guided`."""

    schedule: Any
    conditioner: Conditioner

    @property
    def device(self) -> torch.device: ...

    def __call__(self, x_t: Tensor, t: Tensor | int, condition: Condition) -> Prediction: ...


class Denoiser:
    """A network under the noise schedule that it was, or is being, trained with.

    Called as `denoiser(x_t, t, condition)` it gives a `Prediction`: what the network says, and of the variance if that
    is learned. An empty condition, {}, is the null one.

    Args:
        network: any `torch.nn.Module` that is called as diffusers calls a `UNet2DModel`:
            `network(sample, timestep, return_dict=False, **condition)[0]`, with `timestep` of shape (batch,). It
            returns a tuple whose first entry has the shape of `sample`, or twice its channels where the schedule's
            variance is learned.
        schedule: the scheduler whose `prediction_type` the network's output is of.
        conditioner: what the network can be conditioned on, such as `ClassLabel(K)`, and what is shown where nothing is
            asked for; a network without conditions needs none.

    Raises TypeError where the schedule is no scheduler.
    """

    def __init__(self, network: Any, schedule: Any, conditioner: Conditioner | None = None) -> None:
        if not isinstance(schedule, SchedulerMixin):
            raise TypeError(
                f"schedule must be a scheduler, such as CosineBetaScheduler(), and is {schedule!r}. The arguments are "
                "Denoiser(network, schedule)."
            )
        self.network = network
        self.schedule: Any = schedule
        self.conditioner: Conditioner = Unconditioned() if conditioner is None else conditioner

    def of(self, network: Any) -> Denoiser:
        """A denoiser with this one's schedule and another network, such as one wrapped for several processes."""
        return Denoiser(network, self.schedule, self.conditioner)

    @property
    def device(self) -> torch.device:
        """Where the network is; one without weights is at home on the CPU."""
        weights = next(self.network.parameters(), None)
        return torch.device("cpu") if weights is None else weights.device

    def __call__(self, x_t: Tensor, t: Tensor | int, condition: Condition) -> Prediction:
        """What the network says of x_t, (batch, channels, ...), at timesteps t, (batch,) or one for all.

        Raises ModelError where the network returns no tuple, or its output has another shape than x_t, or other
        channels than the schedule's variance asks for.
        """
        weights = next(self.network.parameters(), x_t)  # one without weights computes as it is asked to
        given = condition or self.conditioner.null(len(x_t), weights.device)
        keywords = {name: value.to(weights.device) for name, value in given.items()}
        timesteps = torch.as_tensor(t, device=weights.device).expand(len(x_t))
        returned = self.network(x_t.to(weights.device, weights.dtype), timesteps, return_dict=False, **keywords)
        variance_type = self.schedule.config.get("variance_type")
        output = _output(returned, x_t.shape, variance_type).to(x_t.device, x_t.dtype)
        return Prediction(*output.chunk(2, dim=1)) if variance_type == LEARNED else Prediction(output, None)


def _output(returned: Any, sample: torch.Size, variance_type: str | None) -> Tensor:
    """The first entry of what a network returned for samples of this shape; ModelError unless it fits them."""
    said = returned[0] if isinstance(returned, tuple | list | BaseOutput) and len(returned) else None
    channels = sample[1] * (2 if variance_type == LEARNED else 1)
    if isinstance(said, Tensor) and said.shape == (sample[0], channels, *sample[2:]):
        return said
    if isinstance(said, Tensor) and said.shape[2:] == sample[2:] and said.shape[:1] == sample[:1]:
        raise ModelError(
            f"The scheduler's variance_type {variance_type} needs a network with {channels} output channels, and "
            f"this one has {said.shape[1]}."
        )
    found = f"a {type(returned).__name__}"
    if isinstance(returned, Tensor):
        found = f"a tensor {tuple(returned.shape)}: write `return (output,)`"
    elif isinstance(said, Tensor):
        found = f"a first entry {tuple(said.shape)}"
    raise ModelError(
        f"The network must return a tuple whose first entry has the shape of sample, {tuple(sample)}, and returned "
        f"{found}."
    )


class Guided:
    """A denoiser with classifier-free guidance (Ho and Salimans, 2207.12598, eq. 6, whose w is this one less 1).

    output = null + w (conditional - null), both in one batch; w = 1 is the plain one and costs half. The variance is
    the conditional one's. Of states the output is logits, and their law p(x_0 | x_t, c)^w p(x_0 | x_t)^(1 - w). Called
    as the denoiser in it; of an empty condition there is nothing to guide to.

    Args:
        denoiser: of a network that was trained with a conditioner, such as `ClassLabel(K)`.
        guidance_scale: w.

    Raises ValueError for a denoiser without conditions, unless w is 1.
    """

    def __init__(self, denoiser: Denoises, guidance_scale: float) -> None:
        if guidance_scale != 1 and not denoiser.conditioner.null(1, torch.device("cpu")):
            raise ValueError(
                f"guidance_scale must be 1 for a denoiser without conditions, and is {guidance_scale}. A network that "
                "is conditioned needs its conditioner: Denoiser(network, schedule, ClassLabel(K))."
            )
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
        # where both say the same that is it, also of the mask, whose logit is -inf: -inf less -inf is no number
        guided = torch.where(conditional == null, null, null + self.guidance_scale * (conditional - null))
        return Prediction(guided, None if variance is None else variance.chunk(2)[1])


def original(denoiser: Denoises, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
    """The clean sample x_0 that the denoiser sees in x_t at timesteps t (batch,), not clipped."""
    schedule: BetaScheduler = denoiser.schedule
    output, _ = denoiser(x_t, t, condition)
    return schedule.convert(output, x_t, t, schedule.prediction_type, "sample")
