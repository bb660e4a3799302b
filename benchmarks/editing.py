"""Editing by prompt: is the object under a mask what the prompt says, and does the seam fit? By method, at equal cost.

    python benchmarks/editing.py runs/shapes         # prints a table; what was measured: benchmarks/editing.md

Pictures are of benchmarks/shapes.py, two groups with a relation, of captions that are held out in training. A box
around the first group is masked, one pixel larger on each side, and the prompt asks for another kind there: another
colour and another shape, as many of them. The rest of the caption stays.

- all: the share of pictures where the reader finds what the prompt says: kinds, numbers, relation.
- object: the share where every component whose centre is in the mask is of the kind asked for, and one is there.
- seam: the root mean square difference of neighbouring pixels across the border of the mask, on [0, 1].

An evaluation is of the network for a picture; a gradient counts as one more, and guidance is the same for all.
"""

from __future__ import annotations

import argparse
import copy
import math
import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from diffusers import IFInpaintingPipeline
from diffusers.utils import logging
from shapes import COLOURS, HALF_WIDTHS, SIZE, Attributes, Group, agreement, as_tensor, draw, held_out, read
from torch import Tensor

import logsnr
from logsnr.pipelines.guidance import Guidance
from logsnr.pipelines.restoration_methods import Level, Problem, make_method, spaced
from logsnr.pipelines.restoration_operators import Mask

GUIDANCE = 3.0
SDE = {"algorithm_type": "sde-dpmsolver++", "timestep_spacing": "trailing"}


class Task(NamedTuple):
    """Pictures (n, 3, 32, 32) in [0, 1], masks (n, 1, 32, 32), true where it is drawn anew, and what is asked for."""

    pictures: Tensor
    masks: Tensor
    asked: list[Attributes]

    @property
    def prompts(self) -> list[str]:
        return [each.caption for each in self.asked]


def make_task(count: int, seed: int) -> Task:
    generator = np.random.default_rng(seed)
    two = [each for each in held_out() if each.relation is not None]
    pictures, masks, asked = [], [], []
    for _ in range(count):
        attributes = two[generator.integers(len(two))]
        first, second = attributes.groups
        kinds = [
            (colour, shape)
            for colour in COLOURS
            for shape in HALF_WIDTHS
            if colour != first.colour and shape != first.shape and (colour, shape) != second.kind
        ]
        other = Group(first.number, *kinds[generator.integers(len(kinds))])
        asked.append(Attributes(*other, attributes.relation, *second))
        picture, placed = draw(attributes, generator)
        mine = placed[: first.number] if (placed[0].colour, placed[0].shape) == first.kind else placed[-first.number :]
        mask = np.zeros((1, SIZE, SIZE), bool)
        left, top = (min(math.floor(getattr(p, at) - p.side / 2) for p in mine) - 1 for at in "xy")
        right, bottom = (max(math.ceil(getattr(p, at) + p.side / 2) for p in mine) + 1 for at in "xy")
        mask[:, max(0, top) : bottom, max(0, left) : right] = True
        pictures.append(picture)
        masks.append(mask)
    return Task(as_tensor(pictures), torch.from_numpy(np.stack(masks)), asked)


def figures(images: Tensor, task: Task) -> tuple[float, float, float]:
    found, whole, inside = read(images), [], []
    for components, asked, mask in zip(found, task.asked, task.masks[:, 0], strict=True):
        whole.append(all(agreement(components, asked).values()))
        there = [each for each in components if mask[int(each.y), int(each.x)]]
        inside.append(bool(there) and all((e.colour, e.shape) == asked.groups[0].kind for e in there))
    squares = []
    for axis in (2, 3):
        edge = task.masks.diff(dim=axis) != 0
        squares.append(images.diff(dim=axis).square()[edge.expand(-1, 3, -1, -1)])
    return float(np.mean(whole)), float(np.mean(inside)), float(torch.cat(squares).mean().sqrt())


def by_repair(pipe: Any, task: Task, seed: int, name: str, steps: int, options: dict[str, Any]) -> Tensor:
    """Draws of a method of repair, whose network is told the prompt and guided."""
    pipe._guidance_scale = GUIDANCE
    null, asked = ({"encoder_hidden_states": pipe.encode_prompt(p)} for p in ([""] * len(task.asked), task.prompts))
    guidance = Guidance(asked, null)

    def denoise(x: Tensor, level: Level) -> Tensor:
        return level.alpha * x - level.sigma * pipe._predict(x, torch.tensor(level.timestep), guidance, 0)

    method = make_method(name, options)
    levels = spaced(pipe.scheduler.alphas_cumprod, steps, method.most_noise)
    known = ~task.masks.expand(-1, 3, -1, -1)
    generators = [torch.Generator().manual_seed(seed + k) for k in range(len(task.asked))]
    problem = Problem(denoise, Masks(known), task.pictures * known, generators, lambda level: None)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        drawn = method.draw(problem, levels)
    return torch.where(known, task.pictures, (drawn / 2 + 0.5).clamp(0, 1))


