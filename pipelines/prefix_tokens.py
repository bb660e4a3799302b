"""Tokens before a text that tell the network of the noise and the class, so that any masked language model can be told.

What the network is told beside the states are tokens of their own before them, so that it is a stock one:

    0 .. K - 1             the states, those of the tokenizer
    K .. K + 31            the noise, one of 32 steps of log-SNR; not for the absorbing kernel, whose masks show it
    then one a class, and one more for no class

Sequences are trained as they are sampled: `network_input` makes both. The logits of these places say nothing.

This file stands alone: it is copied beside the pipeline that uses it.
"""

from __future__ import annotations

import torch
from torch import Tensor

TIME_BUCKETS = 32
"""Steps of log-SNR that a network can tell apart."""
_LOG_SNR_END = 8.0


def time_bucket(log_snr: Tensor) -> Tensor:
    """Which of the steps of log-SNR from -8 to 8 it is, 0 to 31, int64; beyond the ends it is the last of them."""
    share = (log_snr + _LOG_SNR_END) / (2 * _LOG_SNR_END)
    return (share * TIME_BUCKETS).floor().clamp(0, TIME_BUCKETS - 1).long()


def network_input(
    sample: Tensor, num_states: int, log_snr: Tensor | None = None, class_ids: Tensor | None = None
) -> Tensor:
    """The states (batch, length), and before them the noise and the class, for networks that are told them.

    log_snr (batch,): of the timesteps, for every kernel but the absorbing one. class_ids (batch,): the number of
    classes stands for none.
    """
    before, first = [], num_states
    if log_snr is not None:
        before.append(time_bucket(log_snr) + first)
        first += TIME_BUCKETS
    if class_ids is not None:
        before.append(class_ids + first)
    return torch.cat([*(column.to(sample.device)[:, None] for column in before), sample], 1)
