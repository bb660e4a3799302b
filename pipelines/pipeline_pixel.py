"""A pixel-space diffusion model as a pipeline: a `UNet2DModel`, any scheduler, class labels and guidance.

Forward process: x_t = sqrt(ᾱ_t) x_0 + sqrt(1 − ᾱ_t) ε with x_0 in [−1, 1]. Sampling starts from
x_T ~ N(0, σ_init² I), σ_init = `scheduler.init_noise_sigma`, and goes through `scheduler.timesteps`:

    model_output = unet(scheduler.scale_model_input(x, t), t, class_labels)
    x            = scheduler.step(model_output, t, x)

Classifier-free guidance (Ho & Salimans 2022, arXiv 2207.12598, eq. 6): one network is trained with and without
its label, and ε = ε_null + w (ε_class − ε_null). Their w is ours minus 1: here w = 1 is the plain conditional model
and w = 0 the unconditional one. For given x_t, the targets ε, v, x_0 and x_0 − ε are affine functions of each
other, and an affine map commutes with this combination (its two weights sum to 1): the same line serves all four.

This file stands alone: it is copied into the folders that it saves, and loaded from there as remote code.
"""

from __future__ import annotations

import ast
import copy
import difflib
import hashlib
import inspect
import itertools
import json
import numbers
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import diffusers
import numpy as np
import torch
from diffusers.callbacks import MultiPipelineCallbacks, PipelineCallback
from diffusers.models.unets.unet_2d import UNet2DModel
from diffusers.pipelines.ddpm.pipeline_ddpm import DDPMPipeline
from diffusers.pipelines.pipeline_utils import DiffusionPipeline, ImagePipelineOutput
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from diffusers.utils.torch_utils import randn_tensor
from PIL import Image

