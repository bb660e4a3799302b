"""What is known of each example of a set: what a drawing of the like is held against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Truth:
    """Of all examples, in the order of the source; what a kind isn't asked for is None or empty."""

    classes: NDArray[np.int64] | None = None
    """The class of each, as a network sees it, (examples,)."""
    captions: Sequence[str] | None = None
    """What each is drawn by, in words."""
    groups: Sequence[str] | None = None
    """What of them belongs together, as examples that are held out together; needed with captions or attributes."""
    attributes: Mapping[str, Sequence[str | None]] = field(default_factory=dict)
    """Further properties by name, a text for each example, or None where nothing is known."""
