"""How far apart two computations of the same may come out: by the order of their sums, and no further.

Weights mapped from a file lie at other addresses than those made in memory, and take other kernels; so do another
batch size and another processor. Each adds the same float32 terms in another order. Bits are equal where the same
computation runs in the same layout on the same machine, and are asked for there alone.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

UNIT = 2.0**-24
"""A float32 operation moves its result by at most this part of it."""


def assert_same_images(images: Any, others: Any, evaluations: int) -> None:
    """Two batches in [0, 1] are the same but for the order of sums in `evaluations` of a U-Net of up to 16 channels.

    n roundings in a row move a value of size 1 by more than 6 sqrt(n) units once in a million times (Higham and Mary
    2019, theorem 2.4). An evaluation is some 25 layers, each a sum of at most 144 terms (3x3 places of 16 channels). A
    step passes on to x_t at most four times what it gets (guidance 2 counts two outputs three times, x_t once), and the
    image is half of that, [-1, 1] made [0, 1]: 7e-5 for three. Another class, seed or schedule moves it by 0.1.
    """
    bound = 4 / 2 * 6 * math.sqrt(evaluations * 25 * 144) * UNIT
    np.testing.assert_allclose(np.asarray(images), np.asarray(others), rtol=0, atol=bound)
