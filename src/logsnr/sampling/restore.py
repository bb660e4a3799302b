"""Damaged picture files -> restored ones, by a trained model as prior.

Of a picture `photo.png` are written, in the folder of the results: `photo.png`, the first draw; with several draws the
others, `photo-sample-2.png` and so on, their mean `photo-mean.png`, and `photo-std.png`, the map of their standard
deviation. Files of one size are restored together. Each has seeds of its own, from its name, so what becomes of it
doesn't depend on the others.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from logsnr.base.errors import ConfigError, DataError, LogsnrError, ModelError
from logsnr.base.files import digest_of, locked
from logsnr.base.seeds import sample_seed
from logsnr.base.words import listed
from logsnr.data.picture_files import Picture, picture_files, read_mask, read_picture, write_picture
from logsnr.folders.made_files import MadeFiles, require_apart
from logsnr.pipelines.pipeline_restoration import RestorationPipeline
from logsnr.pipelines.restoration_operators import Composition, Mask, Operator
from logsnr.sampling.channels import Meeting, meet
from logsnr.sampling.degrade import mask_digest
from logsnr.sampling.operators import make_operator
from logsnr.settings.restore import RestoreOptions

RECORD = "restore.json"
"""What was asked for, what is done and how well it fits; in the folder of the results."""
STD_WHITE = 0.25
"""The standard deviation, of pictures in [0, 1], that is white in its map: a map holds a quarter of its values."""
_TOGETHER = 16
"""Draws at once of pictures that aren't larger than the model's."""


@dataclass(frozen=True, eq=False)
class Job:
    """A picture file to be restored."""

    name: str
    path: Path
    digest: str
    picture: Picture
    meeting: Meeting
    operator: Operator

    @property
    def measurement(self) -> Tensor:
        """(channels, height, width) in [0, 1], black where a mask hides it, whatever the file has there."""
        shown = self.meeting.measurement[None]
        operator = self.operator
        for outer in operator.operators if isinstance(operator, Composition) else (operator,):
            if not isinstance(outer, Mask):
                break
            shown = outer.apply(shown)
        return shown[0]


@dataclass(frozen=True, eq=False)
class Restoration:
    """Files to be restored by a model, and where to.

    pipeline: of the model. options: how. files: by the names that they have in `out`.
    mask: bool (height, width), True where a pixel is known; None without one.
    """

    pipeline: RestorationPipeline
    options: RestoreOptions
    files: Mapping[str, Path]
    mask: Tensor | None
    out: Path

    @property
    def written(self) -> dict[str, list[str]]:
        """What is written for each file, by its name; the first is the result."""
        return {name: names_of(name, self.options.samples) for name in self.files}

    @property
    def request(self) -> dict[str, Any]:
        """What decides the results, as JSON."""
        options = self.options
        return {
            "operator": str(options.damage),
            "mask": mask_digest(self.mask),
            "method": options.method,
            "samples": options.samples,
            "steps": options.steps,
            "class_label": options.class_label,
            "guidance_scale": options.guidance_scale,
            "strength": options.strength,
            "seed": options.seed,
            "model": _fingerprint(self.pipeline),
        }

    def job(self, name: str) -> Job:
        """That file, read. Raises DataError or ConfigError where it can't be restored."""
        path = self.files[name]
        digest, picture = digest_of(path.read_bytes()), read_picture(path)
        channels, *least = self.pipeline.image_shape
        meeting = meet(picture, self.options.damage, channels, str(path))
        factor = meeting.damage.factor
        height, width = (side * factor for side in meeting.measurement.shape[1:])
        if height < least[0] or width < least[1]:
            restored = f"{width}x{height}" if factor == 1 else f"{width}x{height} when restored"
            raise DataError(
                f"{path} is {restored}, smaller than the {least[1]}x{least[0]} of the model. Lay it on a larger canvas, "
                "or take a model of smaller pictures."
            )
        try:
            operator = make_operator(meeting.damage, (channels, height, width), self.mask, self.options.seed)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from error
        if operator.measurement_shape != tuple(meeting.measurement.shape):
            shape = "x".join(map(str, operator.measurement_shape))
            raise DataError(f"{path}: {self.options.damage} leaves {shape} values, and the file has others.")
        return Job(name, path, digest, picture, meeting, operator)


def plan(model: Any, inputs: Sequence[Path], options: RestoreOptions, out: Path) -> Restoration:
    """What is to be done. `model` is what `logsnr.load` gives. Raises ModelError, DataError or ConfigError where it
    can't be begun."""
    require_apart(out, inputs)
    files = picture_files(inputs)
    mask = None if options.mask is None else read_mask(options.mask)
    return Restoration(restorer(model, options), options, files, mask, out)


def restorer(model: Any, options: RestoreOptions) -> RestorationPipeline:
    """The model as a prior. Raises ModelError where it can't be one."""
    if not hasattr(model, "unet"):
        raise ModelError(f"restore takes a model of images, and this is a {type(model).__name__}.")
    if model.scheduler.config.get("_consistency") is not None:
        raise ModelError(
            "restore needs a model that knows pictures at every level of noise, and this one is distilled for few. "
            "Take the one that it was distilled from."
        )
    with _explaining():
        pipeline = RestorationPipeline(model.unet, model.scheduler, id2label=getattr(model, "id2label", None))
        if options.class_label is not None:
            pipeline.get_label_ids(_label(pipeline, options))
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def restore(restoration: Restoration, say: Callable[[str], None] = tqdm.write) -> tuple[int, list[str]]:
    """Restore the files that aren't done, with a progress bar, and `say` a line of each. Returns how many are done in
    all, and a line for each that can't be."""
    options, out = restoration.options, restoration.out
    out.mkdir(parents=True, exist_ok=True)
    with locked(out, "written"):
        made = MadeFiles(out, RECORD, restoration.request)
        made.require_free(restoration.written)
        work = {name: _pixels(path) * options.samples for name, path in restoration.files.items()}
        refused: list[str] = []
        done = {name for name, path in restoration.files.items() if made.is_done(name, digest_of(path.read_bytes()))}
        total = sum(pixels for name, pixels in work.items() if name not in done)
        with tqdm(total=total, unit="pixel", unit_scale=True, delay=1, dynamic_ncols=True) as bar:
            waiting = [name for name in restoration.files if name not in done]
            for jobs in _batches(restoration, waiting, refused):
                share = sum(work[job.name] for job in jobs)
                for line in _restore_together(restoration, jobs, made, bar, share):
                    say(line)
                done |= {job.name for job in jobs}
        return len(done), refused


