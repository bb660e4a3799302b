"""What is to be restored, by which model: files read and checked before anything is drawn.

Of a picture `photo.png` are written, in the folder of the results: `photo.png`, the first draw; with several draws the
others, `photo-sample-2.png` and so on, their mean `photo-mean.png`, and `photo-std.png`, the map of their standard
deviation.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from logsnr.base.errors import ConfigError, DataError, LogsnrError, ModelError
from logsnr.base.files import digest_of
from logsnr.data.picture_files import Picture, picture_files, read_content, read_picture
from logsnr.folders.made_files import MadeFiles, require_apart
from logsnr.pipelines.pipeline_restoration import RestorationPipeline
from logsnr.pipelines.restoration_operators import Composition, Mask, Operator
from logsnr.repair.channels import Meeting, meet
from logsnr.repair.masks import mask_digest, mask_for
from logsnr.repair.operators import make_operator
from logsnr.settings.restore import RestoreOptions

RECORD = "restore.json"
"""What was asked for, what is done and how well it fits; in the folder of the results."""


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


@dataclass(frozen=True)
class Found:
    """What the files turn out to be.

    shapes: of those that are to be restored, the restored pictures' (channels, height, width), by name.
    done: names of those that were restored before. refused: a line for each that can't be.
    """

    shapes: Mapping[str, tuple[int, ...]]
    done: Sequence[str]
    refused: Sequence[str]

    @property
    def count(self) -> str:
        """How many are to be restored, and what of the others, in words."""
        number = len(self.shapes) + len(self.done) + len(self.refused)
        done = f"{len(self.done)} {'was' if len(self.done) == 1 else 'were'} done before" if self.done else ""
        refused = f"{len(self.refused)} can't be restored" if self.refused else ""
        others = ", ".join(filter(None, (done, refused)))
        return f"{len(self.shapes)} of {number} picture{'' if number == 1 else 's'}{f' ({others})' if others else ''}"


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

    @property
    def evaluations(self) -> int:
        """Of the network for a draw of a tile, at most; a gradient counts as one more."""
        options = self.options
        each = self.pipeline.evaluations(options.method, options.steps)
        return each * (2 if options.guidance_scale != 1 else 1)

    def work(self, tiles: int) -> str:
        """What so many tiles are, in words; those of all draws of all pictures."""
        samples, (_, height, width) = self.options.samples, self.pipeline.image_shape
        return (
            f"{tiles * self.evaluations:,} evaluations of the network at most, {self.evaluations:,} a draw x {samples} "
            f"draw{'s' * (samples > 1)} a picture x {tiles // samples} tile{'s' * (tiles != samples)} of "
            f"{width}x{height}"
        )

    def made(self) -> MadeFiles:
        """The record of what is in `out`. Raises ConfigError where another command made it, or somebody else's files
        would be written over."""
        made = MadeFiles(self.out, RECORD, self.request)
        made.require_free(self.written)
        return made

    def find(self, made: MadeFiles) -> Found:
        """Read all files that aren't done, to know which can be restored."""
        shapes, done, refused = {}, [], []
        for name, path in tqdm(self.files.items(), "reading", unit="picture", leave=False, delay=2, dynamic_ncols=True):
            try:
                if made.is_done(name, digest_of(read_content(path))):
                    done.append(name)
                else:
                    shapes[name] = self.job(name).operator.shape
            except (DataError, ConfigError) as error:
                refused.append(str(error))
        return Found(shapes, done, refused)

    def job(self, name: str) -> Job:
        """That file, read. Raises DataError or ConfigError where it can't be restored."""
        path = self.files[name]
        digest, picture = digest_of(read_content(path)), read_picture(path)
        channels, *least = self.pipeline.image_shape
        meeting = meet(picture, self.options.damage, channels, str(path))
        factor = meeting.damage.factor
        height, width = (side * factor for side in meeting.measurement.shape[1:])
        if height < least[0] or width < least[1]:
            restored = f"{width}x{height}" if factor == 1 else f"{width}x{height} when restored"
            raise DataError(
                f"{path} is {restored}, smaller than the {least[1]}x{least[0]} of the model. Lay it on a larger "
                "canvas, or take a model of smaller pictures."
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
    files = picture_files(inputs, RECORD)
    require_apart(out, inputs)
    mask = None if options.mask is None else mask_for(options.mask, options.damage, files, options.damage.factor)
    pipeline = restorer(model, options)
    if "gray" in options.damage.names and (channels := pipeline.image_shape[0]) != 3:
        raise ConfigError(
            f"operator: gray needs a model of RGB pictures, and those of this one have {channels} "
            f"channel{'s' * (channels > 1)}. Leave gray out."
        )
    if options.class_label is not None:
        with explaining():
            pipeline._labels(label_of(pipeline, options.class_label), 1.0, 1, torch.device("cpu"))
    return Restoration(pipeline, options, files, mask, out)


def restorer(model: Any, options: RestoreOptions) -> RestorationPipeline:
    """The model as a prior. Raises ModelError where it can't be one."""
    if not hasattr(model, "unet"):
        raise ModelError(f"restore takes a model of images, and this is a {type(model).__name__}.")
    with explaining():
        pipeline = RestorationPipeline(model.unet, model.scheduler, id2label=getattr(model, "id2label", None))
    pipeline.set_progress_bar_config(disable=True)  # type: ignore[no-untyped-call]
    return pipeline


def names_of(name: str, samples: int) -> list[str]:
    """What is written for the file called `name`: the result, and with several samples the others, the mean and the map
    of the standard deviation."""
    path = PurePosixPath(name)
    if samples == 1:
        return [name]
    others = [f"{path.stem}-sample-{k}{path.suffix}" for k in range(2, samples + 1)]
    more = [*others, f"{path.stem}-mean{path.suffix}", f"{path.stem}-std.png"]
    return [name, *(str(path.with_name(other)) for other in more)]


def label_of(pipeline: RestorationPipeline, label: str) -> int | str:
    """A class as a name where there is one of that name, else as a number."""
    return int(label) if label.isdigit() and label not in (pipeline.id2label or {}).values() else label


_AS_OPTIONS = {"num_inference_steps": "steps", "num_samples": "samples", "class_labels": "class_label"}
"""Arguments of the pipeline -> the options that they are given by."""


@contextlib.contextmanager
def explaining() -> Iterator[None]:
    """What the pipeline refuses is what was asked of the model."""
    try:
        yield
    except LogsnrError:
        raise
    except ValueError as error:
        first, _, rest = str(error).partition(" ")
        raise ModelError(f"{_AS_OPTIONS.get(first, first)} {rest}") from error


def _fingerprint(pipeline: RestorationPipeline) -> str:
    """A hash of the weights and of the noise schedule."""
    state = pipeline.unet.state_dict()
    tensors = [(name, tensor.detach().cpu().contiguous()) for name, tensor in sorted(state.items())]
    parts = [part for name, tensor in tensors for part in (name.encode(), tensor.view(torch.uint8).numpy().tobytes())]
    return digest_of(*parts, pipeline.scheduler.alphas_cumprod.numpy().tobytes())
