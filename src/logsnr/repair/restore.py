"""Damaged picture files -> restored ones, by a trained model as prior.

Files of one size are restored together. Each has seeds of its own, from its name, so what becomes of it doesn't depend
on the others.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import psutil
import torch
from tqdm import tqdm

from logsnr.base.errors import ConfigError, DataError
from logsnr.base.files import locked
from logsnr.base.seeds import sample_seed
from logsnr.base.words import LISTED, listed
from logsnr.data.picture_files import Picture, write_picture
from logsnr.folders.made_files import MadeFiles
from logsnr.pipelines.pipeline_restoration import RestorationPipeline
from logsnr.pipelines.restoration_methods import make_method
from logsnr.repair.plan import Job, Restoration, explaining, label_of
from logsnr.settings.restore import RestoreOptions

STD_WHITE = 0.25
"""The standard deviation, of pictures in [0, 1], that is white in its map: a map holds a quarter of its values."""
FIT_BAD, FIT_LOW = 1.3, 0.7
"""From here up a picture doesn't explain its file, from here down it follows it too closely or noise was cut off."""
MOST_AT_ONCE = 32
"""Draws in a batch."""
_COPIES_KEPT = 32
"""Pictures in float32 that a method keeps of each that it draws: the solver's directions, and what it has of them."""


def _say(line: str) -> None:
    """Above the bar, and at once on a pipe too."""
    tqdm.write(line)
    sys.stdout.flush()


def restore(restoration: Restoration, say: Callable[[str], None] = _say) -> tuple[int, list[str]]:
    """Restore the files that aren't done, with a progress bar on a terminal, and `say` how much work it is, then a line
    of each. Returns how many are done in all, and a line for each that can't be."""
    options, out = restoration.options, restoration.out
    out.mkdir(parents=True, exist_ok=True)
    with locked(out, "written"):
        made = restoration.made()
        found = restoration.find(made)
        done, refused = len(found.done), list(found.refused)
        work = {name: restoration.pipeline.num_tiles(shape) * options.samples for name, shape in found.shapes.items()}
        total = sum(work.values())
        if total:
            more = [f"and {len(refused) - LISTED} more"] if len(refused) > LISTED else []
            say("\n  ".join([f"Restoring {found.count}: {restoration.work(total)}.", *refused[:LISTED], *more]))
        elif done:
            say(f"All {done} were done before.")
        with tqdm(total=total, disable=None if total else True, dynamic_ncols=True, bar_format=_BAR) as bar:
            for jobs in _batches(restoration, list(work), refused):
                share = sum(work[job.name] for job in jobs)
                for line in _restore_together(restoration, jobs, made, bar, share):
                    say(line)
                done += len(jobs)
                bar.set_description(f"{done} of {len(work) + len(found.done)} pictures")
        return done, refused


