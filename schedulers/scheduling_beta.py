r"""Discrete variance-preserving diffusion from a table of betas: one forward process, one reverse step.

Notation, with diffusers' names in brackets. The forward chain of T steps is

    q(x_t | x_{t-1}) = N(sqrt(1 - beta_t) x_{t-1}, beta_t I)                     (Ho et al. 2020, eq. 2)
    q(x_t | x_0)     = N(a_t x_0, s_t^2 I),  a_t^2 = alpha_bar_t, s_t^2 = 1 - alpha_bar_t    (eq. 4)
    alpha_bar_t      = prod_{r <= t} (1 - beta_r)                                [alphas_cumprod]
    log_snr_t        = log(alpha_bar_t / (1 - alpha_bar_t))                      (diffusers' lambda_t is half of it)

The timestep t runs from 0 to T - 1, as in diffusers: t = 0 is the least noise, and the clean image is "t = -1",
where alpha_bar = 1. A subclass says nothing but its betas (`make_betas`); everything else follows from
`alphas_cumprod`, which is computed as the stock schedulers compute it, so that they agree bit for bit.

References: DDPM (Ho et al., 2006.11239), DDIM (Song et al., 2010.02502), improved DDPM (Nichol and Dhariwal,
2102.09672), progressive distillation (Salimans and Ho, 2202.00512) for v, zero terminal SNR (Lin et al.,
2305.08891), simple diffusion (Hoogeboom et al., 2301.11093) for the shift.
"""

import abc
import inspect
import itertools
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt
import torch
from diffusers.configuration_utils import ConfigMixin
from diffusers.schedulers.scheduling_utils import KarrasDiffusionSchedulers, SchedulerMixin
from diffusers.utils.outputs import BaseOutput
from diffusers.utils.torch_utils import randn_tensor

PredictionType = Literal["epsilon", "sample", "v_prediction", "x0_minus_noise"]
VarianceType = Literal["fixed_small", "fixed_large", "learned_range"]
TimestepSpacing = Literal["linspace", "leading", "trailing"]

MAX_BETA = 0.999
"""Largest beta a formula gives (Nichol and Dhariwal); only `zero_terminal_snr` goes to 1."""
MAX_TERMINAL_SNR = 2e-3
"""Above this signal-to-noise ratio at the last step, sampling from pure noise starts off the training data."""


class ScheduleWarning(UserWarning):
    """A noise schedule that won't do its job, or that isn't what its name says."""


@dataclass
class BetaSchedulerOutput(BaseOutput):
    """Result of `BetaScheduler.step`.

    prev_sample (batch, channels, ...): the sample one step less noisy, input of the next network call.
    pred_original_sample (same shape): the clean image predicted at this step, after clipping.
    """

    prev_sample: torch.Tensor
    pred_original_sample: torch.Tensor


class Gaussian(NamedTuple):
    """Mean (shape of the sample) and variance (batch, 1, ...) of an isotropic normal distribution."""

    mean: torch.Tensor
    variance: torch.Tensor


class SDETerms(NamedTuple):
    """Drift f(x, s) (shape of the sample) and diffusion g(s) (batch, 1, ...) of dx = f ds + g dW."""

    drift: torch.Tensor
    diffusion: torch.Tensor


class ScheduleCheck(NamedTuple):
    """One property of a schedule: its figure, the bound it is held to, and what to do where it fails."""

    name: str
    figure: float
    bound: float
    passed: bool
    cure: str


def betas_from_alpha_bars(alpha_bars: list[float]) -> torch.Tensor:
    """Betas, float32 (T,), from T + 1 values of alpha_bar, the first at the clean image; capped at MAX_BETA."""
    betas = [min(1 - after / before, MAX_BETA) for before, after in itertools.pairwise(alpha_bars)]
    return torch.tensor(betas, dtype=torch.float32)


def rescale_to_zero_terminal_snr(betas: torch.Tensor) -> torch.Tensor:
    """Shift and scale sqrt(alpha_bar) so that it ends at 0 and starts where it did (Lin et al., algorithm 1)."""
    root = torch.cumprod(1 - betas.double(), 0).sqrt()
    root = (root - root[-1]) * (root[0] / (root[0] - root[-1]))
    return _betas_of(root.square())


def shift_log_snr(betas: torch.Tensor, shift: float) -> torch.Tensor:
    """Add `shift` to every log-SNR: alpha_bar' = sigmoid(log_snr + shift). Negative means more noise."""
    log_alpha_bar = torch.cumsum(torch.log1p(-betas.double()), 0)
    log_snr = log_alpha_bar - torch.log(-torch.expm1(log_alpha_bar))
    return betas_from_log_snr(log_snr + shift)


