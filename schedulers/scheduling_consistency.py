r"""Sampling a multistep consistency model: as many network evaluations as it was distilled for.

Notation, with diffusers' names in brackets: x_t = a_t x_0 + s_t eps with a_t^2 = alpha_bar_t [alphas_cumprod] and
s_t^2 = 1 - alpha_bar_t, so that tan(phi_t) = s_t / a_t is the noise level; the clean image is at phi = 0.

The path of the probability-flow ODE from noise to an image is cut into n segments, at n timesteps. The model says in
one evaluation, at the start of a segment, the x_0 from which DDIM's step lands where the path leaves the segment
(Heek et al., 2403.06807):

    x_t' = (sin(phi_t') x_t + sin(phi_t - phi_t') x_0) / sin(phi_t)          (Song et al., 2010.02502, eq. 12, eta = 0)

At timesteps that it wasn't distilled for, its x_0 means nothing. A network that follows its target as well as it can
predicts less variance than there is; `contrasts` make up for that. The n timesteps are stock's `trailing` ones, so that
stock's `DDIMScheduler` in n steps makes the same images but for this contrast.
"""

import inspect
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import numpy as np
import torch
from diffusers.configuration_utils import ConfigMixin
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.schedulers.scheduling_utils import KarrasDiffusionSchedulers, SchedulerMixin
from diffusers.utils.outputs import BaseOutput

PredictionType = Literal["epsilon", "sample", "v_prediction", "x0_minus_noise"]


@dataclass
class ConsistencySchedulerOutput(BaseOutput):
    """Result of `ConsistencyScheduler.step`.

    prev_sample (batch, channels, ...): where the path leaves the segment, input of the next network call.
    pred_original_sample (same shape): the clean image predicted at this step, after clipping.
    """

    prev_sample: torch.Tensor
    pred_original_sample: torch.Tensor