Seed = int | torch.Generator
_PIL_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
_TRAVELS_WITH = {"torch", "numpy", "PIL", "diffusers", *sys.stdlib_module_names}
# What belongs to the trained model and not to the solver. `from_config` drops keys left at their default, and the
# defaults differ (beta_start is 1e-4 in DDPM and 8.5e-4 in LCM); these are therefore always handed on.
_PROCESS_KEYS = {
    *("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "rescale_betas_zero_snr"),
    *("prediction_type", "variance_type", "clip_sample", "clip_sample_range"),
}
_EMPTY_FORM = "This model card has been automatically generated."
_CARD = """---
library_name: diffusers
pipeline_tag: unconditional-image-generation
tags:
- logsnr
---

# {name}

A diffusion model of {what}: a `UNet2DModel` and its noise schedule.

```python
from diffusers import DiffusionPipeline

pipe = DiffusionPipeline.from_pretrained({load})
images = pipe({arguments}).images
```
"""


class _Source(NamedTuple):
    """A source file that stands alone, under a name made from its content."""

    stem: str
    content: bytes


class _Layout(NamedTuple):
    """What `save_config` writes: model_index.json, source files by relative path, a scheduler written anew."""

    model_index: dict[str, Any]
    sources: dict[str, _Source]
    scheduler: Any | None


class PixelDiffusionPipeline(DiffusionPipeline):
    """Unconditional or class-conditional images from a `UNet2DModel` and any scheduler.

    unet: C input channels and C or 2C output channels; with 2C the second half is the learned variance (Nichol &
        Dhariwal 2021, arXiv 2102.09672), which the scheduler must know. With `num_class_embeds` = K + 1 it is
        conditional on K classes; the last embedding is the null label.
    scheduler: any scheduler of the model's own noise schedule; see `swap_scheduler`.
    id2label: names of the classes, kept in model_index.json (whose keys are strings, which are accepted too).
    """

    unet: Any  # UNet2DModel and SchedulerMixin, whose configs diffusers types as plain dictionaries
    scheduler: Any
    model_cpu_offload_seq: Any = "unet"
    _callback_tensor_inputs = ["sample", "model_output"]

    def __init__(
        self,
        unet: UNet2DModel,
        scheduler: SchedulerMixin,
        id2label: dict[int, str] | dict[str, str] | None = None,
    ) -> None:
        super().__init__()
        config = unet.config
        embeds, channels = config["num_class_embeds"], config["in_channels"]
        if config["class_embed_type"] is not None:
            raise ValueError(
                f"unet.config.class_embed_type must be None, and is {config['class_embed_type']!r}. Give the classes "
                "by num_class_embeds = number of classes + 1."
            )
        if embeds is not None and embeds < 2:
            raise ValueError(f"unet.config.num_class_embeds must be 2 or more (classes + 1), and is {embeds}.")
        if config["out_channels"] not in (channels, 2 * channels):
            raise ValueError(
                f"unet.config.out_channels must be {channels} (= in_channels) or {2 * channels} (learned variance), "
                f"and is {config['out_channels']}."
            )
        self.num_classes: int | None = None if embeds is None else embeds - 1
        names = None if id2label is None else {int(key): str(name) for key, name in id2label.items()}
        if names is not None:
            if self.num_classes is None:
                raise ValueError("id2label needs a class-conditional unet, and this one has no num_class_embeds.")
            if not set(names) <= set(range(self.num_classes)):
                raise ValueError(f"id2label must have keys in 0..{self.num_classes - 1}, and has {sorted(names)}.")
            if len(set(names.values())) < len(names):
                raise ValueError(f"id2label must give each class a name of its own, and is {names}.")
        self.register_modules(unet=unet, scheduler=scheduler)  # type: ignore[no-untyped-call]
        self.register_to_config(id2label=names)  # type: ignore[no-untyped-call]
        self.id2label = names
        self._own_module = type(scheduler).__module__
        self._set_aside: dict[str, Any] = {}  # the model's values of what a swap has set by itself
        self._guidance_scale = 1.0
        self._num_timesteps = 0

    @property
    def guidance_scale(self) -> float:
        """w of the running or last call."""
        return self._guidance_scale

    @property
    def num_timesteps(self) -> int:
        """Network evaluations of the running or last call."""
        return self._num_timesteps

    # -- Sampling ------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def __call__(
        self,
        batch_size: int | None = None,
        class_labels: list[int | str] | int | str | None = None,
        num_inference_steps: int = 50,
        guidance_scale: float = 1.0,
        generator: Seed | list[Seed] | None = None,
        eta: float | None = None,
        timesteps: list[int] | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callable[..., dict[str, Any]] | PipelineCallback | MultiPipelineCallbacks | None = None,
        callback_on_step_end_tensor_inputs: list[str] | None = None,
    ) -> ImagePipelineOutput | tuple[Any]:
        """Sample images. Raises `ValueError` for every argument out of its range.

        batch_size: number of images; the number of labels where there are several, else 1.
        class_labels: a class as index or name, or one for each image. None is the null label.
        num_inference_steps: in 1..T. Solvers such as Heun evaluate the network more than once a step.
        guidance_scale: w. 0 and 1 cost one evaluation a step, any other value two, in one batch.
        generator: a `torch.Generator` for the whole batch; or one for each image. An int is a seed: image k then has
            its own generator with seed `generator + k` (on the CPU, so that devices agree). With a seed or
            generator for each image, an image is the same, up to round-off, in any batch. All noise comes from here.
        eta: in [0, 1]; 0 is deterministic, 1 ancestral (Song et al. 2020, arXiv 2010.02502, eq. 16), for
            schedulers that take it in `set_timesteps` or in `step`; None is the scheduler's own default, of ours 1. The
            others have a fixed amount of noise: stock DDPM is ancestral, whatever eta.
        timesteps: strictly descending, in [0, T), instead of num_inference_steps, where the scheduler takes them.
        output_type: "pil" (L, RGB or RGBA images), "np" (B, H, W, C) or "pt" (B, C, H, W), floats in [0, 1].
        callback_on_step_end: called as `f(pipe, step, timestep, {name: tensor})` after each evaluation, with the
            tensors named in `callback_on_step_end_tensor_inputs` ("sample", "model_output"); returns a dictionary,
            whose "sample" is taken over.

        Noise and scheduler work in float32 (float64 with a float64 unet); the unet sees its own dtype.
        """
        if isinstance(callback_on_step_end, PipelineCallback | MultiPipelineCallbacks):
            callback_on_step_end_tensor_inputs = callback_on_step_end.tensor_inputs
        tensor_inputs = ["sample"] if callback_on_step_end_tensor_inputs is None else callback_on_step_end_tensor_inputs
        if unknown := [name for name in tensor_inputs if name not in self._callback_tensor_inputs]:
            raise ValueError(
                f"callback_on_step_end_tensor_inputs must be among {self._callback_tensor_inputs}, and has {unknown}."
            )
        channels, size = self.unet.config.in_channels, self.unet.config.sample_size
        if size is None:
            raise ValueError("unet.config.sample_size must be the height and width of the images, and is None.")
        if output_type not in ("pil", "np", "pt"):
            raise ValueError(f'output_type must be "pil", "np" or "pt", and is {output_type!r}.')
        if output_type == "pil" and channels not in _PIL_MODES:
            raise ValueError(f'output_type "pil" needs 1, 3 or 4 channels, and there are {channels}. Use "np" or "pt".')
        device = self._execution_device
        batch, labels = self._batch_and_labels(batch_size, class_labels, guidance_scale, device)
        generators = _generators(generator, batch)
        step_arguments = self._set_timesteps(num_inference_steps, timesteps, eta, device)
        if "generator" in inspect.signature(self.scheduler.step).parameters:
            step_arguments["generator"] = generators

        shape = (batch, channels, *((size, size) if isinstance(size, int) else size))
        dtype = torch.promote_types(self.unet.dtype, torch.float32)
        sample = randn_tensor(shape, generators, device, dtype) * self.scheduler.init_noise_sigma
        if self.scheduler.config.get("noise_sampler_seed", 0) is None:
            self.scheduler.noise_sampler_seed = _brownian_seeds(generators, batch)
        self._guidance_scale, self._num_timesteps = guidance_scale, len(self.scheduler.timesteps)
        for i, t in enumerate(self.progress_bar(self.scheduler.timesteps)):
            model_output = self._predict(sample, t, labels)
            sample = self.scheduler.step(model_output, t, sample, **step_arguments, return_dict=False)[0]
            if callback_on_step_end is not None:
                tensors = {"sample": sample, "model_output": model_output}
                returned = callback_on_step_end(self, i, t, {name: tensors[name] for name in tensor_inputs})
                sample = returned.pop("sample", sample)

        images = _images(sample, output_type)
        self.maybe_free_model_hooks()  # type: ignore[no-untyped-call]
        return ImagePipelineOutput(images=images) if return_dict else (images,)

    def _predict(self, sample: torch.Tensor, t: torch.Tensor, labels: torch.Tensor | None) -> torch.Tensor:
        """The guided model output at timestep t; `labels` (B,) without guidance, (2B,) null first with it."""
        x = self.scheduler.scale_model_input(sample, t).to(self.unet.dtype)
        if labels is None or len(labels) == len(x):
            output: torch.Tensor = self.unet(x, t, class_labels=labels).sample
            return output.to(sample.dtype)
        null, conditional = self.unet(torch.cat([x, x]), t, class_labels=labels).sample.to(sample.dtype).chunk(2)
        guided: torch.Tensor = null + self._guidance_scale * (conditional - null)
        guided[:, sample.shape[1] :] = conditional[:, sample.shape[1] :]  # learned variance: the conditional's
        return guided

    def get_label_ids(self, class_labels: list[int | str] | int | str) -> list[int]:
        """Indices of classes given by index or name. Raises `ValueError` for one that the model doesn't have."""
        if self.num_classes is None:
            raise ValueError(f"class_labels needs a class-conditional model, and is {class_labels!r}. Leave it out.")
        labels = class_labels if isinstance(class_labels, list | tuple) else [class_labels]
        return [self._label_id(label) for label in labels]

    def _label_id(self, label: Any) -> int:
        assert self.num_classes is not None
        if isinstance(label, str):
            by_name = {name: index for index, name in (self.id2label or {}).items()}
            if label in by_name:
                return by_name[label]
            if not by_name:
                raise ValueError(f"class_labels has the name {label!r}, and the model has no id2label. Use an index.")
            close = difflib.get_close_matches(label, by_name, n=3)
            hint = f"Did you mean {' or '.join(map(repr, close))}? " if close else ""
            raise ValueError(f"class_labels has {label!r}, which is no class. {hint}Classes: {', '.join(by_name)}.")
        if isinstance(label, bool) or not isinstance(label, numbers.Integral):
            raise ValueError(f"class_labels must be an index, a name or a list of them, and has {label!r}.")
        if not 0 <= int(label) < self.num_classes:
            raise ValueError(f"class_labels must be in 0..{self.num_classes - 1}, and has {label}.")
        return int(label)

    def _batch_and_labels(
        self,
        batch_size: int | None,
        class_labels: list[int | str] | int | str | None,
        guidance_scale: float,
        device: torch.device,
    ) -> tuple[int, torch.Tensor | None]:
        if batch_size is not None and (isinstance(batch_size, bool) or batch_size < 1):
            raise ValueError(f"batch_size must be 1 or more, and is {batch_size}.")
        if not np.isfinite(guidance_scale):
            raise ValueError(f"guidance_scale must be finite, and is {guidance_scale}.")
        if class_labels is None:
            if guidance_scale not in (0, 1):
                what = "class_labels" if self.num_classes is not None else "a class-conditional model"
                raise ValueError(f"guidance_scale needs {what}, and is {guidance_scale}. Leave it at 1.")
            batch = batch_size or 1
            return batch, None if self.num_classes is None else torch.full((batch,), self.num_classes, device=device)
        ids = self.get_label_ids(class_labels)
        assert self.num_classes is not None
        if not ids:
            raise ValueError("class_labels must name at least one class, and is empty.")
        if not isinstance(class_labels, list | tuple):
            ids = ids * (batch_size or 1)
        if batch_size not in (None, len(ids)):
            raise ValueError(f"batch_size must be the number of class_labels, {len(ids)}, and is {batch_size}.")
        null = [self.num_classes] * len(ids)
        chosen = ids if guidance_scale == 1 else null if guidance_scale == 0 else null + ids
        return len(ids), torch.tensor(chosen, device=device)

    def _set_timesteps(
        self, num_inference_steps: int, timesteps: list[int] | None, eta: float | None, device: torch.device
    ) -> dict[str, Any]:
        """Prepare the scheduler; return the arguments that its `step` needs (eta, where it goes there)."""
        name, total = type(self.scheduler).__name__, self.scheduler.config["num_train_timesteps"]
        accepted = inspect.signature(self.scheduler.set_timesteps).parameters
        arguments: dict[str, Any] = {"device": device}
        if eta is not None and not 0 <= eta <= 1:
            raise ValueError(f"eta must be in [0, 1], and is {eta}.")
        if timesteps is None:
            if isinstance(num_inference_steps, bool) or not 1 <= num_inference_steps <= total:
                raise ValueError(f"num_inference_steps must be in 1..{total}, and is {num_inference_steps}.")
            arguments["num_inference_steps"] = num_inference_steps
        else:
            if "timesteps" not in accepted:
                raise ValueError(f"timesteps can't be given to {name}. Use num_inference_steps, or another scheduler.")
            chosen = [int(t) for t in timesteps]
            falling = all(a > b for a, b in itertools.pairwise(chosen))
            if not (chosen and falling and chosen == list(timesteps) and total > chosen[0] and chosen[-1] >= 0):
                raise ValueError(f"timesteps must be strictly descending integers in [0, {total}), and is {timesteps}.")
            arguments["timesteps"] = chosen
        in_step = "eta" not in accepted and "eta" in inspect.signature(self.scheduler.step).parameters
        if eta is not None and "eta" in accepted:
            arguments["eta"] = eta
        elif eta and not in_step:
            raise ValueError(f"eta can't be given to {name}, whose noise is fixed, and is {eta}. Leave it out.")
        self.scheduler.set_timesteps(**arguments)
        return {"eta": eta} if eta is not None and in_step else {}

    # -- Other schedulers ----------------------------------------------------------------------------------------

    def swap_scheduler(self, target: str | type[SchedulerMixin], **options: Any) -> PixelDiffusionPipeline:
        """Sample with another scheduler from now on; returns the pipeline itself.

        target: a class; or the name of a class of diffusers, or of the module of the pipeline's own scheduler, with
            or without the ending "Scheduler".
        options: arguments of its constructor, beside those taken over from the present scheduler.

        Raises `ValueError` and changes nothing where the target would use another noise schedule (its
        `alphas_cumprod` must equal the present one bit for bit), or doesn't come through a dry run of four steps with
        this model's prediction type and number of output channels. A model with zero terminal SNR (last beta 1)
        may need `rescale_betas_zero_snr`: it is set where the dry run asks for it, and 1e-6 is granted.

        Stock solvers of the ODE get `clip_sample=False` unless an option says otherwise; a later swap to one that
        clips finds the model's own value again.
        """
        cls = self._scheduler_class(target)
        parameters = inspect.signature(cls).parameters
        # Stock DDIM steps with the clipped x_0 and the eps from before clipping, which no other solver does: guided,
        # its images converge 0.6 away from theirs (RMSE in [-1, 1], where half of the pixels are clipped). Clipping
        # both (`use_clipped_model_output` of its step) leaves 0.04, for most solvers can't clip; 0.004 without.
        # Stock's own pipelines never ask for both. Ancestral ones, ours too, clip in a consistent way, and keep it.
        solves_ode = _is_stock(cls) and "variance_type" not in parameters
        unclipped = {"clip_sample": False} if solves_ode and "clip_sample" in parameters else {}
        scheduler = self._build_scheduler(cls, unclipped | options)
        own = {**self.scheduler.config, **self._set_aside}
        self._set_aside = {key: own[key] for key in unclipped.keys() - options.keys() if key in own}
        self.scheduler = scheduler
        return self

    def _scheduler_class(self, target: str | type[SchedulerMixin]) -> type[SchedulerMixin]:
        if isinstance(target, type):
            return target
        homes = [diffusers.schedulers, *(sys.modules[m] for m in {self._own_module, type(self.scheduler).__module__})]
        for name in (target, f"{target}Scheduler"):
            for home in homes:
                found = getattr(home, name, None)
                if isinstance(found, type) and (issubclass(found, SchedulerMixin) or home is diffusers.schedulers):
                    return found
        known = {
            name.removesuffix("Scheduler")
            for home in homes
            for name, cls in ((n, getattr(home, n, None)) for n in dir(home))
            if isinstance(cls, type) and issubclass(cls, SchedulerMixin) and not inspect.isabstract(cls)
            if "trained_betas" in inspect.signature(cls).parameters
        }
        close = difflib.get_close_matches(target, known, n=3)
        hint = f"Did you mean {' or '.join(close)}? " if close else ""
        raise ValueError(f"target {target!r} is no scheduler. {hint}There are: {', '.join(sorted(known))}.")

    def _build_scheduler(self, cls: type[SchedulerMixin], options: dict[str, Any]) -> Any:
        """A scheduler of class `cls` for this model. Raises `ValueError` with the reason where there is none."""
        config = {**self.scheduler.config, **self._set_aside}
        defaults = set(config.pop("_use_default_values", ())) - _PROCESS_KEYS
        config = {key: value for key, value in config.items() if key not in defaults}
        zero_snr = float(getattr(self.scheduler, "betas", torch.zeros(1))[-1]) == 1
        if zero_snr and config.get("trained_betas") is not None and config["trained_betas"][-1] == 1:
            config.pop("rescale_betas_zero_snr", None)  # they are rescaled already; again would move them by 3e-7
        attempts = [options]
        if zero_snr and "rescale_betas_zero_snr" in inspect.signature(cls).parameters:
            attempts += [{"rescale_betas_zero_snr": True, **options}]
        for attempt in attempts:
            scheduler, reason = self._try_scheduler(cls, config, attempt, zero_snr)
            if reason is None:
                return scheduler
        raise ValueError(f"target {cls.__name__} can't sample this model: {reason}")

    def _try_scheduler(
        self, cls: type[Any], config: dict[str, Any], options: dict[str, Any], zero_snr: bool
    ) -> tuple[Any, str | None]:
        """The scheduler, and why it is refused, or None."""
        parameters = inspect.signature(cls).parameters
        aside: dict[str, Any] = {}  # stock warns of keys that it doesn't know, and a later swap may need them
        if cls.extract_init_dict.__func__ is DDPMScheduler.extract_init_dict.__func__:
            aside = {k: v for k, v in config.items() if k not in parameters and not k.startswith("_")}
            config = {k: v for k, v in config.items() if k not in aside}
        try:
            scheduler, unused = cls.from_config(config, return_unused_kwargs=True, **options)
            scheduler.register_to_config(**aside)
        except Exception as error:  # whatever a class of others raises is the reason
            return None, f"it can't be made from this model's configuration ({type(error).__name__}: {error})."
        if unknown := [name for name in options if name in unused]:
            return None, f"it has no option {', '.join(unknown)}."
        ours, its = (getattr(s, "alphas_cumprod", None) for s in (self.scheduler, scheduler))
        if not isinstance(ours, torch.Tensor):
            return None, f"the present {type(self.scheduler).__name__} has no alphas_cumprod to compare with."
        if not isinstance(its, torch.Tensor):
            return None, "it has no alphas_cumprod, so it would use a noise schedule of its own."
        if its.shape != ours.shape or not torch.allclose(its.cpu(), ours.cpu(), rtol=0, atol=1e-6 if zero_snr else 0):
            return None, "it would use another noise schedule (its alphas_cumprod differs)."
        probe = copy.deepcopy(scheduler)
        if zero_snr and "timestep_spacing" in parameters:
            probe = cls.from_config(config, **{**options, "timestep_spacing": "trailing"})  # begins at T - 1
        try:
            rms = self._dry_run(probe)
        except Exception as error:
            what = f"prediction_type {scheduler.config['prediction_type']!r}, {self.unet.config.out_channels} channels"
            return None, f"a dry run ({what}) ended in {type(error).__name__}: {error}"
        if not rms < 1:  # nor NaN
            cure = "" if zero_snr else " Try another timestep_spacing, such as 'leading' (an option of swap_scheduler)."
            return None, f"a dry run of four steps diverged (x_0 = 0 came out with root mean square {rms:.3g}).{cure}"
        return scheduler, None

    def _dry_run(self, scheduler: Any) -> float:
        """Root mean square after four steps on the data x_0 = 0, whose exact denoiser is ε = x_t / s_t; 0 is right.

        Whatever raises, overflows or takes the target for another one shows here. Inverse schedulers (ascending
        timesteps) go to the noise instead, and need only stay finite. The global generator is left as it was.
        """
        channels, out_channels = self.unet.config.in_channels, self.unet.config.out_channels
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            scheduler.set_timesteps(min(4, len(self.scheduler.alphas_cumprod)))
            if not bool(torch.isfinite(torch.as_tensor(getattr(scheduler, "sigmas", 0.0))).all()):
                return float("inf")  # DPMSolverSDE would search an infinite interval for ever
            sample = torch.randn(1, channels, 8, 8) * scheduler.init_noise_sigma
            for t in scheduler.timesteps:
                x = scheduler.scale_model_input(sample, t)
                alpha_bar = self.scheduler.alphas_cumprod[round(float(t))].cpu()
                a, eps = alpha_bar.sqrt(), x / (1 - alpha_bar).sqrt()
                targets = {"sample": 0 * x, "v_prediction": a * eps, "x0_minus_noise": -eps}
                output = torch.zeros(1, out_channels, 8, 8)
                output[:, :channels] = targets.get(scheduler.config["prediction_type"], eps)
                sample = scheduler.step(output, t, sample, return_dict=False)[0]
        inverse = scheduler.timesteps[0] < scheduler.timesteps[-1]
        return float(0 * sample.sum() if inverse else sample.square().mean().sqrt())

    # -- Folders that travel -------------------------------------------------------------------------------------

    def to_stock(self, class_label: int | str | None = None) -> DDPMPipeline:
        """The same network for one label (None: the null label) as a plain `DDPMPipeline`, in new tensors.

        The label's embedding is a constant that is added to the time embedding, so it is folded into the bias of the
        latter's last layer. Raises `ValueError` for a target without a stock form (x0_minus_noise).
        """
        if self.scheduler.config["prediction_type"] == "x0_minus_noise":
            raise ValueError("prediction_type x0_minus_noise has no stock form; epsilon, sample and v_prediction have.")
        parameters = set(inspect.signature(UNet2DModel).parameters)
        config = {k: v for k, v in self.unet.config.items() if k in parameters and k != "num_class_embeds"}
        weights = {k: v.clone() for k, v in self.unet.state_dict().items() if not k.startswith("class_embedding.")}
        if class_label is not None or self.num_classes is not None:
            label = self.num_classes if class_label is None else self.get_label_ids(class_label)[0]
            weights["time_embedding.linear_2.bias"] += self.unet.class_embedding.weight[label].detach()
        unet = UNet2DModel(**config).eval()
        unet.load_state_dict(weights, assign=True)  # takes over device and dtype
        return DDPMPipeline(unet=unet, scheduler=self._stock_scheduler())

    def _stock_scheduler(self) -> Any:
        """One of stock's for this model with `DDPMPipeline`; a sampler that a diffusion model's can't replace says
        which. Raises `ValueError` where there is none."""
        name = getattr(self.scheduler, "stock_form", "DDPMScheduler")
        return self._build_scheduler(getattr(diffusers, name), {})

    def save_config(self, save_directory: str | os.PathLike[Any], push_to_hub: bool = False, **kwargs: Any) -> None:
        """Write model_index.json and the source files that the folder needs; `save_pretrained` ends with this.

        Unconditional, with a target that stock knows: `DDPMPipeline` with `DDPMScheduler` or `DDIMScheduler`, the two
        that it is written for, so that stock alone loads it, and this file beside it for
        `from_pretrained(folder, custom_pipeline="<its stem>", trust_remote_code=True)`. Any other scheduler is
        written as `DDPMScheduler`, or as the one that it names itself (`stock_form`), with a warning if it is a stock
        solver: swap again after loading.
        Otherwise: self-contained, for `DiffusionPipeline.from_pretrained(folder, trust_remote_code=True)`.
        Files are named by their content, since the loader keeps those of all repos in one place.
        """
        if push_to_hub:
            raise ValueError("save_config alone would push no weights. Use push_to_hub(repo_id) of the pipeline.")
        folder, layout = Path(save_directory), self._layout()
        super().save_config(folder)
        for path, source in layout.sources.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(source.content)
        if layout.scheduler is not None:
            layout.scheduler.save_pretrained(folder / "scheduler")
        _rewrite_json(folder / "model_index.json", lambda _: layout.model_index)
        if (unet_config := folder / "unet" / "config.json").is_file():  # it holds the path that the unet came from
            _rewrite_json(unet_config, lambda c: {k: v for k, v in c.items() if k != "_name_or_path"})

    def _upload_folder(self, working_dir: str | os.PathLike[Any], repo_id: str, *args: Any, **kwargs: Any) -> Any:
        """The last step of `push_to_hub`: a repo without a card gets one of ours in place of diffusers' empty form."""
        card = Path(working_dir) / "README.md"
        if card.is_file() and _EMPTY_FORM in card.read_text(encoding="utf-8"):
            card.write_text(self._card(repo_id), encoding="utf-8")
        return super()._upload_folder(working_dir, repo_id, *args, **kwargs)

    def _card(self, repo_id: str) -> str:
        config, names = self.unet.config, self.id2label or {}
        classes = [names.get(index, str(index)) for index in range(self.num_classes or 0)]
        trust = ", trust_remote_code=True" if isinstance(self._layout().model_index["_class_name"], list) else ""
        arguments = f"class_labels={[0, 1][: len(classes)]}, guidance_scale=2.0" if classes else "batch_size=4"
        kind = {1: "gray", 3: "RGB", 4: "RGBA"}.get(config.in_channels, f"{config.in_channels}-channel")
        of = f", of {len(classes)} classes" if classes else ""
        return _CARD.format(
            name=repo_id.split("/")[-1],
            what=f"{kind} images of {config.sample_size} pixels a side{of}",
            load=f'"{repo_id}"{trust}',
            arguments=f"{arguments}, num_inference_steps={min(50, self.scheduler.config.num_train_timesteps)}",
        )

    def _layout(self) -> _Layout:
        if self.config["unet"][0] != "diffusers":
            raise ValueError(f"unet must be a class of diffusers to be saved, and is {type(self.unet).__name__}.")
        own = _source(type(self))
        if own is None:
            raise ValueError(f"{type(self).__name__} can't be saved: its file doesn't stand alone (see {__name__}).")
        index: dict[str, Any] = {"_diffusers_version": diffusers.__version__, "unet": ["diffusers", "UNet2DModel"]}
        cls, sources = type(self.scheduler), {f"{own.stem}.py": own}
        is_stock = _is_stock(cls)
        try:
            stock = self._stock_scheduler()
        except ValueError as error:
            stock, why = None, str(error)
        if self.num_classes is None and stock is not None:
            index["_class_name"] = "DDPMPipeline"
            if is_stock and issubclass(cls, DDPMScheduler | DDIMScheduler):
                return _Layout({**index, "scheduler": ["diffusers", cls.__name__]}, sources, None)
            if is_stock:
                _warn_of_ddpm(cls, "DDPMPipeline can't run it", f"swap_scheduler({cls.__name__!r}) after loading")
            return _Layout({**index, "scheduler": ["diffusers", type(stock).__name__]}, sources, stock)
        index["_class_name"] = [own.stem, type(self).__name__]
        if self.id2label is not None:
            index["id2label"] = {str(key): name for key, name in self.id2label.items()}
        if is_stock:
            return _Layout({**index, "scheduler": ["diffusers", cls.__name__]}, sources, None)
        if source := _source(cls):
            sources[f"scheduler/{source.stem}.py"] = source
            return _Layout({**index, "scheduler": [source.stem, cls.__name__]}, sources, None)
        if stock is None:
            raise ValueError(f"{cls.__name__} can't be saved: its file doesn't stand alone, and {why}")
        _warn_of_ddpm(cls, "its file doesn't stand alone", "keep your file to swap to it after loading")
        return _Layout({**index, "scheduler": ["diffusers", "DDPMScheduler"]}, sources, stock)