def names_of(name: str, samples: int) -> list[str]:
    """What is written for the file called `name`: the result, and with several samples the others, the mean and the map
    of the standard deviation."""
    path = PurePosixPath(name)
    if samples == 1:
        return [name]
    others = [f"{path.stem}-sample-{k}{path.suffix}" for k in range(2, samples + 1)]
    more = [*others, f"{path.stem}-mean{path.suffix}", f"{path.stem}-std.png"]
    return [name, *(str(path.with_name(other)) for other in more)]


def _batches(restoration: Restoration, names: Sequence[str], refused: list[str]) -> Iterator[list[Job]]:
    """Files of one size together, as many as are drawn at once; what can't be restored goes into `refused`."""
    together: dict[Any, list[Job]] = {}
    for name in names:
        try:
            job = restoration.job(name)
        except (DataError, ConfigError, OSError) as error:
            refused.append(str(error))
            continue
        alike = together.setdefault((job.operator.shape, str(job.meeting.damage)), [])
        alike.append(job)
        larger = job.operator.shape != tuple(restoration.pipeline.image_shape)
        draws = restoration.options.batch_size or _TOGETHER
        if len(alike) == (1 if larger else max(1, draws // restoration.options.samples)):
            yield list(alike)
            alike.clear()
    yield from (jobs for jobs in together.values() if jobs)


def _restore_together(
    restoration: Restoration, jobs: Sequence[Job], made: MadeFiles, bar: tqdm[Any], share: float
) -> Iterator[str]:
    """Draw, write and note pictures of one size, then a line of each. `share` is what they are on the bar."""
    options = restoration.options
    begun = bar.n
    made.begin({job.name: job.digest for job in jobs}, restoration.written)
    drawn = draw(restoration.pipeline, jobs, options, lambda part: bar.update(begun + part * share - bar.n))
    facts = {}
    for job, images, mean, std, fit in zip(jobs, drawn.images, drawn.mean, drawn.std, drawn.fit.tolist(), strict=True):
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
        yield f"{job.name}: {width}x{height}{_fit_in_words(fit)}"
    made.finish(facts)
    bar.update(begun + share - bar.n)


_MAP = Picture(torch.zeros(1, 1, 1), None, "PNG", 16, None, True)
"""The map of the standard deviation: a gray PNG of 16 bits."""


def draw(
    pipeline: RestorationPipeline, jobs: Sequence[Job], options: RestoreOptions, advance: Callable[[float], None]
) -> Any:
    """Draws for pictures of one size, as the pipeline returns them; `advance` is told the share that is done. Raises
    ModelError."""
    steps = 0

    def count(*_: Any) -> dict[str, Any]:
        nonlocal steps
        steps += 1
        advance(min(1.0, steps / expected))
        return {}

    expected = max(1.0, pipeline.num_steps(options.method, options.steps))
    seeds = [sample_seed(options.seed, k, job.name) for job in jobs for k in range(options.samples)]
    label = None if options.class_label is None else _label(pipeline, options)
    with _explaining():
        return pipeline(
            torch.stack([job.measurement for job in jobs]),
            jobs[0].operator,
            method=options.method,
            num_samples=options.samples,
            num_inference_steps=options.steps,
            class_labels=label,
            guidance_scale=options.guidance_scale,
            generator=[torch.Generator().manual_seed(seed) for seed in seeds],
            strength=options.strength,
            batch_size=options.batch_size,
            output_type="pt",
            callback_on_step_end=count,
        )


def _label(pipeline: RestorationPipeline, options: RestoreOptions) -> int | str:
    """The class as a name where there is one of that name, else as a number."""
    label = str(options.class_label)
    return int(label) if label.isdigit() and label not in (pipeline.id2label or {}).values() else label


@contextlib.contextmanager
def _explaining() -> Iterator[None]:
    """What the pipeline refuses is what was asked of the model."""
    try:
        yield
    except LogsnrError:
        raise
    except ValueError as error:
        raise ModelError(str(error)) from error


def _fingerprint(pipeline: RestorationPipeline) -> str:
    """A hash of the weights and of the noise schedule."""
    state = pipeline.unet.state_dict()
    tensors = [(name, tensor.detach().cpu().contiguous()) for name, tensor in sorted(state.items())]
    parts = [part for name, tensor in tensors for part in (name.encode(), tensor.view(torch.uint8).numpy().tobytes())]
    return digest_of(*parts, pipeline.scheduler.alphas_cumprod.numpy().tobytes())


def _pixels(path: Path) -> int:
    """How many a picture has; of what can't be opened one."""
    try:
        with Image.open(path) as image:
            return image.width * image.height
    except Exception:  # it is read again, and refused with a reason, in its turn
        return 1


def _fit_in_words(fit: Sequence[float]) -> str:
    known = [f"{each:.2f}" for each in fit if not math.isnan(each)]
    return f", fit {listed(known)} (about 1 is right)" if known else ""
