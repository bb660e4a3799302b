"""A pixel-space diffusion model as a pipeline: a `UNet2DModel`, any scheduler, class labels and guidance.

Forward process: x_t = sqrt(ᾱ_t) x_0 + sqrt(1 − ᾱ_t) ε with x_0 in [−1, 1]. Sampling starts from
x_T ~ N(0, σ_init² I), σ_init = `scheduler.init_noise_sigma`, and goes through `scheduler.timesteps`:

    model_output = unet(scheduler.scale_model_input(x, t), t, class_labels)
    x            = scheduler.step(model_output, t, x)

Guidance (the file of that name): a network that is trained with and without its label is led away from what it says
without, and any network from what a weaker one says. w = 1 is the plain model.

This file is copied, with those that it loads, into the folders that it saves, and loaded from there as remote code.
"""

from __future__ import annotations

import difflib
import inspect
import numbers
import os
from pathlib import Path
from typing import Any, NamedTuple

import diffusers
import torch
from diffusers.models.unets.unet_2d import UNet2DModel
from diffusers.pipelines.ddpm.pipeline_ddpm import DDPMPipeline
from diffusers.pipelines.pipeline_utils import DiffusionPipeline, ImagePipelineOutput
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.schedulers.scheduling_utils import SchedulerMixin

from .call_arguments import Callback, Seed, seeded, tensor_inputs
from .guidance import Guidance, require_guidance
from .picture_editing import read_edit
from .pixel_sampling import PixelSampling, is_stock
from .travelling_folder import OwnCard, rewrite_json, sources, warn_of_ddpm

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


class _Layout(NamedTuple):
    """What `save_config` writes: model_index.json, source files by relative path, a scheduler written anew."""

    model_index: dict[str, Any]
    sources: dict[str, bytes]
    scheduler: Any | None


