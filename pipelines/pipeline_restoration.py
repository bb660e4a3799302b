"""Any pixel model as a prior that mends damaged pictures: draws from p(x_0 | y), where y = A(x_0) + σ n.

The network knows p(x_0), an operator (`restoration_operators`) says what was done to the picture, and a method
(`restoration_methods`) brings the two together. All pictures and measurements are in [0, 1], and so is σ.

    ops = pipe.operators
    operator = ops.Blur(pipe.image_shape, ops.gaussian_kernel(2.0), noise_std=0.05)
    out = pipe(measurement, operator, num_samples=8, generator=0)
    out.images, out.mean, out.std, out.fit

Several draws of one measurement differ where it leaves the picture open: `std` is a map of that.

A picture may be larger than the network's own. The network then sees overlapping tiles, and its estimates are blended
in every step, while noise and measurement are those of the whole picture: there are no seams to hide.

This file is copied, with those that it loads, into the folders that it saves.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from diffusers.models.unets.unet_2d import UNet2DModel
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from diffusers.utils.outputs import BaseOutput
from PIL import Image
from torch import Tensor

from .call_arguments import Seed, seeded
from .restoration_methods import METHODS, Level, Method, Problem, first_guess, make_method, spaced
from .restoration_operators import Operator

_PIL_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
_MOST_AT_ONCE = 32
_OVERLAP = 0.25


@dataclass
class RestorationOutput(BaseOutput):
    """What was drawn.

    images: "pil": a list, all samples of the first measurement first; "np" (n, num_samples, height, width, channels);
        "pt" (n, num_samples, channels, height, width), floats in [0, 1].
    mean, std: over the samples, (n, channels, height, width), of "np" channels last; `std` is 0 of one sample.
    fit: (n, num_samples), the root mean square of y - A(x) in units of σ: about 1 where a picture explains its
        measurement, NaN where there is no noise.
    """

    images: Any
    mean: Any
    std: Any
    fit: Any


class RestorationPipeline(DiffusionPipeline):
    """Repair of pictures with a `UNet2DModel` that was trained on such pictures.

    unet: C input channels and C or 2C output channels (with a learned variance, which isn't used). With
        `num_class_embeds` = K + 1 it is conditional on K classes; the last embedding is the null label.
    scheduler: any with the model's `alphas_cumprod` and `prediction_type`; only these are read.
    id2label: names of the classes, kept in model_index.json (whose keys are strings, which are accepted too).

    Raises `ValueError` for a model that was distilled for a few steps: it doesn't estimate x_0.
    """

    unet: Any
    scheduler: Any
    model_cpu_offload_seq: Any = "unet"

    def __init__(
        self,
        unet: UNet2DModel,
        scheduler: SchedulerMixin,
        id2label: dict[int, str] | dict[str, str] | None = None,
    ) -> None:
        super().__init__()
        config: Any = unet.config
        schedule: Any = scheduler.config  # type: ignore[attr-defined]
        if schedule.get("_consistency") is not None:
            raise ValueError(
                "scheduler is of a model distilled for a few steps, and repair needs the mean of all that is possible. "
                "Give the model that it was distilled from."
            )
        if not isinstance(getattr(scheduler, "alphas_cumprod", None), Tensor):
            name = type(scheduler).__name__
            raise ValueError(f"scheduler must have alphas_cumprod, and {name} has none. Use the model's own scheduler.")
        if schedule.get("prediction_type", "epsilon") not in _ESTIMATES:
            known = ", ".join(_ESTIMATES)
            raise ValueError(
                f"scheduler.prediction_type must be one of {known}, and is {schedule['prediction_type']!r}."
            )
        if config["sample_size"] is None:
            raise ValueError("unet.config.sample_size must be the height and width of its pictures, and is None.")
        embeds = config["num_class_embeds"]
        self.num_classes: int | None = None if embeds is None else embeds - 1
        names = None if id2label is None else {int(key): str(name) for key, name in id2label.items()}
        self.register_modules(unet=unet, scheduler=scheduler)  # type: ignore[no-untyped-call]
        self.register_to_config(id2label=names)  # type: ignore[no-untyped-call]
        self.id2label = names

    @property
    def _prediction_type(self) -> str:
        return str(self.scheduler.config.get("prediction_type", "epsilon"))

    @property
    def operators(self) -> ModuleType:
        """The module of operators: `pipe.operators.Blur` and so on, wherever this was loaded from."""
        return sys.modules[Operator.__module__]

    @property
    def methods(self) -> list[str]:
        """Names of the methods."""
        return list(METHODS)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of the network's own pictures."""
        size = self.unet.config.sample_size
        height, width = (size, size) if isinstance(size, int) else size
        return self.unet.config.in_channels, height, width

    def evaluations(
        self, method: str, num_inference_steps: int | None = None, method_options: dict[str, Any] | None = None
    ) -> int:
        """Evaluations of the network for a sample, at most; a gradient counts as one more."""
        chosen = make_method(method, method_options)
        return chosen.cost(chosen.steps if num_inference_steps is None else num_inference_steps)

    def num_tiles(self, shape: Sequence[int]) -> int:
        """Evaluations that a picture of this shape, (channels, height, width), takes in place of one."""
        return len(_tiles(tuple(shape[1:]), self.image_shape[1:]))

    # -- Drawing -------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def __call__(
        self,
        measurement: Tensor,
        operator: Operator,
        method: str = "moment",
        num_samples: int = 1,
        num_inference_steps: int | None = None,
        class_labels: list[int | str] | int | str | None = None,
        guidance_scale: float = 1.0,
        generator: Seed | list[Seed] | None = None,
        strength: float = 1.0,
        image: Tensor | None = None,
        method_options: dict[str, Any] | None = None,
        batch_size: int | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callable[..., Any] | None = None,
    ) -> RestorationOutput | tuple[Any, Any, Any, Any]:
        """Draw pictures that explain `measurement`. Raises `ValueError` for every argument out of its range.

        measurement: floats in [0, 1], (n, *operator.measurement_shape), or one without the batch axis.
        operator: what was done to the pictures, with the σ of its noise on [0, 1]. Its `shape` may be larger than the
            network's pictures, not smaller.
        method: "moment" (linear operators), "particles" (linear, several modes), "diffpir" (every operator, no
            gradients, the quickest), "dps" (every operator with a gradient), "gibbs" (every operator), "repaint"
            (masks).
        num_samples: draws for each measurement; `mean` and `std` are over these.
        num_inference_steps: steps through the chain; None is the method's own number.
        class_labels: a class as index or name, or one for each measurement. None is the null label.
        guidance_scale: w of classifier-free guidance; 1 is the plain model. Needs class_labels.
        generator: an int is a seed: sample k of measurement i has seed `generator + i * num_samples + k`. Or a
            `torch.Generator`, or a list of seeds or generators, one for each sample.
        strength: in (0, 1]; below 1 it begins at a picture with so much noise as the chain has at `strength` of its
            length (SDEdit, Meng et al. 2021, arXiv 2108.01073), and keeps what is larger than that noise.
        image: the picture to begin from where strength is below 1, (n, *operator.shape) in [0, 1]; None is what the
            measurement alone suggests.
        method_options: of the method, such as {"num_iterations": 16} of "moment", {"num_particles": 16} of "particles".
        batch_size: samples at once, which doesn't change them; None is what memory has room for.
        output_type: "pil", "np" or "pt"; see `RestorationOutput`.
        callback_on_step_end: called as `f(pipe, step, timestep, {})` after each step of each batch.

        Arithmetic is in float32 (float64 with a float64 unet); the unet sees its own dtype.
        """
        chosen = make_method(method, method_options)
        self._check(operator, chosen, method, num_samples, strength, output_type)
        device = self._execution_device
        dtype = torch.promote_types(self.unet.dtype, torch.float32)
        y = self._measurement(measurement, operator).to(device, dtype)
        labels = self._labels(class_labels, guidance_scale, len(y), device)
        start = None if strength == 1 else self._start(image, operator, y)
        levels = self._levels(chosen, num_inference_steps, strength)
        seeds = _generators(generator, len(y) * num_samples)
        rows = torch.arange(len(y)).repeat_interleave(num_samples)
        size = self._batch_size(batch_size, chosen)
        drawn = []
        with (
            _frozen(self.unet),
            self.progress_bar(total=-(-len(rows) // size) * chosen.ticks(len(levels))) as bar,
        ):
            for first in range(0, len(rows), size):
                part = rows[first : first + size].to(device)
                network = _Network(self.unet, self._prediction_type, guidance_scale, _rows(labels, part))
                problem = Problem(
                    denoise=_Denoiser(network, self.image_shape[1:], size * chosen.copies),
                    operator=operator,
                    measurement=y[part],
                    generators=seeds[first : first + size],
                    advance=self._advance(bar, callback_on_step_end),
                    start=_rows(start, part),
                )
                drawn.append(chosen.draw(problem, levels))
        pictures = (torch.cat(drawn) / 2 + 0.5).clamp(0, 1)
        fit = operator.fit(pictures, y[rows.to(device)]).cpu()
        output = _output(pictures.unflatten(0, (len(y), num_samples)), fit.view(len(y), num_samples), output_type)
        self.maybe_free_model_hooks()  # type: ignore[no-untyped-call]
        return output if return_dict else output.to_tuple()

    def _check(
        self, operator: Operator, method: Method, name: str, num_samples: int, strength: float, output_type: str
    ) -> None:
        channels, height, width = self.image_shape
        if operator.shape[0] != channels or operator.shape[1] < height or operator.shape[2] < width:
            raise ValueError(
                f"operator.shape must have {channels} channels and at least {height}×{width} pixels, those of the "
                f"model, and is {operator.shape}."
            )
        if method.requires == "linear" and not operator.linear:
            raise ValueError(
                f"method {name} needs a linear operator, and {type(operator).__name__} isn't. Use diffpir or gibbs."
            )
        shown = operator.observed()
        is_mask = shown is not None and operator.measurement_shape == operator.shape and not bool(shown.all())
        if method.requires == "mask" and not is_mask:
            raise ValueError(
                f"method {name} is for masks that hide something, and operator is {type(operator).__name__}. "
                "Use moment or diffpir."
            )
        if num_samples < 1:
            raise ValueError(f"num_samples must be 1 or more, and is {num_samples}.")
        if not 0 < strength <= 1:
            raise ValueError(f"strength must be above 0 and at most 1, and is {strength}.")
        if output_type not in ("pil", "np", "pt"):
            raise ValueError(f'output_type must be "pil", "np" or "pt", and is {output_type!r}.')
        if output_type == "pil" and channels not in _PIL_MODES:
            raise ValueError(f'output_type "pil" needs 1, 3 or 4 channels, and there are {channels}. Use "np" or "pt".')

    def _measurement(self, measurement: Tensor, operator: Operator) -> Tensor:
        shape = operator.measurement_shape
        if not isinstance(measurement, Tensor) or not measurement.is_floating_point():
            kind = getattr(measurement, "dtype", type(measurement).__name__)
            raise ValueError(
                f"measurement must be a tensor of floats in [0, 1], and is {kind}. Of a picture: "
                "torch.from_numpy(np.atleast_3d(np.asarray(picture)) / 255).permute(2, 0, 1).float()[None]"
            )
        y = measurement.unsqueeze(0) if measurement.ndim == len(shape) else measurement
        if tuple(y.shape[1:]) != shape or len(y) == 0:
            raise ValueError(
                f"measurement must be (n, *{shape}), as operator has it, and is {tuple(measurement.shape)}."
            )
        if not bool(torch.isfinite(y).all()):
            raise ValueError("measurement must be finite, and has NaN or infinity.")
        return y

    def _labels(self, class_labels: Any, guidance_scale: float, count: int, device: torch.device) -> Tensor | None:
        if not math.isfinite(guidance_scale):
            raise ValueError(f"guidance_scale must be finite, and is {guidance_scale}.")
        if class_labels is None:
            if guidance_scale not in (0, 1):
                raise ValueError(f"guidance_scale needs class_labels, and is {guidance_scale}. Leave it at 1.")
            return None if self.num_classes is None else torch.full((count,), self.num_classes, device=device)
        if self.num_classes is None:
            raise ValueError(f"class_labels needs a model with classes, and is {class_labels!r}. Leave it out.")
        given = list(class_labels) if isinstance(class_labels, list | tuple) else [class_labels] * count
        if len(given) != count:
            raise ValueError(
                f"class_labels must be one, or one for each of {count} measurements; there are {len(given)}."
            )
        by_name = {name: index for index, name in (self.id2label or {}).items()}
        ids = [by_name.get(label, -1) if isinstance(label, str) else int(label) for label in given]
        for label, index in zip(given, ids, strict=True):
            if not 0 <= index < self.num_classes:
                known = ", ".join(by_name) if by_name else f"0 to {self.num_classes - 1}"
                raise ValueError(f"class_labels has {label!r}, which is no class. Classes: {known}.")
        return torch.tensor(ids, device=device)

    def _start(self, image: Tensor | None, operator: Operator, y: Tensor) -> Tensor:
        if image is None:
            return first_guess(operator, y)
        if tuple(image.shape) not in ((len(y), *operator.shape), operator.shape):
            raise ValueError(f"image must be ({len(y)}, *{operator.shape}), as operator has it, and is {image.shape}.")
        return 2 * image.to(y).expand(len(y), *operator.shape) - 1

    def _levels(self, method: Method, steps: int | None, strength: float) -> list[Level]:
        alphas_cumprod = self.scheduler.alphas_cumprod
        start = None if strength == 1 else max(1, round(strength * (len(alphas_cumprod) - 1)))
        return spaced(alphas_cumprod, method.steps if steps is None else steps, method.most_noise, start)

    def _advance(self, bar: Any, callback: Callable[..., Any] | None) -> Callable[[Level], None]:
        step = 0

        def advance(level: Level) -> None:
            nonlocal step
            bar.update()
            if callback is not None:
                callback(self, step, level.timestep, {})
            step += 1

        return advance

    # -- Memory --------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def memory(self, method: str = "moment", method_options: dict[str, Any] | None = None) -> int:
        """Bytes that a sample of the network's own size needs, estimated from what its layers put out."""
        return self._memory(make_method(method, method_options))

    def _memory(self, method: Method) -> int:
        total = 0

        def count(_: Any, __: Any, output: Any) -> None:
            nonlocal total
            if isinstance(output, Tensor):
                total += output.numel() * output.element_size()

        leaves = [module for module in self.unet.modules() if not list(module.children())]
        hooks = [module.register_forward_hook(count) for module in leaves]
        try:
            labels = None if self.num_classes is None else torch.zeros(1, dtype=torch.long, device=self.unet.device)
            x = torch.zeros(1, *self.image_shape, dtype=self.unet.dtype, device=self.unet.device)
            self.unet(x, 0, class_labels=labels)
        finally:
            for hook in hooks:
                hook.remove()
        # a gradient keeps all of it, and a second time on its way back; without one there is a part at a time
        return int(method.copies * total * (2 if method.gradients else 0.5))

    def _batch_size(self, batch_size: int | None, method: Method) -> int:
        if batch_size is not None:
            if batch_size < 1:
                raise ValueError(f"batch_size must be 1 or more, and is {batch_size}.")
            return batch_size
        room = int(_free_memory(self.unet.device) * 0.6 / max(1, self._memory(method)))
        return max(1, min(_MOST_AT_ONCE // method.copies, room))

    # -- Folders that travel -------------------------------------------------------------------------------------

    def save_config(self, save_directory: str | os.PathLike[Any], push_to_hub: bool = False, **kwargs: Any) -> None:
        """Write model_index.json and the source files, for
        `DiffusionPipeline.from_pretrained(folder, trust_remote_code=True)`; `save_pretrained` ends with this.

        A scheduler that isn't one of diffusers' is written as `DDPMScheduler` with the same betas: repair reads nothing
        else of it.
        """
        if push_to_hub:
            raise ValueError("save_config alone would push no weights. Use push_to_hub(repo_id) of the pipeline.")
        folder, files = Path(save_directory), sources()
        super().save_config(folder)
        for name, content in files.items():
            (folder / name).write_bytes(content)
        index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
        index["_class_name"] = [next(iter(files)).removesuffix(".py"), type(self).__name__]
        if index["scheduler"][0] != "diffusers":
            index["scheduler"] = ["diffusers", "DDPMScheduler"]
            betas = self.scheduler.betas.double().tolist()
            kind = self.scheduler.config["prediction_type"]
            stock = DDPMScheduler(len(betas), trained_betas=betas, prediction_type=kind)
            stock.save_pretrained(folder / "scheduler")
        text = json.dumps(index, indent=2, sort_keys=True) + "\n"
        (folder / "model_index.json").write_text(text, encoding="utf-8")


def sources() -> dict[str, bytes]:
    """This file and those that it loads, under names made of their content: the pipeline's first.

    The loader keeps files of all repos in one place, hence the names.
    """
    own = Path(__file__)
    text, helpers = own.read_text(encoding="utf-8"), {}
    for stem in re.findall(r"^from \.(\w+) ", text, re.MULTILINE):
        content = (own.parent / f"{stem}.py").read_bytes()
        name = _named(stem, content)
        helpers[f"{name}.py"] = content
        text = text.replace(f"\nfrom .{stem} ", f"\nfrom .{name} ")
    content = text.encode()
    return {f"{_named(own.stem, content)}.py": content, **helpers}


def _named(stem: str, content: bytes) -> str:
    return f"{re.sub(r'_[0-9a-f]{8}$', '', stem)}_{hashlib.sha256(content).hexdigest()[:8]}"


# -- The network's estimate of x_0 -----------------------------------------------------------------------------------

_ESTIMATES: dict[str, Callable[[Tensor, Tensor, Level], Tensor]] = {
    "epsilon": lambda x, output, level: (x - level.sigma * output) / level.alpha,
    "sample": lambda x, output, level: output,
    "v_prediction": lambda x, output, level: level.alpha * x - level.sigma * output,
    "x0_minus_noise": lambda x, output, level: (x + level.sigma * output) / (level.alpha + level.sigma),
}
"""E[x_0 | x_t] from x_t and what the network puts out."""


@dataclass(frozen=True)
class _Network:
    """E[x_0 | x_t] of pictures of the network's own size."""

    unet: Any
    prediction_type: str
    guidance_scale: float
    labels: Tensor | None

    def __call__(self, x: Tensor, level: Level, rows: Tensor) -> Tensor:
        """rows: of which picture each row of x is a part, an index into `labels`."""
        labels = None if self.labels is None else self.labels[rows]
        output = self._output(x, level, labels)
        if self.guidance_scale != 1 and labels is not None:
            null = torch.full_like(labels, self.unet.config.num_class_embeds - 1)
            free = self._output(x, level, null)
            output = free + self.guidance_scale * (output - free)
        return _ESTIMATES[self.prediction_type](x, output, level)

    def _output(self, x: Tensor, level: Level, labels: Tensor | None) -> Tensor:
        output = self.unet(x.to(self.unet.dtype), level.timestep, class_labels=labels).sample
        found: Tensor = output[:, : x.shape[1]].to(x.dtype)
        return found


class _Denoiser:
    """E[x_0 | x_t] of pictures of any size: tiles that overlap, blended by weights that fall off to their borders."""

    def __init__(self, network: _Network, tile: tuple[int, int], at_once: int) -> None:
        self.network, self.tile, self.at_once = network, tile, at_once

    def __call__(self, x: Tensor, level: Level) -> Tensor:
        copies = 1 if self.network.labels is None else len(x) // len(self.network.labels)
        rows = torch.arange(len(x), device=x.device) // copies
        if tuple(x.shape[2:]) == self.tile:
            return self.network(x, level, rows)
        tiles = _tiles(tuple(x.shape[2:]), self.tile)
        found: Tensor = _Tiled.apply(  # type: ignore[no-untyped-call]
            x, lambda part, which: self.network(part, level, rows[which]), tiles, self.at_once
        )
        return found


class _Tiled(torch.autograd.Function):
    """A function of tiles, blended. Gradients compute each tile anew, so that memory holds a few tiles, not all."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, function: Any, tiles: list[Any], at_once: int) -> Tensor:
        ctx.save_for_backward(x)
        ctx.function, ctx.tiles, ctx.at_once = function, tiles, at_once
        total = torch.zeros_like(x)
        for part, which, places, weights in _Tiled.parts(x, tiles, at_once):
            for found, row, (high, wide), weight in zip(function(part, which), which, places, weights, strict=True):
                total[row, :, high, wide] += weight * found
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        total = torch.zeros_like(x)
        for part, which, places, weights in _Tiled.parts(x, ctx.tiles, ctx.at_once):
            pulled = torch.stack(
                [
                    weight * gradient[row, :, high, wide]
                    for row, (high, wide), weight in zip(which, places, weights, strict=True)
                ]
            )
            with torch.enable_grad():
                part = part.detach().requires_grad_()
                (back,) = torch.autograd.grad(ctx.function(part, which), part, pulled)
            for found, row, (high, wide) in zip(back, which, places, strict=True):
                total[row, :, high, wide] += found
        return total, None, None, None

    @staticmethod
    def parts(x: Tensor, tiles: list[Any], at_once: int) -> Any:
        """Tiles of all rows, `at_once` together: (them, their rows, their places, their weights)."""
        every = [(row, place, weight) for row in range(len(x)) for place, weight in tiles]
        for first in range(0, len(every), at_once):
            rows, places, weights = zip(*every[first : first + at_once], strict=True)
            cut = torch.stack([x[row, :, high, wide] for row, (high, wide) in zip(rows, places, strict=True)])
            yield cut, torch.tensor(rows, device=x.device), places, [weight.to(x) for weight in weights]


def _tiles(size: tuple[int, ...], tile: tuple[int, int]) -> list[tuple[tuple[slice, slice], Tensor]]:
    """Places of tiles that cover a picture, and weights that sum to 1 at every pixel."""
    lines = [_line(whole, part) for whole, part in zip(size, tile, strict=True)]
    return [
        ((slice(top, top + tile[0]), slice(left, left + tile[1])), torch.outer(down, across))
        for top, down in lines[0]
        for left, across in lines[1]
    ]


def _line(whole: int, part: int) -> list[tuple[int, Tensor]]:
    number = 1 + math.ceil((whole - part) / max(1, math.floor(part * (1 - _OVERLAP))))
    starts = [round(k * (whole - part) / max(1, number - 1)) for k in range(number)]
    ramp = torch.sin(math.pi * (torch.arange(part, dtype=torch.float64) + 0.5) / part) ** 2
    total = torch.zeros(whole, dtype=torch.float64)
    for start in starts:
        total[start : start + part] += ramp
    return [(start, ramp / total[start : start + part]) for start in starts]


# -- In and out ----------------------------------------------------------------------------------------------------


def _rows(values: Tensor | None, rows: Tensor) -> Tensor | None:
    return None if values is None else values[rows]


@contextlib.contextmanager
def _frozen(unet: Any) -> Iterator[None]:
    """Without gradients of weights, for which a network would keep what its layers take in."""
    learning = [parameter for parameter in unet.parameters() if parameter.requires_grad]
    try:
        for parameter in learning:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)


def _generators(generator: Seed | list[Seed] | None, count: int) -> list[torch.Generator]:
    """One for each sample."""
    if generator is None or isinstance(generator, torch.Generator):  # one each, for samples come in parts
        place = generator.device if generator is not None else torch.device("cpu")
        generator = torch.randint(2**62, (count,), generator=generator, device=place).tolist()
    return seeded(generator, count, "samples")


def _free_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):  # systems that don't say
        return 2**31


def _output(pictures: Tensor, fit: Tensor, output_type: str) -> RestorationOutput:
    """pictures: (n, num_samples, channels, height, width)."""
    mean, std = pictures.mean(1), pictures.std(1, correction=int(pictures.shape[1] > 1))
    if output_type == "np":
        images, *maps = (part.movedim(-3, -1).cpu().numpy() for part in (pictures, mean, std))
        return RestorationOutput(images=images, mean=maps[0], std=maps[1], fit=fit.numpy())
    if output_type == "pt":
        return RestorationOutput(images=pictures, mean=mean, std=std, fit=fit)
    pixels = (pictures.flatten(0, 1).movedim(1, -1).cpu().numpy() * 255).round().astype(np.uint8)
    drawn = [Image.fromarray(p[..., 0] if p.shape[-1] == 1 else p, _PIL_MODES[p.shape[-1]]) for p in pixels]
    return RestorationOutput(images=drawn, mean=mean, std=std, fit=fit)
