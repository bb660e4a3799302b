"""Arguments that the calls of all pipelines share: a seed for each sample, and what is called back after a step.

This file stands alone: it is copied beside the pipelines that use it.
"""

from __future__ import annotations

import numbers
from collections.abc import Callable
from typing import Any, overload

import torch
from diffusers.callbacks import MultiPipelineCallbacks, PipelineCallback

Seed = int | torch.Generator
Callback = Callable[..., dict[str, Any]] | PipelineCallback | MultiPipelineCallbacks


@overload
def seeded(generator: int | list[Seed], batch: int, noun: str) -> list[torch.Generator]: ...


@overload
def seeded(
    generator: Seed | list[Seed] | None, batch: int, noun: str
) -> torch.Generator | list[torch.Generator] | None: ...


def seeded(
    generator: Seed | list[Seed] | None, batch: int, noun: str
) -> torch.Generator | list[torch.Generator] | None:
    """The `generator` of a call for so many samples, which are called `noun`. Raises `ValueError`."""
    if generator is None or isinstance(generator, torch.Generator):
        return generator
    seeds: list[Any] = list(generator) if isinstance(generator, list | tuple) else [generator] * batch
    if len(seeds) != batch:
        raise ValueError(f"generator must be one, or one for each of {batch} {noun}, and is a list of {len(seeds)}.")
    if wrong := [s for s in seeds if isinstance(s, bool) or not isinstance(s, torch.Generator | numbers.Integral)]:
        raise ValueError(f"generator must be a torch.Generator, an int seed or a list of them, and has {wrong[0]!r}.")
    if not isinstance(generator, list | tuple):
        seeds = [int(seed) + k for k, seed in enumerate(seeds)]
    return [s if isinstance(s, torch.Generator) else torch.Generator().manual_seed(int(s)) for s in seeds]


def tensor_inputs(callback_on_step_end: Callback | None, names: list[str] | None, known: list[str]) -> list[str]:
    """Names of the tensors that the callback is handed. Raises `ValueError` for one that isn't `known`."""
    if isinstance(callback_on_step_end, PipelineCallback | MultiPipelineCallbacks):
        names = callback_on_step_end.tensor_inputs
    names = ["sample"] if names is None else names
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"callback_on_step_end_tensor_inputs must be among {known}, and has {unknown}.")
    return names