def _is_stock(cls: type) -> bool:
    return getattr(diffusers, cls.__name__, None) is cls


def _warn_of_ddpm(cls: type, reason: str, cure: str) -> None:
    warnings.warn(f"{cls.__name__} is saved as DDPMScheduler with the same betas: {reason}; {cure}.", stacklevel=2)


def _source(cls: type) -> _Source | None:
    """The file of a class, if it imports nothing but torch, numpy, PIL, diffusers and the standard library."""
    if cls.__module__ == "__main__":
        return None
    try:
        content = Path(inspect.getsourcefile(cls) or "").read_bytes()
    except (TypeError, OSError):
        return None
    if not set(_imported(ast.parse(content))) <= _TRAVELS_WITH:
        return None
    stem = re.sub(r"_[0-9a-f]{8}$", "", Path(inspect.getsourcefile(cls) or "").stem)
    return _Source(f"{stem}_{hashlib.sha256(content).hexdigest()[:8]}", content)


def _imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." if node.level else (node.module or "").split(".")[0]


def _rewrite_json(path: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    content = change(json.loads(path.read_text(encoding="utf-8")))
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _generators(generator: Seed | list[Seed] | None, batch: int) -> torch.Generator | list[torch.Generator] | None:
    if generator is None or isinstance(generator, torch.Generator):
        return generator
    seeds: list[Any] = list(generator) if isinstance(generator, list | tuple) else [generator] * batch
    if len(seeds) != batch:
        raise ValueError(f"generator must be one, or one for each of {batch} images, and is a list of {len(seeds)}.")
    if wrong := [s for s in seeds if isinstance(s, bool) or not isinstance(s, torch.Generator | numbers.Integral)]:
        raise ValueError(f"generator must be a torch.Generator, an int seed or a list of them, and has {wrong[0]!r}.")
    if not isinstance(generator, list | tuple):
        seeds = [int(seed) + k for k, seed in enumerate(seeds)]
    return [s if isinstance(s, torch.Generator) else torch.Generator().manual_seed(int(s)) for s in seeds]


def _brownian_seeds(generators: torch.Generator | list[torch.Generator] | None, batch: int) -> list[int] | None:
    """DPMSolverSDE draws one Brownian path an image from a seed; it has no generator argument."""
    if generators is None:
        return None
    each = generators if isinstance(generators, list) else [generators] * batch
    return [int(torch.randint(2**62, (), generator=g, device=g.device)) for g in each]


def _images(sample: torch.Tensor, output_type: str) -> Any:
    """(B, C, H, W) in [-1, 1] to the output type."""
    images = (sample / 2 + 0.5).clamp(0, 1)
    if output_type == "pt":
        return images
    array = images.cpu().permute(0, 2, 3, 1).numpy()
    if output_type == "np":
        return array
    pixels = (array * 255).round().astype(np.uint8)
    return [Image.fromarray(p[..., 0] if p.shape[-1] == 1 else p, _PIL_MODES[p.shape[-1]]) for p in pixels]
