"""A masked language model as a function of noisy states, their timestep and a class: logits of the clean states.

The network is one of transformers, called as `network(input_ids=tokens).logits`. What it is told beside the states
stands before them as tokens of their own (`logsnr.pipelines.prefix_tokens`), as when it is sampled from.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from logsnr.base.errors import ModelError
from logsnr.conditions.conditioner import Conditioner, Unconditioned
from logsnr.data.seeded import Condition
from logsnr.models.denoiser import Prediction
from logsnr.pipelines.prefix_tokens import network_input
from logsnr.schedulers.scheduling_transition import TransitionScheduler


class StateDenoiser:
    """A masked language model under the noise schedule that it was, or is being, trained with.

    Called as `denoiser(x_t, t, condition)`, with states x_t int64 (batch, length) and timesteps (batch,) or one for
    all, it gives logits of x_0 of each place, (batch, length, K), as `output`; that of the mask, which no clean
    sequence has, is -inf. An empty condition, {}, is the null one.

    Args:
        network: any `torch.nn.Module` that is called as transformers calls a masked language model. It has tokens for
            the K states, then 32 for the noise where the kernel isn't absorbing, then one a class and one for none.
        schedule: the scheduler of the states.
        conditioner: `ClassLabel(C)` of a network that is told one of C classes.

    Raises TypeError where the schedule is none of states.
    """

    def __init__(self, network: Any, schedule: TransitionScheduler, conditioner: Conditioner | None = None) -> None:
        if not isinstance(schedule, TransitionScheduler):
            found = type(schedule).__name__
            raise TypeError(f"schedule must be a TransitionScheduler, and is a {found}. Numbers have a Denoiser.")
        self.network, self.schedule = network, schedule
        self.conditioner: Conditioner = Unconditioned() if conditioner is None else conditioner

    def of(self, network: Any) -> StateDenoiser:
        """A denoiser with this one's schedule and another network, such as one wrapped for several processes."""
        return StateDenoiser(network, self.schedule, self.conditioner)

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        device: torch.device = next(self.network.parameters()).device
        return device

    def __call__(self, x_t: Tensor, t: Tensor | int, condition: Condition) -> Prediction:
        """What the network says of x_t at timesteps t. Raises ModelError where its logits don't fit."""
        device, schedule, length = self.device, self.schedule, x_t.shape[1]
        told = condition or self.conditioner.null(len(x_t), device)
        timesteps = torch.as_tensor(t, device=device).expand(len(x_t))
        log_snr = None if schedule.kernel == "absorbing" else schedule.log_snr(timesteps)
        tokens = network_input(x_t.to(device), schedule.num_states, log_snr, told.get("class_labels"))
        said = self.network(input_ids=tokens).logits
        if said.shape[:2] != tokens.shape or said.shape[2] < schedule.num_states:
            raise ModelError(
                f"The network must return logits for the {tokens.shape[1]} tokens that it is given, at least "
                f"{schedule.num_states} each, and returned {tuple(said.shape[1:])}."
            )
        # half precision is too coarse for a softmax
        logits = said[:, -length:, : schedule.num_states].to(torch.promote_types(said.dtype, torch.float32))
        if schedule.mask_token_id is not None:
            mask = torch.arange(schedule.num_states, device=device) == schedule.mask_token_id
            logits = logits.masked_fill(mask, -math.inf)
        return Prediction(logits.to(x_t.device), None)