def _batches(restoration: Restoration, names: Sequence[str], refused: list[str]) -> Iterator[list[Job]]:
    """Files of one size together, as many as are drawn at once; what was changed since it was found, and can't be
    restored any more, goes into `refused`."""
    together: dict[Any, list[Job]] = {}
    own = tuple(restoration.pipeline.image_shape)
    at_once = draws_at_once(restoration.pipeline, restoration.options, own)
    for name in names:
        try:
            job = restoration.job(name)
        except (DataError, ConfigError) as error:
            refused.append(str(error))
            continue
        alike = together.setdefault((job.operator.shape, str(job.meeting.damage)), [])
        alike.append(job)
        if len(alike) == (1 if job.operator.shape != own else max(1, at_once // restoration.options.samples)):
            yield list(alike)
            alike.clear()
    yield from (jobs for jobs in together.values() if jobs)


def _restore_together(
    restoration: Restoration, jobs: Sequence[Job], made: MadeFiles, bar: tqdm[Any], share: float
) -> Iterator[str]:
    """Draw, write and note pictures of one size, then a line of each. `share` is what they are on the bar."""
    options, begun = restoration.options, bar.n

    def advance(part: float) -> None:
        bar.update(begun + part * share - bar.n)

    made.begin({job.name: job.digest for job in jobs}, restoration.written)
    drawn = draw(restoration, jobs, advance)
    facts = {}
    tensors = (drawn.images.cpu(), drawn.mean.cpu(), drawn.std.cpu(), drawn.fit.tolist())
    for job, images, mean, std, fit in zip(jobs, *tensors, strict=True):
        names = restoration.written[job.name]
        pictures = [*images] if options.samples == 1 else [*images, mean]
        for name, values in zip(names, pictures, strict=False):
            write_picture(made.out / name, *job.meeting.parts(values), job.picture)
        if options.samples > 1:
            spread = std.square().mean(0, keepdim=True).sqrt()
            write_picture(made.out / names[-1], spread / STD_WHITE, None, _MAP)
        height, width = images.shape[-2:]
        facts[job.name] = {
            "size": f"{width}x{height}",
            "fit": [None if math.isnan(f) else round(f, 3) for f in fit],
            **(
                {"std": round(float(std.square().mean().sqrt()), 4), "std_white": STD_WHITE}
                if options.samples > 1
                else {}
            ),
        }
        yield f"{job.name}: {width}x{height}{fit_in_words(fit)}"
    made.finish(facts)
    advance(1)


_BAR = "{percentage:3.0f}%|{bar}| {desc}[{elapsed}<{remaining}]"
_MAP = Picture(torch.zeros(1, 1, 1), None, "PNG", 16, None, True)
"""The map of the standard deviation: a gray PNG of 16 bits."""


def draw(restoration: Restoration, jobs: Sequence[Job], advance: Callable[[float], None]) -> Any:
    """Draws for pictures of one size, as the pipeline returns them; `advance` is told the share that is done, after
    each evaluation of the network too. Raises ModelError."""
    pipeline, options, shape = restoration.pipeline, restoration.options, jobs[0].operator.shape
    method, at_once = make_method(options.method), draws_at_once(pipeline, options, shape)
    draws = len(jobs) * options.samples
    expected = -(-draws // at_once) * method.ticks(method.steps if options.steps is None else options.steps)
    most_each = draws * pipeline.num_tiles(shape) * restoration.evaluations / expected
    steps, seen = 0, 0

    def step(*_: Any) -> dict[str, Any]:
        nonlocal steps, seen
        steps, seen = steps + 1, 0
        advance(min(1.0, steps / expected))
        return {}

    def evaluated(_: Any, given: Any, __: Any) -> None:
        nonlocal seen
        seen += len(given[0])
        advance(min(1.0, (steps + min(1.0, seen / most_each)) / expected))

    hook = pipeline.unet.register_forward_hook(evaluated)
    try:
        return _drawn(pipeline, jobs, options, at_once, step)
    finally:
        hook.remove()


def _drawn(
    pipeline: RestorationPipeline, jobs: Sequence[Job], options: RestoreOptions, at_once: int, step: Callable[..., Any]
) -> Any:
    with explaining():
        return pipeline(
            torch.stack([job.measurement for job in jobs]),
            jobs[0].operator,
            method=options.method,
            num_samples=options.samples,
            num_inference_steps=options.steps,
            class_labels=None if options.class_label is None else label_of(pipeline, options.class_label),
            guidance_scale=options.guidance_scale,
            generator=[sample_seed(options.seed, k, job.name) for job in jobs for k in range(options.samples)],
            strength=options.strength,
            batch_size=at_once,
            output_type="pt",
            callback_on_step_end=step,
        )


def draws_at_once(pipeline: RestorationPipeline, options: RestoreOptions, shape: Sequence[int]) -> int:
    """Draws of pictures of that shape in a batch: those that were asked for, or as many as half of the free memory
    holds, `MOST_AT_ONCE` at most."""
    if options.batch_size is not None:
        return options.batch_size
    device, copies = pipeline.unet.device, make_method(options.method).copies
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available
    whole = copies * _COPIES_KEPT * 4 * math.prod(shape)
    return int(max(1, min(MOST_AT_ONCE // copies, free // 2 // (pipeline.memory(options.method) + whole))))


def fit_in_words(fit: Sequence[float]) -> str:
    """How well draws fit, NaN without noise, after a comma; the bounds are those of docs/believe.md."""
    known = [each for each in fit if not math.isnan(each)]
    if not known:
        return ""
    mean, words = sum(known) / len(known), f", fit {listed(f'{each:.2f}' for each in known)}"
    if mean >= FIT_BAD:
        return f"{words}: it doesn't explain the file. More --steps, or another operator, or more noise"
    if mean <= FIT_LOW:
        return (
            f"{words}: below 1 is usual where noise was cut off at black or white, else the noise is less than stated"
        )
    return f"{words} (about 1 is right)"
