"""Arrays in memory as examples: whatever somebody has as numpy arrays already."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from logsnr.data.seeded import Example


@dataclass(frozen=True, eq=False)
class ArrayExamples:
    """The rows of an array as examples, never augmented; `SeededData(ArrayExamples(array), 0.1)` makes batches of them.

    Args:
        clean: x_0, a numpy array: float32, (examples, channels, *space), about in [-1, 1]; or int64, (examples,
            length).
        conditions: what each is conditioned on, by keyword of the network: numpy arrays, (examples, ...), such as
            `{"class_labels": labels}`.
        noun: what to call one of them.
        bits: depth of their values, 2 k / (2^bits - 1) - 1; None where they are continuous.
        complaints: lines about what was left out.

    Raises ValueError where one is no array, or they aren't of one length.
    """

    clean: NDArray[Any]
    conditions: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    noun: str = "example"
    bits: int | None = None
    complaints: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        for name, values in {"clean": self.clean, **self.conditions}.items():
            if not isinstance(values, np.ndarray):
                raise ValueError(
                    f"{name} must be a numpy array, and is a {type(values).__name__}. Convert it, as by np.asarray."
                )
        if wrong := [name for name, values in self.conditions.items() if len(values) != len(self.clean)]:
            raise ValueError(
                f"conditions must have a value for each of the {len(self.clean)} examples, and {wrong[0]} has "
                f"{len(self.conditions[wrong[0]])}."
            )

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hash of all values and conditions, hexadecimal."""
        content = hashlib.blake2b(digest_size=16)
        for name, values in [("clean", self.clean), *sorted(self.conditions.items())]:
            content.update(
                f"{name} {values.dtype.str} {values.shape}".encode() + np.ascontiguousarray(values).tobytes()
            )
        return content.hexdigest()

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of each example."""
        return self.clean.shape[1:]

    @property
    def summary(self) -> str:
        """Shape, depth and conditions."""
        depth = "continuous" if self.bits is None else f"{self.bits} bit"
        return ", ".join(["x".join(map(str, self.shape)), depth, *self.conditions])

    def __len__(self) -> int:
        return len(self.clean)

    def read(self, index: int, seed: int | None) -> Example:
        """The example at `index`, whatever the seed."""
        return Example(self.clean[index], self.condition(index))

    def condition(self, index: int) -> Mapping[str, Any]:
        """What that example is conditioned on."""
        return {name: values[index] for name, values in self.conditions.items()}