class PixelDiffusionPipeline(PixelSampling, OwnCard, DiffusionPipeline):
    """Unconditional or class-conditional images from a `UNet2DModel` and any scheduler.

    unet: C input channels and C or 2C output channels; with 2C the second half is the learned variance (Nichol &
        Dhariwal 2021, arXiv 2102.09672), which the scheduler must know. With `num_class_embeds` = K + 1 it is
        conditional on K classes; the last embedding is the null label.
    scheduler: any scheduler of the model's own noise schedule; see `swap_scheduler`.
    id2label: names of the classes, kept in model_index.json (whose keys are strings, which are accepted too).
    """

    model_cpu_offload_seq: Any = "unet"

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
        self._keep_own_scheduler(scheduler)

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
        callback_on_step_end: Callback | None = None,
        callback_on_step_end_tensor_inputs: list[str] | None = None,
        guider: Any = None,
        guide: Any = None,
        image: Any = None,
        strength: float | None = None,
        mask_image: Any = None,
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
        guider: one of diffusers.guiders that mixes two outputs, in the place of guidance_scale: guidance in a part of
            the steps, rescaled, projected.
        guide: a loaded pipeline of a weaker model of the same data, to be led away from in the place of the null label
            (autoguidance); of a model without classes too.
        image: a picture that is changed, or one for each image: of PIL, or floats in [0, 1] as `output_type` has them
            (NumPy (B, H, W, C), torch (B, C, H, W)), of the model's own size.
        strength: in (0, 1], the share of the steps that are run, from the picture with noise of that level on (SDEdit,
            Meng et al. 2021, arXiv 2108.01073). 1 begins from noise alone. None is 0.7, and 1 with a mask.
        mask_image: white where the picture is drawn anew, black where it is kept as it is; one for all images, or one
            for each. What is grayer than half counts as white.

        Noise and scheduler work in float32 (float64 with a float64 unet); the unet sees its own dtype.
        """
        edit = read_edit(image, mask_image, strength, self.unet.config.in_channels, self.unet.config.sample_size)
        if edit is not None and batch_size is None and not isinstance(class_labels, list | tuple):
            batch_size = edit.count
        batch, guidance = self._batch_and_guidance(batch_size, class_labels, guidance_scale, guider, guide)
        inputs = tensor_inputs(callback_on_step_end, callback_on_step_end_tensor_inputs, self._callback_tensor_inputs)
        images = self._draw(
            batch,
            guidance,
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            generators=seeded(generator, batch, "images"),
            eta=eta,
            timesteps=timesteps,
            output_type=output_type,
            callback_on_step_end=callback_on_step_end,
            tensor_inputs=inputs,
            edit=edit,
        )
        return ImagePipelineOutput(images=images) if return_dict else (images,)

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

    def _batch_and_guidance(
        self,
        batch_size: int | None,
        class_labels: list[int | str] | int | str | None,
        guidance_scale: float,
        guider: Any,
        guide: Any,
    ) -> tuple[int, Guidance]:
        """The number of images, and what the unet is told of each."""
        if batch_size is not None and (isinstance(batch_size, bool) or batch_size < 1):
            raise ValueError(f"batch_size must be 1 or more, and is {batch_size}.")
        guided = require_guidance(self, guidance_scale, guider, guide)
        if class_labels is None:
            if guided and guide is None:
                what = "class_labels" if self.num_classes is not None else "a class-conditional model, or a guide"
                raise ValueError(f"{guided} needs {what}. Leave it out.")
            batch, ids = batch_size or 1, None
        else:
            ids = self.get_label_ids(class_labels)
            if not ids:
                raise ValueError("class_labels must name at least one class, and is empty.")
            if not isinstance(class_labels, list | tuple):
                ids = ids * (batch_size or 1)
            if batch_size not in (None, len(ids)):
                raise ValueError(f"batch_size must be the number of class_labels, {len(ids)}, and is {batch_size}.")
            batch = len(ids)
        if self.num_classes is None:
            return batch, Guidance({}, None if guide is None else {}, guide and guide.unet, guider)
        null = torch.full((batch,), self.num_classes, device=self._execution_device)
        own = {"class_labels": null if ids is None else torch.tensor(ids, device=self._execution_device)}
        return batch, Guidance(own, {"class_labels": null} if guide is None else own, guide and guide.unet, guider)

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
        for path, content in layout.sources.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(content)
        if layout.scheduler is not None:
            layout.scheduler.save_pretrained(folder / "scheduler")
        rewrite_json(folder / "model_index.json", lambda _: layout.model_index)
        if (unet_config := folder / "unet" / "config.json").is_file():  # it holds the path that the unet came from
            rewrite_json(unet_config, lambda c: {k: v for k, v in c.items() if k != "_name_or_path"})

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
        files = sources(type(self))
        if files is None:
            raise ValueError(f"{type(self).__name__} can't be saved: its file doesn't stand alone (see {__name__}).")
        index: dict[str, Any] = {"_diffusers_version": diffusers.__version__, "unet": ["diffusers", "UNet2DModel"]}
        cls, stem = type(self.scheduler), Path(next(iter(files))).stem
        of_stock = is_stock(cls)
        try:
            stock = self._stock_scheduler()
        except ValueError as error:
            stock, why = None, str(error)
        if self.num_classes is None and stock is not None:
            index["_class_name"] = "DDPMPipeline"
            if of_stock and issubclass(cls, DDPMScheduler | DDIMScheduler):
                return _Layout({**index, "scheduler": ["diffusers", cls.__name__]}, files, None)
            if of_stock:
                warn_of_ddpm(cls, "DDPMPipeline can't run it", f"swap_scheduler({cls.__name__!r}) after loading")
            return _Layout({**index, "scheduler": ["diffusers", type(stock).__name__]}, files, stock)
        index["_class_name"] = [stem, type(self).__name__]
        if self.id2label is not None:
            index["id2label"] = {str(key): name for key, name in self.id2label.items()}
        if of_stock:
            return _Layout({**index, "scheduler": ["diffusers", cls.__name__]}, files, None)
        if of_scheduler := sources(cls):
            files |= {f"scheduler/{name}": content for name, content in of_scheduler.items()}
            own = Path(next(iter(of_scheduler))).stem
            return _Layout({**index, "scheduler": [own, cls.__name__]}, files, None)
        if stock is None:
            raise ValueError(f"{cls.__name__} can't be saved: its file doesn't stand alone, and {why}")
        warn_of_ddpm(cls, "its file doesn't stand alone", "keep your file to swap to it after loading")
        return _Layout({**index, "scheduler": ["diffusers", "DDPMScheduler"]}, files, stock)
