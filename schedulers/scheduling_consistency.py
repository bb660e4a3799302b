r"""Sampling a consistency model in one to a few network evaluations.

Notation, with diffusers' names in brackets: x_t = a_t x_0 + s_t eps with a_t^2 = alpha_bar_t [alphas_cumprod] and
s_t^2 = 1 - alpha_bar_t, so that tan(phi_t) = s_t / a_t is the noise level; the clean image is at phi = 0.

A consistency model f(x_t, t) says where the path of the probability-flow ODE through x_t ends: all points of one path
give the same clean image (Song et al., 2303.01469, section 3). Here f is the x_0 that a network of any target implies,

    v_prediction: f = a_t x_t - s_t v        (the others as in `_from_model_output`)

which is x itself at phi = 0, the boundary condition, whatever the network says. One evaluation makes an image out of
pure noise. Each further one adds fresh noise to that image, up to a smaller t, and takes it away again (algorithm 1):

    x_0 = f(x_t, t);    x_t' = a_t' x_0 + s_t' z,  z ~ N(0, I);    x_0 = f(x_t', t');    ...

That isn't an ancestral step (`BetaScheduler` at eta = 1), which draws x_t' from q(x_t' | x_t, x_0) and keeps a part of
the noise that is in x_t; this one draws from q(x_t' | x_0).
"""

import inspect
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import numpy as np
import torch
from diffusers.configuration_utils import ConfigMixin
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.schedulers.scheduling_utils import KarrasDiffusionSchedulers, SchedulerMixin
from diffusers.utils.outputs import BaseOutput
from diffusers.utils.torch_utils import randn_tensor

PredictionType = Literal["epsilon", "sample", "v_prediction", "x0_minus_noise"]

NOISE_LEVELS = {1: (), 2: (1.2,), 3: (2.5, 0.8), 4: (4.0, 1.5, 0.6)}
"""tan(phi) of the timesteps after the first, by number of steps."""


@dataclass
class ConsistencySchedulerOutput(BaseOutput):
    """Result of `ConsistencyScheduler.step`.

    prev_sample (batch, channels, ...): noise added anew, input of the next network call; after the last the image.
    pred_original_sample (same shape): the clean image predicted at this step, after clipping.
    """

    prev_sample: torch.Tensor
    pred_original_sample: torch.Tensor