class ConsistencyScheduler(SchedulerMixin, ConfigMixin):  # type: ignore[misc]  # stock's own two bases disagree
    """Deterministic sampling of a model that was distilled for a number of steps (`logsnr distill`).

    Args:
        num_train_timesteps, beta_start, beta_end, beta_schedule, trained_betas: the noise schedule, as of stock's
            `DDPMScheduler`; the config always holds the betas themselves.
        prediction_type: what the model predicts: `epsilon` (the noise), `sample` (x_0), `v_prediction`
            (a eps - s x_0), or `x0_minus_noise` (x_0 - eps).
        clip_sample: clip the predicted clean image to [-clip_sample_range, clip_sample_range].
        rescale_betas_zero_snr: rescale so that x_T is pure noise (Lin et al., 2305.08891). Not with `epsilon`.
        distilled_steps: n; None allows any number, for trying.
        contrasts: what the predicted x_0 is multiplied by in each of the n steps; 1 where not given.

    Raises:
        ValueError: an option breaks a rule; the message names it.
    """

    _compatibles = [e.name for e in KarrasDiffusionSchedulers]
    order = 1
    init_noise_sigma = 1.0
    stock_form: ClassVar[str] = "DDIMScheduler"
    """The scheduler of diffusers that samples such a model too."""

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
        distilled_steps: int | None = None,
        contrasts: list[float] | None = None,
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
        if distilled_steps is not None and not 1 <= distilled_steps <= num_train_timesteps:
            raise ValueError(f"`distilled_steps` must be in [1, {num_train_timesteps}], and is {distilled_steps}.")
        if contrasts is not None and (len(contrasts) != distilled_steps or not all(0 < c < 10 for c in contrasts)):
            raise ValueError(
                f"`contrasts` must be {distilled_steps} numbers in (0, 10), one for each of `distilled_steps`, and is "
                f"{contrasts}."
            )
        self.alphas_cumprod = torch.cumprod(1.0 - self.betas, dim=0)
        self.angles = torch.atan2((1 - self.alphas_cumprod.double()).sqrt(), self.alphas_cumprod.double().sqrt())
        self.prediction_type = prediction_type
        self.distilled_steps = distilled_steps
        self.contrasts = contrasts
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
            timestep_spacing="trailing",
            _consistency=distilled_steps,
            _consistency_contrasts=contrasts,
        )
        self.set_timesteps(num_train_timesteps if distilled_steps is None else distilled_steps)

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
        values = {k: v for k, v in hidden.items() if v is not None}
        ours = {"distilled_steps": "_consistency", "contrasts": "_consistency_contrasts"}
        values = {**values, **{name: hidden.get(key) for name, key in ours.items()}, **kwargs}
        expected = set(inspect.signature(cls.__init__).parameters) - {"self"}
        init = {k: v for k, v in values.items() if k in expected}
        unused = {k: v for k, v in kwargs.items() if k not in expected}
        return init, unused, {k: v for k, v in hidden.items() if k not in init and k not in ours.values()}

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: str | torch.device | None = None,
        timesteps: list[int] | None = None,
    ) -> None:
        """Choose the timesteps of a sampling run and make the tables that `step` reads.

        Args:
            num_inference_steps: `distilled_steps`; or else
            timesteps: your own, descending, in [0, T), for a look at what the model makes of them.
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
            if self.distilled_steps not in (None, num_inference_steps):
                raise ValueError(
                    f"`num_inference_steps` must be {self.distilled_steps}, for which this model was distilled, and is "
                    f"{num_inference_steps}."
                )
            chosen = [round(len(self) * (1 - k / num_inference_steps)) - 1 for k in range(num_inference_steps)]
        self.num_inference_steps = len(chosen)
        self.timesteps = torch.tensor(chosen, device=device)
        at = torch.tensor(chosen)
        angles = self.angles[at]
        after = torch.cat([angles[1:], torch.zeros(1)])
        contrasts = torch.ones(len(chosen), dtype=torch.float64)
        if timesteps is None and self.contrasts is not None:
            contrasts = torch.tensor(self.contrasts, dtype=torch.float64)
        of_sample, of_output = self._from_model_output()[:, at] * contrasts
        rows = [of_sample, of_output, after.sin() / angles.sin(), (angles - after).sin() / angles.sin()]
        # NaN at timesteps that weren't chosen: a wrong call shows, and needs no wait for the device
        table = torch.full((len(rows), len(self)), float("nan"), dtype=torch.float64)
        table[:, at] = torch.stack(rows)
        self._table = table.reshape(*table.shape, 1, 1, 1).to(device=device, dtype=torch.float32)

    def _from_model_output(self) -> torch.Tensor:
        """Coefficients (of x_t, of the model's output) that give x_0, (2, T), float64."""
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
        return_dict: bool = True,
    ) -> ConsistencySchedulerOutput | tuple[torch.Tensor, torch.Tensor]:
        """One step, from `timestep` to the next of `self.timesteps` (after the last: to the clean image).

        Args:
            model_output: what the network said, (batch, channels, ...); of a learned variance, twice the channels,
                the second half is of no use here.
            timestep: one of `self.timesteps`, of shape () or (batch,); elsewhere the result is NaN.
            sample: x_t.
            return_dict: False for a plain tuple.
        """
        if not isinstance(timestep, torch.Tensor):
            timestep = torch.tensor(timestep, device=sample.device)
        model_output = model_output[:, : sample.shape[1]]
        # `index_select` and not `table[t]`: indexing with a 0-d tensor waits for the device and recompiles
        picked = self._table.to(sample.device).index_select(1, timestep.reshape(-1))
        if sample.ndim != 4:
            picked = picked.reshape(len(picked), -1, *[1] * (sample.ndim - 1))
        of_sample, of_output, keep_xt, keep_x0 = picked.unbind(0)
        x_0 = torch.addcmul(of_sample * sample, of_output, model_output)
        if self._clip_range is not None:
            x_0 = x_0.clamp(-self._clip_range, self._clip_range)
        prev_sample = torch.addcmul(keep_x0 * x_0, keep_xt, sample)
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