def betas_from_log_snr(log_snr: torch.Tensor) -> torch.Tensor:
    """Betas, float32 (T,), from the log-SNR of each timestep, which must fall."""
    return _betas_of(torch.sigmoid(log_snr.double()))


def _betas_of(alpha_bars: torch.Tensor) -> torch.Tensor:
    before = torch.cat([torch.ones(1, dtype=alpha_bars.dtype), alpha_bars[:-1]])
    return (1 - alpha_bars / before).float()


class BetaScheduler(SchedulerMixin, ConfigMixin, abc.ABC):  # type: ignore[misc]  # stock's own two bases disagree
    """A diffusers scheduler that is wholly given by its betas. Abstract: use or write a subclass.

    A schedule of your own is one static method; its keyword arguments are options of the constructor:

        class SquareBetaScheduler(BetaScheduler):
            @staticmethod
            def make_betas(num_train_timesteps, *, end=0.03):
                return torch.linspace(0.01, end**0.5, num_train_timesteps) ** 2

    Args:
        num_train_timesteps: T, the length of the chain.
        trained_betas: T betas in (0, 1); they win over the class's own formula. The config always holds them, so
            that stock schedulers made by `from_config` run on the very same ones.
        variance_type: of the reverse step's noise. `fixed_small` is the posterior's variance, `fixed_large` is beta,
            `learned_range` interpolates their logarithms by the second half of the model's channels (2102.09672).
        clip_sample: clip the predicted clean image to [-clip_sample_range, clip_sample_range].
        prediction_type: what the model predicts: `epsilon` (the noise), `sample` (x_0), `v_prediction`
            (a eps - s x_0), or `x0_minus_noise` (x_0 - eps).
        thresholding: dynamic thresholding in place of clipping (Saharia et al., 2205.11487), at the quantile
            `dynamic_thresholding_ratio`, at most `sample_max_value`.
        timestep_spacing: `trailing`, `leading` or `linspace` (2305.08891, table 2); `steps_offset` is added to
            `leading`.
        zero_terminal_snr: rescale so that x_T is pure noise. Not with `epsilon`, which says nothing of x_0 there.
        shift: added to every log-SNR. 2 log(r / R) gives images of R pixels a side the noise that images of r pixels
            had (2301.11093); negative means more noise.
        options: the keyword arguments of the subclass's `make_betas`.

    Raises:
        ValueError: an option breaks a rule; the message names it.

    Warns:
        ScheduleWarning: the schedule fails one of `checks`, or the betas given aren't the class's own.
    """

    _compatibles = [e.name for e in KarrasDiffusionSchedulers]
    order = 1
    init_noise_sigma = 1.0
    stock_beta_schedule: ClassVar[str | None] = None
    """The `beta_schedule` of stock configs that means the same formula."""
    learned: ClassVar[bool] = False
    """Whether the formula is only where training begins, so that other betas are no surprise."""

    @staticmethod
    @abc.abstractmethod
    def make_betas(num_train_timesteps: int) -> torch.Tensor:
        """The schedule: betas in (0, 1), float32, shape (T,). Options are keyword arguments with defaults."""

    def __init__(
        self,
        num_train_timesteps: int = 1000,
        trained_betas: list[float] | npt.NDArray[np.float32] | None = None,
        variance_type: VarianceType = "fixed_small",
        clip_sample: bool = True,
        prediction_type: PredictionType = "epsilon",
        thresholding: bool = False,
        dynamic_thresholding_ratio: float = 0.995,
        clip_sample_range: float = 1.0,
        sample_max_value: float = 1.0,
        timestep_spacing: TimestepSpacing = "trailing",
        steps_offset: int = 0,
        zero_terminal_snr: bool = False,
        shift: float = 0.0,
        **options: float,
    ) -> None:
        _require_one_of("variance_type", variance_type, get_args(VarianceType))
        _require_one_of("prediction_type", prediction_type, get_args(PredictionType))
        _require_one_of("timestep_spacing", timestep_spacing, get_args(TimestepSpacing))
        if num_train_timesteps < 2:
            raise ValueError(f"`num_train_timesteps` must be at least 2, and is {num_train_timesteps}.")
        known = self.schedule_options()
        unknown = sorted(set(options) - set(known))
        if unknown:
            raise ValueError(
                f"`{unknown[0]}` is no option of {type(self).__name__}, which has: {', '.join(known) or 'none'}."
            )

        if trained_betas is None:
            self.betas = self._own_betas(num_train_timesteps, zero_terminal_snr, shift, options)
        else:
            self.betas = torch.tensor(np.asarray(trained_betas), dtype=torch.float32)
        self._validate(num_train_timesteps, zero_terminal_snr, prediction_type)
        self.alphas_cumprod = torch.cumprod(1.0 - self.betas, dim=0)

        self.variance_type = variance_type
        self.prediction_type = prediction_type
        self._clip_range = float(clip_sample_range) if clip_sample else None
        self._threshold = (dynamic_thresholding_ratio, sample_max_value) if thresholding else None
        # Everything a stock scheduler knows goes by its own name. What is ours goes under one key that begins with
        # "_": such keys survive a swap to a stock scheduler and back, and log no warning.
        self.register_to_config(  # type: ignore[no-untyped-call]
            num_train_timesteps=num_train_timesteps,
            trained_betas=self.betas.tolist(),
            variance_type=variance_type,
            clip_sample=clip_sample,
            prediction_type=prediction_type,
            thresholding=thresholding,
            dynamic_thresholding_ratio=dynamic_thresholding_ratio,
            clip_sample_range=clip_sample_range,
            sample_max_value=sample_max_value,
            timestep_spacing=timestep_spacing,
            steps_offset=steps_offset,
            _logsnr={
                "schedule": type(self).__name__,
                "zero_terminal_snr": zero_terminal_snr,
                "shift": shift,
                "options": dict(options),
            },
        )
        self._moved: dict[tuple[str, torch.device, torch.dtype], torch.Tensor] = {}
        self._forward = self._forward_table()
        self.set_timesteps(timesteps=list(range(num_train_timesteps))[::-1])

        if trained_betas is not None and not self.learned:
            own = self._own_betas(num_train_timesteps, zero_terminal_snr, shift, options)
            if not torch.allclose(own, self.betas, rtol=1e-3, atol=1e-7):
                warnings.warn(
                    f"{type(self).__name__} was given betas that aren't its own (they differ by up to "
                    f"{(own - self.betas).abs().max():.2g}). The given ones are used; pass trained_betas=None for the "
                    "class's own.",
                    ScheduleWarning,
                    stacklevel=2,
                )
        for check in self.checks():
            if not check.passed:
                warnings.warn(
                    f"{type(self).__name__}: {check.name} is {check.figure:.4g}, above {check.bound:g}. {check.cure}",
                    ScheduleWarning,
                    stacklevel=2,
                )

    @classmethod
    def schedule_options(cls) -> dict[str, float]:
        """The options of this class's formula with their defaults."""
        parameters = inspect.signature(cls.make_betas).parameters.values()
        return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}

    def _own_betas(
        self, num_train_timesteps: int, zero_terminal_snr: bool, shift: float, options: Mapping[str, float]
    ) -> torch.Tensor:
        betas = self.make_betas(num_train_timesteps, **options)
        if shift != 0:  # exactly 0 leaves the betas bit-equal to stock's
            betas = shift_log_snr(betas, shift)
        return rescale_to_zero_terminal_snr(betas) if zero_terminal_snr else betas

    def _validate(self, num_train_timesteps: int, zero_terminal_snr: bool, prediction_type: str) -> None:
        betas = self.betas
        if betas.shape != (num_train_timesteps,):
            raise ValueError(
                f"`trained_betas` must hold num_train_timesteps = {num_train_timesteps} values, and has shape "
                f"{tuple(betas.shape)}. To make them anew for another length pass trained_betas=None."
            )
        if not bool(((betas > 0) & (betas <= 1)).all()) or bool((betas[:-1] == 1).any()):
            raise ValueError(
                f"betas must lie in (0, 1), only the last may be 1; they lie in [{betas.min():g}, {betas.max():g}]."
            )
        if zero_terminal_snr and betas[-1] != 1:
            raise ValueError(
                f"`zero_terminal_snr` needs betas that end in 1, and `trained_betas` end in {betas[-1]:g}. Pass "
                "trained_betas=None, or rescale them with `rescale_to_zero_terminal_snr`."
            )
        if betas[-1] == 1 and prediction_type == "epsilon":
            raise ValueError(
                "prediction_type='epsilon' can't start from zero terminal SNR: the noise says nothing of the image "
                "there. Use 'v_prediction', 'sample' or 'x0_minus_noise'."
            )

    # -- configuration ------------------------------------------------------------------------------------------------

    @classmethod
    def extract_init_dict(
        cls, config_dict: Mapping[str, Any], **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        """Split a config (ours, or a stock scheduler's) into constructor arguments, unused and hidden values.

        Stock drops what was left at its class's default, and so changes T or the target when the defaults of two
        classes differ; here a recorded value is a value. Raises ValueError for a foreign formula without betas.
        """
        hidden = {k: v for k, v in config_dict.items() if k != "_use_default_values"}
        ours = hidden.pop("_logsnr", None)
        recorded = hidden.get("trained_betas")
        # stock records beta_start and the like also beside betas that it was given and that they don't describe;
        # None is stock's word for "not said" (the variance of a DPM solver)
        options = cls.schedule_options()
        values = {k: v for k, v in hidden.items() if v is not None and (recorded is None or k not in options)}
        if ours is not None:
            same = ours["schedule"] == cls.__name__
            values.update(zero_terminal_snr=ours["zero_terminal_snr"], shift=ours["shift"])
            values.update(ours["options"] if same else {})
        else:
            values["zero_terminal_snr"] = bool(values.get("rescale_betas_zero_snr", False))
            foreign, given = values.get("beta_schedule"), kwargs.get("trained_betas", recorded)
            if foreign is not None and given is None and foreign != cls.stock_beta_schedule:
                raise ValueError(
                    f"{cls.__name__} isn't beta_schedule='{foreign}', and the config has no `trained_betas`. Pass "
                    "trained_betas=scheduler.betas.tolist() of the scheduler it comes from."
                )
        values.update(kwargs)

        signature = inspect.signature(BetaScheduler.__init__).parameters
        expected = (set(signature) - {"self", "options"}) | set(cls.schedule_options())
        init = {k: v for k, v in values.items() if k in expected}
        unused = {k: v for k, v in kwargs.items() if k not in expected}
        return init, unused, {k: v for k, v in hidden.items() if k not in init}

    def checks(self) -> list[ScheduleCheck]:
        """What a schedule must do to do its job, with figures: reach noise, not be cut off, not be lost in float32."""
        last = float(self.alphas_cumprod[-1].double())
        stuck = torch.diff(self.alphas_cumprod, prepend=torch.ones(1)) == 0
        lost = int(stuck.sum()) + int((self.alphas_cumprod[:-1] == 0).sum())
        return [
            self._check(
                "terminal SNR",
                last / (1 - last),
                MAX_TERMINAL_SNR,
                "Sampling starts from pure noise, which training never saw: use zero_terminal_snr=True, a negative "
                "shift, or more noise in the schedule's own options.",
            ),
            self._check(
                "number of betas cut off at 0.999 before the last",
                float((self.betas[:-1] >= MAX_BETA).sum()),
                0,
                "The schedule isn't the one its formula says: use a larger num_train_timesteps or smaller betas.",
            ),
            self._check(
                "number of steps lost to float32",
                float(lost),
                0,
                "Betas below 6e-8 leave alpha_bar as it was, and alpha_bar below 1e-45 is 0: use fewer timesteps, "
                "larger first betas, or less noise at the end.",
            ),
        ]

    @staticmethod
    def _check(name: str, figure: float, bound: float, cure: str) -> ScheduleCheck:
        return ScheduleCheck(name, figure, bound, figure <= bound, cure)

    # -- tables -------------------------------------------------------------------------------------------------------

    def _forward_table(self) -> torch.Tensor:
        """Rows a, s, log-SNR and the posterior's coefficients of x_0 and x_t and variance, (6, T), float64."""
        alpha_bar = self.alphas_cumprod.double()
        log_snr = torch.log(alpha_bar) - torch.log1p(-alpha_bar)
        timesteps = torch.arange(len(self))
        keep_x0, keep_xt, small, _ = self._reverse_coefficients(timesteps, timesteps - 1, eta=1.0, rounding=0.0)
        return torch.stack([alpha_bar.sqrt(), (1 - alpha_bar).sqrt(), log_snr, keep_x0, keep_xt, small])

    def _reverse_coefficients(
        self, timesteps: torch.Tensor, previous: torch.Tensor, eta: float, rounding: float
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Coefficients of x_0 and x_t in the mean, and the small and large variances, of the step to `previous`.

        With r = alpha_bar_t / alpha_bar_prev, b = 1 - r, p = b / s_t^2, q = r s_prev^2 / s_t^2 (so p + q = 1),

            small = p s_prev^2,  mean = sqrt(alpha_bar_prev) x_0 + sqrt(s_prev^2 - eta^2 small) eps   (DDIM, eq. 12, 16)

        and with eps = (x_t - a_t x_0) / s_t, rewritten so that nothing cancels: at eta = 1 it is DDPM's eq. 7 term by
        term. Stock's DDPM rounds r to float32, its DDIM at eta = 0 has no r; at small t that decides the fourth digit
        of the coefficients. `rounding` goes from 0, exact r (`posterior`), to 1, stock's; `step` takes eta^2 and so
        agrees with both.
        """
        table = torch.cat([self.alphas_cumprod, torch.ones(1)])  # previous = -1 is the clean image, alpha_bar = 1
        bar, bar_prev = table[timesteps].double(), table[previous].double()
        rounded = (table[timesteps] / table[previous]).double()
        ratio = torch.lerp(bar / bar_prev, rounded, rounding)
        a_prev, v, v_prev, beta = bar_prev.sqrt(), 1 - bar, 1 - bar_prev, 1 - ratio
        p, q = beta / v, ratio * v_prev / v
        mixed = (1 - eta**2) + eta**2 * q
        keep_xt = (v_prev / v * mixed).sqrt()
        keep_x0 = a_prev * p * (1 + eta**2 * q) / (1 + (q * mixed).sqrt())
        return keep_x0, keep_xt, p * v_prev, beta

    def _from_model_output(self, prediction_type: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Coefficients (of x_t, of the model's output) that give x_0, each (T,), float64."""
        a, s = self._forward[0], self._forward[1]
        zero, one = torch.zeros_like(a), torch.ones_like(a)
        return {
            "epsilon": (1 / a, -s / a),
            "sample": (zero, one),
            "v_prediction": (a, -s),
            "x0_minus_noise": (1 / (a + s), s / (a + s)),
        }[prediction_type]

    def _to_model_output(self, prediction_type: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Coefficients (of x_t, of x_0) that give a target, the inverse of `_from_model_output`."""
        a, s = self._forward[0], self._forward[1]
        zero, one = torch.zeros_like(a), torch.ones_like(a)
        return {
            "epsilon": (1 / s, -a / s),
            "sample": (zero, one),
            "v_prediction": (a / s, -1 / s),
            "x0_minus_noise": (-1 / s, (a + s) / s),
        }[prediction_type]

    def _gather(
        self, name: str, table: torch.Tensor, timesteps: torch.Tensor, like: torch.Tensor
    ) -> list[torch.Tensor]:
        """Rows of a (K, T) table at timesteps of shape () or (batch,), as K tensors that broadcast with `like`."""
        dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
        key = (name, like.device, dtype)
        if key not in self._moved:
            self._moved[key] = table.to(device=like.device, dtype=dtype)
        return _pick(_for_images(self._moved[key]), timesteps, like.ndim)

    # -- forward process ----------------------------------------------------------------------------------------------

    def add_noise(self, original_samples: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """x_t = a_t x_0 + s_t eps, for timesteps (batch,). Computed in float32, so right in half precision too."""
        a, s, *_ = self._gather("forward", self._forward, timesteps, original_samples)
        return (a * original_samples + s * noise).to(original_samples.dtype)

    def get_velocity(self, sample: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """v = a_t eps - s_t x_0 for the clean `sample` (2202.00512, eq. 11)."""
        a, s, *_ = self._gather("forward", self._forward, timesteps, sample)
        return (a * noise - s * sample).to(sample.dtype)

    def log_snr(self, timesteps: torch.Tensor) -> torch.Tensor:
        """log(alpha_bar / (1 - alpha_bar)) at `timesteps`, float32, same shape; -inf at zero terminal SNR."""
        return self._forward[2].to(timesteps.device, torch.float32)[timesteps]

    def convert(
        self,
        model_output: torch.Tensor,
        sample: torch.Tensor,
        timesteps: torch.Tensor,
        source: PredictionType,
        target: PredictionType,
    ) -> torch.Tensor:
        """A prediction of one type as another, given x_t (`sample`). Infinite where the two don't determine each
        other: from epsilon at zero SNR.
        """
        _require_one_of("source", source, get_args(PredictionType))
        _require_one_of("target", target, get_args(PredictionType))
        if source == target:
            return model_output
        table = torch.stack([*self._from_model_output(source), *self._to_model_output(target)])
        of_sample, of_output, to_sample, to_x0 = self._gather(f"{source}>{target}", table, timesteps, sample)
        x_0 = of_sample * sample + of_output * model_output
        return (to_sample * sample + to_x0 * x_0).to(sample.dtype)

    def posterior(self, original_samples: torch.Tensor, sample: torch.Tensor, timesteps: torch.Tensor) -> Gaussian:
        """q(x_{t-1} | x_t, x_0) for x_t = `sample` (2006.11239, eq. 6 and 7). At t = 0 it is x_0 with variance 0."""
        *_, keep_x0, keep_xt, variance = self._gather("forward", self._forward, timesteps, sample)
        return Gaussian(keep_x0 * original_samples + keep_xt * sample, variance)

    def sde(self, sample: torch.Tensor, time: torch.Tensor) -> SDETerms:
        """The VP limit dx = -beta(s)/2 x ds + sqrt(beta(s)) dW at continuous times s (batch,) in (0, 1].

        beta(s) = -T log(1 - beta_t) on (t/T, (t+1)/T], so that the marginal at s = (t+1)/T is q(x_t | x_0) exactly
        (Song et al., 2011.13456, eq. 11, has T beta_t, equal to it to first order only).
        """
        # (t + 1)/T is rounded, and must not fall into the next step
        timesteps = (torch.ceil(time * len(self) - 1e-3).long() - 1).clamp(0, len(self) - 1)
        rate = (-len(self) * torch.log1p(-self.betas.double()))[None]
        (beta,) = self._gather("sde", rate, timesteps, sample)
        return SDETerms(-0.5 * beta * sample, beta.sqrt())

    # -- reverse process ----------------------------------------------------------------------------------------------

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: str | torch.device | None = None,
        timesteps: list[int] | None = None,
        eta: float = 1.0,
    ) -> None:
        """Choose the timesteps of a sampling run and make the tables that `step` reads.

        Args:
            num_inference_steps: how many, at most T, spaced by `timestep_spacing`; or else
            timesteps: your own, descending, in [0, T).
            device: where `self.timesteps` goes.
            eta: from 1, ancestral sampling (DDPM), to 0, deterministic (DDIM).
        """
        total = len(self)
        if (num_inference_steps is None) == (timesteps is None):
            raise ValueError("Pass one of `num_inference_steps` and `timesteps`.")
        if not 0 <= eta <= 1:
            raise ValueError(f"`eta` must be in [0, 1], and is {eta}.")
        if timesteps is not None:
            chosen = np.asarray(timesteps, dtype=np.int64)
            if chosen.ndim != 1 or len(chosen) == 0 or (np.diff(chosen) >= 0).any():
                raise ValueError(f"`timesteps` must be a list of descending integers, and is {timesteps}.")
            if chosen[0] >= total or chosen[-1] < 0:
                raise ValueError(f"`timesteps` must lie in [0, {total}), and go from {chosen[0]} to {chosen[-1]}.")
        else:
            assert num_inference_steps is not None
            if not 1 <= num_inference_steps <= total:
                raise ValueError(f"`num_inference_steps` must be in [1, {total}], and is {num_inference_steps}.")
            chosen = self._spaced(num_inference_steps)
        self.num_inference_steps = len(chosen)
        self.timesteps = torch.from_numpy(chosen).to(device)
        self.eta = float(eta)

        at = torch.from_numpy(chosen)
        previous = torch.cat([at[1:], at.new_tensor([-1])])
        keep_x0, keep_xt, small, large = self._reverse_coefficients(at, previous, eta, rounding=eta**2)
        of_sample, of_output = (row[at] for row in self._from_model_output(self.prediction_type))
        gate = torch.full_like(small, eta)
        gate[-1] = 0  # the last step returns the mean
        scale = gate * (large if self.variance_type == "fixed_large" else small).sqrt()
        rows = [of_sample, of_output, keep_x0, keep_xt, scale]
        if self.variance_type == "learned_range":
            # the small variance of the last step is 0; its logarithm is cut off as in improved DDPM and has no effect
            rows = [*rows[:4], gate, small.clamp(min=1e-20).log(), large.log()]
        # NaN at timesteps that weren't chosen: a wrong call shows, and needs no wait for the device
        table = torch.full((len(rows), total), float("nan"), dtype=torch.float64)
        table[:, at] = torch.stack(rows)
        self._reverse = _for_images(table).to(device=device, dtype=torch.float32)

    def _spaced(self, n: int) -> npt.NDArray[np.int64]:
        total = len(self)
        if self.config["timestep_spacing"] == "linspace":
            return np.linspace(0, total - 1, n).round()[::-1].astype(np.int64)
        if self.config["timestep_spacing"] == "leading":
            leading: npt.NDArray[np.int64] = np.arange(n)[::-1] * (total // n) + self.config["steps_offset"]
            if leading[0] >= total:
                raise ValueError(
                    f"`steps_offset` = {self.config['steps_offset']} puts the first of {n} leading steps at "
                    f"{leading[0]}, beyond the last timestep {total - 1}. Use fewer steps, or steps_offset=0."
                )
            return leading
        trailing: npt.NDArray[np.int64] = np.round(np.arange(total, 0, -total / n)[:n]).astype(np.int64) - 1
        return trailing

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
    ) -> BetaSchedulerOutput | tuple[torch.Tensor, torch.Tensor]:
        """One reverse step, from `timestep` to the next of `self.timesteps` (after the last: to the clean image).

        Args:
            model_output: what the network said, (batch, channels, ...); twice the channels for `learned_range`.
            timestep: one of `self.timesteps`, of shape () or (batch,); elsewhere the result is NaN.
            sample: x_t.
            generator: source of the noise; one a sample, or one for all. Can't be compiled: use the next.
            variance_noise: the noise itself, shape of `sample`.
            return_dict: False for a plain tuple.
        """
        if not isinstance(timestep, torch.Tensor):
            timestep = torch.tensor(timestep, device=sample.device)
        learned = self.variance_type == "learned_range"
        if learned:
            model_output, variance_output = model_output.chunk(2, dim=1)
        table = self._reverse.to(sample.device)
        of_sample, of_output, keep_x0, keep_xt, scale, *log_range = _pick(table, timestep, sample.ndim)
        x_0 = torch.addcmul(of_sample * sample, of_output, model_output)
        x_0 = self.clip_original_sample(x_0)
        prev_sample = torch.addcmul(keep_x0 * x_0, keep_xt, sample)
        if self.eta > 0:
            if variance_noise is None:
                if generator is None:
                    variance_noise = torch.randn_like(sample)
                else:
                    variance_noise = randn_tensor(sample.shape, generator, sample.device, sample.dtype)
            if learned:
                low, high = log_range
                log_variance = torch.addcmul(low, high - low, (variance_output + 1) / 2)  # lerp mixes no dtypes
                scale = scale * torch.exp(0.5 * log_variance)
            prev_sample = torch.addcmul(prev_sample, scale, variance_noise)
        prev_sample, x_0 = prev_sample.to(sample.dtype), x_0.to(sample.dtype)
        if not return_dict:
            return prev_sample, x_0
        return BetaSchedulerOutput(prev_sample=prev_sample, pred_original_sample=x_0)

    def clip_original_sample(self, original_samples: torch.Tensor) -> torch.Tensor:
        """Predicted clean images as `step` uses them: clipped or thresholded where the options say so."""
        if self._threshold is not None:
            return self._threshold_sample(original_samples, *self._threshold)
        if self._clip_range is not None:
            return original_samples.clamp(-self._clip_range, self._clip_range)
        return original_samples

    @staticmethod
    def _threshold_sample(x_0: torch.Tensor, ratio: float, max_value: float) -> torch.Tensor:
        """Clip to the quantile of each image's absolute values, at least 1, and divide by it (2205.11487, § 2.3)."""
        bound = torch.quantile(x_0.abs().flatten(1), ratio, dim=1).clamp(1, max_value)
        bound = bound.view(-1, *[1] * (x_0.ndim - 1))
        return x_0.clamp(-bound, bound) / bound

    def __len__(self) -> int:
        return len(self.betas)


class LinearBetaScheduler(BetaScheduler):
    """Betas on a line, from 1e-4 to 0.02 at T = 1000 (2006.11239, § 4).

    For another T the default ends are scaled by 1000 / T, so that the chain ends in noise all the same; ends that are
    given are taken as given.
    """

    stock_beta_schedule = "linear"

    @staticmethod
    def make_betas(
        num_train_timesteps: int, *, beta_start: float | None = None, beta_end: float | None = None
    ) -> torch.Tensor:
        start = 1e-4 * (1000 / num_train_timesteps) if beta_start is None else beta_start
        end = 0.02 * (1000 / num_train_timesteps) if beta_end is None else beta_end
        return torch.linspace(start, end, num_train_timesteps, dtype=torch.float32).clamp(max=MAX_BETA)


class CosineBetaScheduler(BetaScheduler):
    """alpha_bar(u) = cos^2((u + 0.008) / 1.008 * pi/2), relative to u = 0 (2102.09672, eq. 17)."""

    stock_beta_schedule = "squaredcos_cap_v2"

    @staticmethod
    def make_betas(num_train_timesteps: int) -> torch.Tensor:
        grid = [i / num_train_timesteps for i in range(num_train_timesteps + 1)]
        return betas_from_alpha_bars([math.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2 for u in grid])


class ConstantBetaScheduler(BetaScheduler):
    """The same beta at every step, 1 - (1 - beta_min)^(1/T).

    The product of all 1 - beta is then 1 - beta_min whatever T is: `beta_min` is the noise of the *whole* chain. Near
    1 it does its job; a small one, such as 1e-4, adds almost no noise at all and warns: its terminal SNR is
    (1 - beta_min) / beta_min = 9,999.
    """

    @staticmethod
    def make_betas(num_train_timesteps: int, *, beta_min: float = 0.9999) -> torch.Tensor:
        if not 0 < beta_min < 1:
            raise ValueError(f"`beta_min` must be in (0, 1), and is {beta_min}.")
        return torch.full((num_train_timesteps,), -math.expm1(math.log1p(-beta_min) / num_train_timesteps))


class SigmoidBetaScheduler(BetaScheduler):
    """alpha_bar(u) falls as a logistic curve from `start` to `end` at temperature `tau` (Jabri et al., 2212.11972)."""

    @staticmethod
    def make_betas(
        num_train_timesteps: int, *, start: float = -3.0, end: float = 3.0, tau: float = 1.0
    ) -> torch.Tensor:
        if not (start < end and tau > 0):
            raise ValueError(f"`start` must be below `end` and `tau` above 0; they are {start}, {end} and {tau}.")

        def logistic(u: float) -> float:
            return 1 / (1 + math.exp(-(start + (end - start) * u) / tau))

        grid = [logistic(i / num_train_timesteps) for i in range(num_train_timesteps + 1)]
        return betas_from_alpha_bars([(grid[-1] - g) / (grid[-1] - grid[0]) for g in grid])


class LaplaceBetaScheduler(BetaScheduler):
    """log-SNR with a Laplace density of mean `mu` and scale `b` (Hang et al., 2407.03297).

    log_snr(u) = mu - b sign(1/2 - u) log(1 - 2 |u - 1/2|), the argument of the logarithm kept above 1e-6 so that
    both ends are finite. Stock's "laplace" takes sqrt(snr / (1 + snr)) for alpha_bar, which is a, not a^2.
    """

    @staticmethod
    def make_betas(num_train_timesteps: int, *, mu: float = 0.0, b: float = 0.5) -> torch.Tensor:
        if b <= 0:
            raise ValueError(f"`b` must be above 0, and is {b}.")

        def alpha_bar(u: float) -> float:
            log_snr = mu - b * math.copysign(1, 0.5 - u) * math.log(1 - 2 * abs(u - 0.5) + 1e-6)
            return 1 / (1 + math.exp(-log_snr))

        return betas_from_alpha_bars(
            [1.0] + [alpha_bar((i + 1) / num_train_timesteps) for i in range(num_train_timesteps)]
        )


class EvenBetaScheduler(BetaScheduler):
    """alpha_bar(u) = 1 - u: each step takes the same share of what there was at first, beta_t = 1 / (T - t).

    Of states, where alpha_bar is the chance of survival, as many are masked at each step (D3PM, 2107.03006, A.2).
    """

    @staticmethod
    def make_betas(num_train_timesteps: int) -> torch.Tensor:
        return betas_from_alpha_bars([1 - i / num_train_timesteps for i in range(num_train_timesteps + 1)])


class LearnedBetaScheduler(BetaScheduler):
    """Log-SNR on a straight line between two ends, where a learned curve begins (Kingma et al., 2107.00630, § 5.1).

    Training moves what lies between the ends; a trained model has its own betas. Much above 9 float32 would round the
    first of a thousand steps.
    """

    learned = True

    @staticmethod
    def make_betas(num_train_timesteps: int, *, log_snr_start: float = 9.0, log_snr_end: float = -10.0) -> torch.Tensor:
        if log_snr_start <= log_snr_end:
            raise ValueError(
                f"`log_snr_start` must be above `log_snr_end`; they are {log_snr_start} and {log_snr_end}."
            )
        return betas_from_log_snr(torch.linspace(log_snr_start, log_snr_end, num_train_timesteps, dtype=torch.float64))


def _for_images(table: torch.Tensor) -> torch.Tensor:
    """A (K, T) table as (K, T, 1, 1, 1): picked columns broadcast with images without another view."""
    return table.reshape(*table.shape, 1, 1, 1)


def _pick(table: torch.Tensor, timesteps: torch.Tensor, ndim: int) -> list[torch.Tensor]:
    """The K rows of `_for_images(table)` at timesteps of shape () or (batch,), each (batch, 1, ...) of `ndim` axes.

    `index_select` and not `table[t]`: indexing with a 0-d tensor waits for the device and recompiles.
    """
    picked = table.index_select(1, timesteps.reshape(-1))
    if ndim != 4:
        picked = picked.reshape(len(table), -1, *[1] * (ndim - 1))
    return list(picked.unbind(0))


def _require_one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"`{name}` must be one of {', '.join(allowed)}, and is {value!r}.")
