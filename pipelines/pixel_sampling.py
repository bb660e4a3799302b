"""What pipelines of pixels share: the walk from noise to images, and other schedulers.

Sampling starts from x_T ~ N(0, σ_init² I), σ_init = `scheduler.init_noise_sigma`, and goes through
`scheduler.timesteps`:

    model_output = predict(scheduler.scale_model_input(x, t), t)
    x            = scheduler.step(model_output, t, x)

Noise and scheduler work in float32 (float64 with a float64 unet); the unet sees its own dtype.

This file stands alone: it is copied beside the pipelines that use it.
"""

from __future__ import annotations

import copy
import difflib
import inspect
import itertools
import sys
from collections.abc import Callable
from typing import Any, Protocol, Self

import diffusers
import numpy as np
import torch
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from diffusers.utils.torch_utils import randn_tensor
from PIL import Image

PIL_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
# What belongs to the trained model and not to the solver. `from_config` drops keys left at their default, and the
# defaults differ (beta_start is 1e-4 in DDPM and 8.5e-4 in LCM); these are therefore always handed on.
_PROCESS_KEYS = {
    *("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "rescale_betas_zero_snr"),
    *("prediction_type", "variance_type", "clip_sample", "clip_sample_range"),
}


class Edit(Protocol):
    """A picture that is changed; see the file of editing."""

    def rows(self, batch: int, device: torch.device, dtype: torch.dtype) -> Self: ...
    def begin(self, scheduler: Any, noise: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]: ...
    def show(self, scheduler: Any, sample: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor: ...
    def finish(self, sample: torch.Tensor) -> torch.Tensor: ...


class PixelSampling:
    """The part of a `DiffusionPipeline` that draws images from a network under a condition, by any scheduler."""

    unet: Any  # a model and a SchedulerMixin, whose configs diffusers types as plain dictionaries
    scheduler: Any
    progress_bar: Any
    maybe_free_model_hooks: Any
    _execution_device: Any
    _callback_tensor_inputs = ["sample", "model_output"]
    _guidance_scale = 1.0
    _num_timesteps = 0
    _own_module: str
    _set_aside: dict[str, Any]  # the model's values of what a swap has set by itself

    @property
    def guidance_scale(self) -> float:
        """w of the running or last call."""
        return self._guidance_scale

    @property
    def num_timesteps(self) -> int:
        """Network evaluations of the running or last call."""
        return self._num_timesteps

    def _keep_own_scheduler(self, scheduler: SchedulerMixin) -> None:
        """Remember what a swap can come back to."""
        self._own_module = type(scheduler).__module__
        self._set_aside = {}

    # -- Sampling ------------------------------------------------------------------------------------------------

    def _draw(
        self,
        batch: int,
        guidance: Any,
        *,
        num_inference_steps: int,
        guidance_scale: float,
        generators: torch.Generator | list[torch.Generator] | None,
        eta: float | None,
        timesteps: list[int] | None,
        output_type: str,
        callback_on_step_end: Callable[..., dict[str, Any]] | None,
        tensor_inputs: list[str],
        edit: Edit | None = None,
    ) -> Any:
        """Images of the output type. `guidance`: a `Guidance`, of the file of that name beside this one. `edit`: a
        picture that is changed, of the file of editing."""
        channels, size = self.unet.config.in_channels, self.unet.config.sample_size
        if size is None:
            raise ValueError("unet.config.sample_size must be the height and width of the images, and is None.")
        if output_type not in ("pil", "np", "pt"):
            raise ValueError(f'output_type must be "pil", "np" or "pt", and is {output_type!r}.')
        if output_type == "pil" and channels not in PIL_MODES:
            raise ValueError(f'output_type "pil" needs 1, 3 or 4 channels, and there are {channels}. Use "np" or "pt".')
        device = self._execution_device
        step_arguments = self._set_timesteps(num_inference_steps, timesteps, eta, device)
        if "generator" in inspect.signature(self.scheduler.step).parameters:
            step_arguments["generator"] = generators

        shape = (batch, channels, *((size, size) if isinstance(size, int) else size))
        dtype = torch.promote_types(self.unet.dtype, torch.float32)
        noise = randn_tensor(shape, generators, device, dtype)
        sample, run = noise * self.scheduler.init_noise_sigma, self.scheduler.timesteps
        if edit is not None:
            edit = edit.rows(batch, device, dtype)
            sample, run = edit.begin(self.scheduler, noise)
        if self.scheduler.config.get("noise_sampler_seed", 0) is None:
            self.scheduler.noise_sampler_seed = _brownian_seeds(generators, batch)
        self._guidance_scale, self._num_timesteps = guidance_scale, len(run)
        for i, t in enumerate(self.progress_bar(run)):
            if edit is not None:
                sample = edit.show(self.scheduler, sample, t)
            model_output = self._predict(sample, t, guidance, i)
            sample = self.scheduler.step(model_output, t, sample, **step_arguments, return_dict=False)[0]
            if callback_on_step_end is not None:
                tensors = {"sample": sample, "model_output": model_output}
                returned = callback_on_step_end(self, i, t, {name: tensors[name] for name in tensor_inputs})
                sample = returned.pop("sample", sample)

        images = _images(sample if edit is None else edit.finish(sample), output_type)
        self.maybe_free_model_hooks()
        return images

    def _predict(self, sample: torch.Tensor, t: torch.Tensor, guidance: Any, step: int) -> torch.Tensor:
        """The guided model output at timestep t, which is evaluation `step`, that the scheduler's step takes."""
        x = self.scheduler.scale_model_input(sample, t)
        output = guidance.output(self.unet, x, t, self._guidance_scale, step, self._num_timesteps)
        return torch.as_tensor(output[:, : self._step_channels(self.scheduler)])

    def _step_channels(self, scheduler: Any) -> int:
        """How many of the unet's output channels the step of this scheduler takes."""
        return int(self.unet.config.out_channels)

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

    def swap_scheduler(self, target: str | type[SchedulerMixin], **options: Any) -> Self:
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
        solves_ode = is_stock(cls) and "variance_type" not in parameters
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
            what = f"prediction_type {scheduler.config['prediction_type']!r}, {self._step_channels(scheduler)} channels"
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
        channels, out_channels = self.unet.config.in_channels, self._step_channels(scheduler)
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


def is_stock(cls: type) -> bool:
    """Whether diffusers has this class."""
    return getattr(diffusers, cls.__name__, None) is cls


# -- In and out --------------------------------------------------------------------------------------------------------


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
    return [Image.fromarray(p[..., 0] if p.shape[-1] == 1 else p, PIL_MODES[p.shape[-1]]) for p in pixels]