class Masks(Mask):
    """A mask of its own for each picture of the batch."""

    def __init__(self, known: Tensor) -> None:
        super().__init__(known[0])
        self.mask = known


def by_pipeline(pipe: Any, task: Task, seed: int, steps: int, **arguments: Any) -> Tensor:
    """What a user gets: `mask_image`."""
    made = pipe(
        task.prompts,
        image=task.pictures,
        mask_image=task.masks,
        num_inference_steps=steps,
        guidance_scale=GUIDANCE,
        generator=seed,
        output_type="pt",
        **arguments,
    )
    return torch.as_tensor(made.images)


def by_stock(pipe: Any, task: Task, seed: int, steps: int, **arguments: Any) -> Tensor:
    """IFInpaintingPipeline with the same scheduler. Tensors are in [-1, 1] for it."""
    stock = IFInpaintingPipeline(**pipe.to_stock().components, requires_safety_checker=False)  # type: ignore[no-untyped-call]
    stock.scheduler = copy.deepcopy(pipe.scheduler)
    stock.set_progress_bar_config(disable=True)
    made = stock(
        task.prompts,
        image=2 * task.pictures - 1,
        mask_image=task.masks.float(),
        num_inference_steps=steps,
        guidance_scale=GUIDANCE,
        generator=[torch.Generator().manual_seed(seed + k) for k in range(len(task.asked))],
        output_type="pt",
        clean_caption=False,
        **arguments,
    )
    return (torch.as_tensor(made.images) / 2 + 0.5).clamp(0, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a run or model that draws shapes by prompt")
    parser.add_argument("--num", type=int, default=64, help="pictures")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", help="beginnings of rows")
    arguments = parser.parse_args()
    logging.set_verbosity_error()
    pipe, task, seed = logsnr.load(arguments.model), make_task(arguments.num, arguments.seed), arguments.seed
    pipe.set_progress_bar_config(disable=True)
    pipe.unet.requires_grad_(False)
    own = pipe.scheduler

    def swapped(make: Callable[..., Tensor], steps: int, *target: Any, **options: Any) -> Tensor:
        pipe.scheduler = own
        if target:
            pipe.swap_scheduler(*target, **options)
        return make(pipe, task, seed, steps)

    def repaired(name: str, steps: int, **options: Any) -> Tensor:
        pipe.scheduler = own
        return by_repair(pipe, task, seed, name, steps, options)

    rows: list[tuple[str, int, Callable[[], Tensor]]] = [
        ("drawn without the picture, SDE", 20, partial(swapped, plain, 20, "DPMSolverMultistep", **SDE)),
        ("mask_image, SDE", 20, partial(swapped, by_pipeline, 20, "DPMSolverMultistep", **SDE)),
        ("mask_image, SDE", 60, partial(swapped, by_pipeline, 60, "DPMSolverMultistep", **SDE)),
        ("mask_image, ancestral", 60, partial(swapped, by_pipeline, 60)),
        ("IFInpaintingPipeline, SDE", 60, partial(swapped, by_stock, 60, "DPMSolverMultistep", **SDE)),
        ("noise on what is known (repaint, each step once)", 60, partial(repaired, "repaint", 60, num_resamples=1)),
        ("repaint, 20 steps, each 3 times", 60, partial(repaired, "repaint", 20, num_resamples=3)),
        ("diffpir", 60, partial(repaired, "diffpir", 60)),
        ("gibbs", 60, partial(repaired, "gibbs", 60)),
        ("moment, 20 steps of 2 iterations", 60, partial(repaired, "moment", 20, num_iterations=2)),
        ("moment, 20 steps of 8 iterations", 180, partial(repaired, "moment", 20)),
    ]
    print("# Editing by prompt: the object under a mask, and its seam\n")
    print(
        f"{arguments.num} pictures of held-out captions, guidance {GUIDANCE:g}. `python benchmarks/editing.py MODEL`\n"
    )
    print("| method | evaluations | all | object | seam | seconds |\n|---|---|---|---|---|---|")
    for label, cost, make in rows:
        if arguments.only and not label.startswith(tuple(arguments.only)):
            continue
        begun = time.perf_counter()
        images = make()
        seconds = time.perf_counter() - begun
        whole, inside, seam = figures(images, task)
        print(f"| {label} | {cost} | {whole:.1%} | {inside:.1%} | {seam:.3f} | {seconds:.0f} |", flush=True)


def plain(pipe: Any, task: Task, seed: int, steps: int) -> Tensor:
    """The prompt alone, for how well the model draws at all."""
    made = pipe(task.prompts, num_inference_steps=steps, guidance_scale=GUIDANCE, generator=seed, output_type="pt")
    return torch.as_tensor(made.images)


if __name__ == "__main__":
    main()