class ConsistencyScheduler(SchedulerMixin, ConfigMixin):  # type: ignore[misc]  # stock's own two bases disagree
    """Multistep sampling of a consistency model that was tuned on a beta schedule (`logsnr distill`).

    The first timestep is T - 1; the next ones are those nearest to `NOISE_LEVELS`, for more than four steps equally
    spaced in phi. Stock's `LCMScheduler`, given the same timesteps, makes the same images.

    Args:
        num_train_timesteps, beta_start, beta_end, beta_schedule, trained_betas: the noise schedule, as of stock's
            `DDPMScheduler`; the config always holds the betas themselves.
        prediction_type: what the model predicts: `epsilon` (the noise), `sample` (x_0), `v_prediction`
            (a eps - s x_0), or `x0_minus_noise` (x_0 - eps).
        clip_sample: clip the predicted clean image to [-clip_sample_range, clip_sample_range].
        rescale_betas_zero_snr: rescale so that x_T is pure noise (Lin et al., 2305.08891). Not with `epsilon`.

    Raises:
        ValueError: an option breaks a rule; the message names it.
    """

    _compatibles = [e.name for e in KarrasDiffusionSchedulers]
    order = 1
    init_noise_sigma = 1.0
    stock_form: ClassVar[str] = "LCMScheduler"
    """The scheduler of diffusers that samples such a model; one of a diffusion model can't."""
    usual_steps: ClassVar[int] = 2

    def __init__(
        self,
        num_train_timesteps: int = 1000,
        beta_start: float = 0.0001,
        beta_end: float = 0.02,
        beta_schedule: str = "linear",
        trained_betas: list[float] | None = None,
        prediction_type: PredictionType = "epsilon",
        clip_sample: bool = True,
        clip_sample_range: float = 1.0,
        rescale_betas_zero_snr: bool = False,
    ) -> None:
        if prediction_type not in get_args(PredictionType):
            allowed = ", ".join(get_args(PredictionType))
            raise ValueError(f"`prediction_type` must be one of {allowed}, and is {prediction_type!r}.")
        made = trained_betas is not None and trained_betas[-1] == 1  # rescaling once more would move them by 3e-7
        self.betas: torch.Tensor = DDPMScheduler(
            num_train_timesteps,
            beta_start,
            beta_end,
            beta_schedule,
            trained_betas,
            rescale_betas_zero_snr=rescale_betas_zero_snr and not made,
        ).betas
        if len(self.betas) != num_train_timesteps:
            raise ValueError(
                f"`trained_betas` must hold num_train_timesteps = {num_train_timesteps} values, and has "
                f"{len(self.betas)}."
            )
        if self.betas[-1] == 1 and prediction_type == "epsilon":
            raise ValueError(
                "prediction_type='epsilon' can't start from zero terminal SNR: the noise says nothing of the image "
                "there. Use 'v_prediction', 'sample' or 'x0_minus_noise'."
            )
        self.alphas_cumprod = torch.cumprod(1.0 - self.betas, dim=0)
        self.angles = torch.atan2((1 - self.alphas_cumprod.double()).sqrt(), self.alphas_cumprod.double().sqrt())
        self.prediction_type = prediction_type
        self._clip_range = float(clip_sample_range) if clip_sample else None
        # What is ours alone goes under a key that begins with "_": such keys survive a swap to a stock scheduler and
        # back, and log no warning.
        self.register_to_config(  # type: ignore[no-untyped-call]
            num_train_timesteps=num_train_timesteps,
            trained_betas=self.betas.tolist(),
            prediction_type=prediction_type,
            clip_sample=clip_sample,
            clip_sample_range=clip_sample_range,
            rescale_betas_zero_snr=rescale_betas_zero_snr,
            original_inference_steps=min(50, num_train_timesteps),  # `LCMScheduler` has no more than these timesteps
            _consistency=True,
        )
        self.set_timesteps(timesteps=list(range(num_train_timesteps))[::-1])

    @classmethod
    def extract_init_dict(
        cls, config_dict: Mapping[str, Any], **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        """Split a config (ours, or any scheduler's of a beta schedule) into constructor arguments, unused and hidden
        values.

        Stock drops what was left at its class's default, and so changes T or the target when the defaults of two
        classes differ; here a recorded value is a value.
        """
        hidden = {k: v for k, v in config_dict.items() if k != "_use_default_values"}
        values = {**{k: v for k, v in hidden.items() if v is not None}, **kwargs}
        expected = set(inspect.signature(cls.__init__).parameters) - {"self"}
        init = {k: v for k, v in values.items() if k in expected}
        unused = {k: v for k, v in kwargs.items() if k not in expected}
        return init, unused, {k: v for k, v in hidden.items() if k not in init}

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: str | torch.device | None = None,
        timesteps: list[int] | None = None,
    ) -> None:
        """Choose the timesteps of a sampling run and make the tables that `step` reads.

        Args:
            num_inference_steps: how many, at most T; or else
            timesteps: your own, descending, in [0, T).
            device: where `self.timesteps` goes.
        """
        if (num_inference_steps is None) == (timesteps is None):
            raise ValueError("Pass one of `num_inference_steps` and `timesteps`.")
        if timesteps is not None:
            _check_timesteps(timesteps, len(self))
            chosen = [int(t) for t in timesteps]
        else:
            assert num_inference_steps is not None
            if not 1 <= num_inference_steps <= len(self):
                raise ValueError(f"`num_inference_steps` must be in [1, {len(self)}], and is {num_inference_steps}.")
            chosen = self.default_timesteps(num_inference_steps)
        self.num_inference_steps = len(chosen)
        self.timesteps = torch.tensor(chosen, device=device)
        at = torch.tensor(chosen)
        next_alpha_bar = torch.cat([self.alphas_cumprod[at[1:]], torch.ones(1)]).double()
        rows = [*self._from_model_output()[:, at], next_alpha_bar.sqrt(), (1 - next_alpha_bar).sqrt()]
        # NaN at timesteps that weren't chosen: a wrong call shows, and needs no wait for the device
        table = torch.full((len(rows), len(self)), float("nan"), dtype=torch.float64)
        table[:, at] = torch.stack(rows)
        self._table = table.reshape(*table.shape, 1, 1, 1).to(device=device, dtype=torch.float32)

    def default_timesteps(self, n: int) -> list[int]:
        """T - 1, then the timesteps nearest to the noise levels of n steps."""
        if n in NOISE_LEVELS:
            wanted = [math.atan(level) for level in NOISE_LEVELS[n]]
        else:
            wanted = [float(self.angles[-1]) * (1 - k / n) for k in range(1, n)]
        chosen = [len(self) - 1, *(int((self.angles - angle).abs().argmin()) for angle in wanted)]
        # a coarse or low schedule may have one timestep for two levels: each goes one below the one before it
        for i in range(1, n):
            chosen[i] = max(min(chosen[i], chosen[i - 1] - 1), n - 1 - i)
        return chosen

    def _from_model_output(self) -> torch.Tensor:
        """Coefficients (of x_t, of the model's output) that give f, (2, T), float64."""
        a, s = self.alphas_cumprod.double().sqrt(), (1 - self.alphas_cumprod.double()).sqrt()
        of_sample, of_output = {
            "epsilon": (1 / a, -s / a),
            "sample": (torch.zeros_like(a), torch.ones_like(a)),
            "v_prediction": (a, -s),
            "x0_minus_noise": (1 / (a + s), s / (a + s)),
        }[self.prediction_type]
        return torch.stack([of_sample, of_output])

    def scale_model_input(self, sample: torch.Tensor, timestep: torch.Tensor | int | None = None) -> torch.Tensor:
        """The sample as it is: variance-preserving schedules need no scaling."""
        return sample

    def step(
        self,
        model_output: torch.Tensor,
        timestep: torch.Tensor | int,
        sample: torch.Tensor,
        generator: torch.Generator | list[torch.Generator] | None = None,
        variance_noise: torch.Tensor | None = None,
        return_dict: bool = True,
    ) -> ConsistencySchedulerOutput | tuple[torch.Tensor, torch.Tensor]:
        """f, and noise added up to the next of `self.timesteps`; after the last, f alone.

        Args:
            model_output: what the network said, (batch, channels, ...); of a learned variance, twice the channels,
                the second half is of no use here.
            timestep: one of `self.timesteps`, of shape () or (batch,); elsewhere the result is NaN.
            sample: x_t.
            generator: source of the noise; one a sample, or one for all. Can't be compiled: use the next.
            variance_noise: the noise itself, shape of `sample`.
            return_dict: False for a plain tuple.
        """
        if not isinstance(timestep, torch.Tensor):
            timestep = torch.tensor(timestep, device=sample.device)
        model_output = model_output[:, : sample.shape[1]]
        # `index_select` and not `table[t]`: indexing with a 0-d tensor waits for the device and recompiles
        picked = self._table.to(sample.device).index_select(1, timestep.reshape(-1))
        if sample.ndim != 4:
            picked = picked.reshape(len(picked), -1, *[1] * (sample.ndim - 1))
        of_sample, of_output, a, s = picked.unbind(0)
        x_0 = torch.addcmul(of_sample * sample, of_output, model_output)
        if self._clip_range is not None:
            x_0 = x_0.clamp(-self._clip_range, self._clip_range)
        prev_sample = x_0
        if self.num_inference_steps > 1:
            if variance_noise is None:
                if generator is None:
                    variance_noise = torch.randn_like(sample)
                else:
                    variance_noise = randn_tensor(sample.shape, generator, sample.device, sample.dtype)
            prev_sample = torch.addcmul(a * x_0, s, variance_noise)
        prev_sample, x_0 = prev_sample.to(sample.dtype), x_0.to(sample.dtype)
        if not return_dict:
            return prev_sample, x_0
        return ConsistencySchedulerOutput(prev_sample=prev_sample, pred_original_sample=x_0)

    def add_noise(self, original_samples: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """x_t = a_t x_0 + s_t eps, for timesteps (batch,). Computed in float32, so right in half precision too."""
        alpha_bar = self.alphas_cumprod.to(original_samples.device)[timesteps]
        alpha_bar = alpha_bar.reshape(-1, *[1] * (original_samples.ndim - 1))
        return (alpha_bar.sqrt() * original_samples + (1 - alpha_bar).sqrt() * noise).to(original_samples.dtype)

    def __len__(self) -> int:
        return len(self.betas)


def _check_timesteps(timesteps: Sequence[int], total: int) -> None:
    whole = all(isinstance(t, int | np.integer) for t in timesteps)
    if not whole or not timesteps or any(a <= b for a, b in itertools.pairwise(timesteps)):
        raise ValueError(f"`timesteps` must be a list of descending integers, and is {list(timesteps)}.")
    if timesteps[0] >= total or timesteps[-1] < 0:
        raise ValueError(f"`timesteps` must lie in [0, {total}), and go from {timesteps[0]} to {timesteps[-1]}.")
