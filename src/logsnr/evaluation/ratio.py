"""A figure per token, word or character: the ratio of two sums over sequences, with its standard error.

Sequences are independent, what is in one of them isn't. With sums v_k and counts u_k of n sequences and r = v / u of
their means, the error is that of the mean of v_k - r u_k over the mean of u (the delta method; Cochran, "Sampling
techniques", eq. 6.13). Where all counts are equal that is the spread of the sequences' own figures over the root of n.
"""

from __future__ import annotations

import math

from torch import Tensor


def ratio(values: Tensor, counts: Tensor) -> tuple[float, float]:
    """The sum of values over that of counts, and its standard error; both (n,), n at least 2."""
    values, counts = values.double(), counts.double()
    found = float(values.sum() / counts.sum())
    spread = float((values - found * counts).std()) / math.sqrt(len(values))
    return found, spread / float(counts.mean())
