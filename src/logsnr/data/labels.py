"""Which column of a table holds labels, and how labels become numbers."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from logsnr.base.errors import DataError
from logsnr.data.source import Labels

WITHOUT_LABELS = "train without labels (--condition.name none)"


def label_column(columns: Mapping[str, Sequence[Any]], wanted: str | None, where: str) -> str | None:
    """The column that holds the labels, by the rule of `logsnr.data.sources`; None if no column does.

    wanted: `data.label_column`."""
    if wanted is not None:
        if wanted not in columns:
            raise DataError(
                f"data.label_column is {wanted}, and {where} has no such column of words or whole numbers. It has: "
                f"{', '.join(columns) or 'none'}."
            )
        return wanted
    if "label" in columns:
        return "label"
    found = [
        name
        for name, values in columns.items()
        if {type(v) for v in values} - {type(None)} in ({int}, {str}) and 2 * len(set(values)) <= len(values)
    ]
    if len(found) > 1:
        raise DataError(
            f"{where} has several columns that may be the label ({', '.join(found)}): name one with "
            f"--data.label-column, or {WITHOUT_LABELS}."
        )
    return found[0] if found else None


def encode(values: Sequence[Any], column: str, name: Callable[[int], str], noun: str = "image") -> Labels:
    """Names in their order, or whole numbers in theirs (also where a CSV file spells them), become 0, 1, 2, ...

    name: what to call the thing at a place in a message, which is one of the `noun`s.
    """
    refuse_nulls(values, column, name, noun)
    if bad := [v for v in values if not isinstance(v, str | int)]:
        raise DataError(f"The label column {column} must hold words or whole numbers, and holds {bad[0]!r}.")
    names = in_order({str(v) for v in values})
    position = {name: i for i, name in enumerate(names)}
    return Labels(np.array([position[str(v)] for v in values], np.int64), names)


def refuse_nulls(values: Sequence[Any], column: str, name: Callable[[int], str], noun: str = "image") -> None:
    """Raise `DataError` where something has no label, by what `name` calls it."""
    if missing := [i for i, value in enumerate(values) if value is None]:
        raise DataError(
            f"{len(missing)} of {len(values)} {noun}s have no label in the column {column}, the first is "
            f"{name(missing[0])}. Label them, name another column with "
            f"--data.label-column, or {WITHOUT_LABELS}."
        )


def in_order(names: set[str]) -> list[str]:
    """Whole numbers in their order, other names in that of the alphabet."""
    as_numbers = all(re.fullmatch(r"-?\d+", name) for name in names)
    return sorted(names, key=(lambda name: (int(name), name)) if as_numbers else None)
