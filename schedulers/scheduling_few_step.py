r"""Sampling in few network evaluations: deterministic linear multistep, given by a table of coefficients.

Notation as in papers: x_t = a_t x_0 + s_t eps with a_t^2 = alpha_bar_t and s_t^2 = 1 - alpha_bar_t, so that
sigma_t = s_t / a_t = tan(phi_t). The probability-flow ODE (Song et al. 2021, 2011.13456, eq. 13), of which x_0 at the
end is a deterministic function of the noise at the start, is integrated from one timestep t_0 > t_1 > ... to the next,
and last to the clean image. Each step costs one evaluation of the network:

    D_i     = the x_0 predicted at t_i
    h_i     = D_i + r_i x_i                                        what is remembered of the evaluation
    x_{i+1} = c_i x_i + b_i0 h_i + b_i1 h_{i-1} + b_i2 h_{i-2} + b_i3 h_{i-3}

A row of the table is (r_i, c_i, b_i0, ..., b_i3), and b is 0 where there is no history yet. Many samplers are such
tables; the functions below build them, and a table that is tuned for one model (`logsnr tune`) is one more:

    ddim_table        one evaluation's memory                              (Song et al., 2010.02502, eq. 12 at eta = 0)
    dpm_solver_table  x_0 extrapolated in log-SNR                          (DPM-Solver++(2M), 2211.01095, algorithm 2)
    ipndm_table       eps, by Adams-Bashforth's weights of equal steps     (Zhang and Chen, 2204.13902, § 3.4)
    adams_table       v, extrapolated in the angle phi; the default        (exponential integrators: 2204.13902, eq. 14)

In the angle the ODE is dx/dphi = v (Salimans and Ho, 2202.00512, eq. 11), which has no singularity anywhere, not at
zero terminal SNR (phi = pi/2) and not at the clean image (phi = 0), where log-SNR and log sigma are infinite.
"""

import inspect
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from diffusers.configuration_utils import ConfigMixin
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.schedulers.scheduling_utils import KarrasDiffusionSchedulers, SchedulerMixin
from diffusers.utils.outputs import BaseOutput

PredictionType = Literal["epsilon", "sample", "v_prediction", "x0_minus_noise"]
Table = list[list[float]]

HISTORY = 4
"""Network evaluations that a step may use."""
DEFAULT_ORDER = 3
"""Order of `adams_table`, which serves where there is no tuned table."""


@dataclass
class FewStepSchedulerOutput(BaseOutput):
    """Result of `FewStepScheduler.step`.

    prev_sample (batch, channels, ...): the sample one step less noisy, input of the next network call.
    pred_original_sample (same shape): the clean image predicted at this step, after thresholding.
    """

    prev_sample: torch.Tensor
    pred_original_sample: torch.Tensor


# -- tables -----------------------------------------------------------------------------------------------------------
# Each takes the angles phi of the timesteps, descending, in (0, pi/2]; the clean image at 0 is added by the function.


def ddim_table(angles: Sequence[float]) -> Table:
    """DDIM without noise: x' = (s'/s) x + (a' - a s'/s) x_0 = (sin phi' x + sin(phi - phi') x_0) / sin phi."""
    return [
        _row(0.0, math.sin(after) / math.sin(at), [math.sin(at - after) / math.sin(at)])
        for at, after in itertools.pairwise([*angles, 0.0])
    ]


def dpm_solver_table(angles: Sequence[float]) -> Table:
    """DPM-Solver++(2M) as stock runs it: its `midpoint` form, its first and last step of order one."""
    table = ddim_table(angles)
    half = [-math.log(math.tan(angle)) for angle in angles]  # lambda of the paper, half of log-SNR
    for i in range(1, len(angles) - 1):
        ratio = (half[i + 1] - half[i]) / (half[i] - half[i - 1])
        b = table[i][2]
        table[i][2:4] = [b * (1 + ratio / 2), -b * ratio / 2]
    return table


def ipndm_table(angles: Sequence[float], order: int = 4) -> Table:
    """DDIM with eps replaced by Adams-Bashforth's combination of the last ones, whatever the spacing is.

    eps = (x - a x_0) / s is remembered as h = x_0 - x / a, which is -tan(phi) eps: not at zero terminal SNR.
    """
    if math.cos(angles[0]) < 1e-9:
        raise ValueError("`ipndm_table` remembers eps, which says nothing of x_0 at zero terminal SNR.")
    weights = [[1.0], [3 / 2, -1 / 2], [23 / 12, -16 / 12, 5 / 12], [55 / 24, -59 / 24, 37 / 24, -9 / 24]]
    rows = []
    for i, (at, after) in enumerate(itertools.pairwise([*angles, 0.0])):
        scale = math.sin(after - at) / math.cos(at)  # of eps in x' = (a'/a) x + scale eps
        used = weights[min(i + 1, order) - 1]
        b = [-scale * w / math.tan(angle) for w, angle in zip(used, reversed(angles[: i + 1]), strict=False)]
        rows.append(_row(-1 / math.cos(at), math.cos(after) / math.cos(at), b))
    return rows


def adams_table(angles: Sequence[float], order: int = DEFAULT_ORDER) -> Table:
    """v extrapolated by the polynomial in phi through its last `order` values, and integrated exactly.

    v = (a x - x_0) / s is remembered as h = x_0 - a x = -s v.
    """
    rows = []
    for i, (at, after) in enumerate(itertools.pairwise([*angles, 0.0])):
        nodes = [angle - at for angle in reversed(angles[max(0, i + 1 - order) : i + 1])]
        weights = _lagrange_integrals(nodes, after - at)
        b = [-w / math.sin(at + node) for w, node in zip(weights, nodes, strict=True)]
        rows.append(_row(-math.cos(at), 1.0, b))
    return rows


def _lagrange_integrals(nodes: list[float], end: float) -> list[float]:
    """The integral from 0 to `end` of each Lagrange polynomial of `nodes`."""
    integrals = []
    for k, node in enumerate(nodes):
        others = nodes[:k] + nodes[k + 1 :]
        polynomial = np.poly1d(others, r=True) / float(np.prod([node - other for other in others]))
        integrals.append(float(polynomial.integ()(end)))
    return integrals


def _row(r: float, c: float, b: Sequence[float]) -> list[float]:
    return [r, c, *b, *[0.0] * (HISTORY - len(b))]


# -- scheduler --------------------------------------------------------------------------------------------------------


class FewStepScheduler(SchedulerMixin, ConfigMixin):  # type: ignore[misc]  # stock's own two bases disagree
    """Deterministic sampling with a table of timesteps and coefficients for each number of steps.

    Where a number of steps has no tuned table, the timesteps are equally spaced as stock's `trailing` ones are, and the
    table is `adams_table` of order three. Timesteps are integers: every network takes them whatever its embedding is,
    and so do the stock solvers that have `set_timesteps(timesteps=...)`. What an integer loses against a real number
    the coefficients, which are real, make up for.

    Args:
        num_train_timesteps, beta_start, beta_end, beta_schedule, trained_betas: the noise schedule, as of stock's
            `DDPMScheduler`; the config always holds the betas themselves.
        prediction_type: what the model predicts: `epsilon` (the noise), `sample` (x_0), `v_prediction`
            (a eps - s x_0), or `x0_minus_noise` (x_0 - eps).
        thresholding: dynamic thresholding of the predicted x_0 (Saharia et al., 2205.11487), at the quantile
            `dynamic_thresholding_ratio`, at most `sample_max_value`.
        rescale_betas_zero_snr: rescale so that x_T is pure noise (Lin et al., 2305.08891). Not with `epsilon`.
        tuned: {"5": {"timesteps": [...], "coefficients": [row, ...]}, ...}, by number of steps; a row is
            [r, c, b0, b1, b2, b3] as at the top of this file. `logsnr tune` makes it.

    Raises:
        ValueError: an option breaks a rule; the message names it.
    """

    _compatibles = [e.name for e in KarrasDiffusionSchedulers]
    order = 1
    init_noise_sigma = 1.0

    def __init__(
        self,
        num_train_timesteps: int = 1000,
        beta_start: float = 0.0001,
        beta_end: float = 0.02,
        beta_schedule: str = "linear",
        trained_betas: list[float] | None = None,
        prediction_type: PredictionType = "epsilon",
        thresholding: bool = False,
        dynamic_thresholding_ratio: float = 0.995,
        sample_max_value: float = 1.0,
        rescale_betas_zero_snr: bool = False,
        tuned: Mapping[str, Mapping[str, Any]] | None = None,
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
        self._threshold = (dynamic_thresholding_ratio, sample_max_value) if thresholding else None
        self._tuned = {int(n): self._validated(n, table) for n, table in (tuned or {}).items()}
        # What is ours alone goes under a key that begins with "_": such keys survive a swap to a stock scheduler and
        # back, and log no warning.
        self.register_to_config(  # type: ignore[no-untyped-call]
            num_train_timesteps=num_train_timesteps,
            trained_betas=self.betas.tolist(),
            prediction_type=prediction_type,
            thresholding=thresholding,
            dynamic_thresholding_ratio=dynamic_thresholding_ratio,
            sample_max_value=sample_max_value,
            rescale_betas_zero_snr=rescale_betas_zero_snr,
            _few_step={n: dict(table) for n, table in (tuned or {}).items()},
        )
        self.set_timesteps(timesteps=list(range(num_train_timesteps))[::-1])

    def _validated(self, n: str, table: Mapping[str, Any]) -> tuple[list[int], Table]:
        timesteps, rows = list(table["timesteps"]), [list(row) for row in table["coefficients"]]
        self._check_timesteps(timesteps)
        if not (len(timesteps) == len(rows) == int(n) and all(len(row) == 2 + HISTORY for row in rows)):
            raise ValueError(
                f"`tuned` must hold {n} timesteps and {n} rows of {2 + HISTORY} coefficients under the key {n!r}; "
                f"there are {len(timesteps)} and {len(rows)}."
            )
        if not np.isfinite(rows).all():
            raise ValueError(f"`tuned` must be finite, and isn't under the key {n!r}.")
        return timesteps, rows

    def _check_timesteps(self, timesteps: Sequence[int]) -> None:
        whole = all(isinstance(t, int | np.integer) for t in timesteps)
        if not whole or not timesteps or any(a <= b for a, b in itertools.pairwise(timesteps)):
            raise ValueError(f"`timesteps` must be a list of descending integers, and is {list(timesteps)}.")
        if timesteps[0] >= len(self) or timesteps[-1] < 0:
            raise ValueError(
                f"`timesteps` must lie in [0, {len(self)}), and go from {timesteps[0]} to {timesteps[-1]}."
            )

    @classmethod
    def extract_init_dict(
        cls, config_dict: Mapping[str, Any], **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        """Split a config (ours, or any scheduler's of a beta schedule) into constructor arguments, unused and hidden
        values. Tables tuned for this model stay with the config through other schedulers.

        Stock drops what was left at its class's default, and so changes T or the target when the defaults of two
        classes differ; here a recorded value is a value.
        """
        hidden = {k: v for k, v in config_dict.items() if k != "_use_default_values"}
        values = {k: v for k, v in hidden.items() if v is not None}
        values = {**values, "tuned": hidden.get("_few_step"), **kwargs}
        expected = set(inspect.signature(cls.__init__).parameters) - {"self"}
        init = {k: v for k, v in values.items() if k in expected}
        unused = {k: v for k, v in kwargs.items() if k not in expected}
        return init, unused, {k: v for k, v in hidden.items() if k not in init and k != "_few_step"}

    @property
    def tuned_steps(self) -> list[int]:
        """The numbers of steps that have a tuned table, ascending."""
        return sorted(self._tuned)

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: str | torch.device | None = None,
        timesteps: list[int] | None = None,
        coefficients: Table | None = None,
    ) -> None:
        """Choose the timesteps of a sampling run and make the table that `step` reads.

        Args:
            num_inference_steps: how many, at most T: the tuned table, or else the default; or else
            timesteps: your own, descending, in [0, T).
            device: where `self.timesteps` goes.
            coefficients: a row for each of `timesteps`; those of `adams_table` where not given.
        """
        if (num_inference_steps is None) == (timesteps is None):
            raise ValueError("Pass one of `num_inference_steps` and `timesteps`.")
        if timesteps is not None:
            self._check_timesteps(timesteps)
            chosen = [int(t) for t in timesteps]
        elif num_inference_steps in self._tuned:
            chosen, coefficients = self._tuned[num_inference_steps]
        else:
            assert num_inference_steps is not None
            if not 1 <= num_inference_steps <= len(self):
                raise ValueError(f"`num_inference_steps` must be in [1, {len(self)}], and is {num_inference_steps}.")
            chosen = self.default_timesteps(num_inference_steps)
        if coefficients is None:
            coefficients = adams_table(self.angles[chosen].tolist())
        if [len(row) for row in coefficients] != [2 + HISTORY] * len(chosen):
            raise ValueError(f"`coefficients` must be {len(chosen)} rows of {2 + HISTORY} numbers, one a timestep.")
        self.num_inference_steps = len(chosen)
        self.timesteps = torch.tensor(chosen, device=device)
        self._read_from(chosen, coefficients)

    def set_begin_index(self, begin_index: int = 0) -> None:
        """Begin at that one of `self.timesteps`, as pipelines do that change a picture. What is remembered of earlier
        steps isn't there then: from a later one than the first the coefficients are those of `adams_table`."""
        if begin_index:
            chosen = self.timesteps[begin_index:].tolist()
            self._read_from(chosen, adams_table(self.angles[chosen].tolist()))

    def _read_from(self, chosen: list[int], coefficients: Table) -> None:
        """Make the table that `step` reads."""
        at = torch.tensor(chosen)
        rows = torch.cat([self._from_model_output()[:, at], torch.tensor(coefficients, dtype=torch.float64).T])
        # NaN at timesteps that weren't chosen: a wrong call shows, and needs no wait for the device
        table = torch.full((len(rows), len(self)), float("nan"), dtype=torch.float64)
        table[:, at] = rows
        self._table = table.reshape(*table.shape, 1, 1, 1).to(device=self.timesteps.device, dtype=torch.float32)
        self._history: list[torch.Tensor] = []

    def default_timesteps(self, n: int) -> list[int]:
        """n timesteps down from T - 1, equally spaced to the clean image at "t = -1" (2305.08891, table 2)."""
        return [round(len(self) * (1 - k / n)) - 1 for k in range(n)]

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

    def to_original(self, model_output: torch.Tensor, timestep: Any, sample: torch.Tensor) -> torch.Tensor:
        """The x_0 that the model's output means at `timestep`, one or (batch,), after thresholding.

        Between two timesteps the coefficients are interpolated, so that they have a gradient by `timestep`.
        """
        t = torch.as_tensor(timestep, device=sample.device)
        below = t.detach().long().clamp(max=len(self) - 2)
        table = self._from_model_output().to(sample)
        picked = torch.lerp(table[:, below], table[:, below + 1], (t - below).to(sample.dtype))
        of_sample, of_output = picked.reshape(2, -1, *[1] * (sample.ndim - 1))
        x_0 = of_sample * sample + of_output * model_output
        return x_0 if self._threshold is None else self._threshold_sample(x_0, *self._threshold)

    def scale_model_input(self, sample: torch.Tensor, timestep: torch.Tensor | int | None = None) -> torch.Tensor:
        """The sample as it is. What `step` remembers is given its place here, so that all steps are one graph; once,
        for pipelines that guide come here with each sample twice, and must not have it forgotten."""
        if not self._history:
            self._make_room(sample)
        return sample

    def _make_room(self, sample: torch.Tensor) -> None:
        if not self._history or self._history[0].shape != sample.shape or self._history[0].device != sample.device:
            dtype = torch.promote_types(sample.dtype, torch.float32)
            self._history = [torch.zeros_like(sample, dtype=dtype) for _ in range(HISTORY - 1)]

    def step(
        self,
        model_output: torch.Tensor,
        timestep: torch.Tensor | int,
        sample: torch.Tensor,
        return_dict: bool = True,
    ) -> FewStepSchedulerOutput | tuple[torch.Tensor, torch.Tensor]:
        """One step, from `timestep` to the next of `self.timesteps` (after the last: to the clean image).

        Args:
            model_output: what the network said, (batch, channels, ...).
            timestep: one of `self.timesteps`, of shape () or (batch,); elsewhere the result is NaN.
            sample: x_t.
            return_dict: False for a plain tuple.
        """
        self._make_room(sample)
        if not isinstance(timestep, torch.Tensor):
            timestep = torch.tensor(timestep, device=sample.device)
        picked = self._table.to(sample.device).index_select(1, timestep)
        if sample.ndim != 4:
            picked = picked.reshape(len(picked), -1, *[1] * (sample.ndim - 1))
        of_sample, of_output, r, c, *b = picked.unbind(0)
        x_0 = torch.addcmul(of_sample * sample, of_output, model_output)
        if self._threshold is not None:
            x_0 = self._threshold_sample(x_0, *self._threshold)
        history = [torch.addcmul(x_0, r, sample), *self._history]
        prev_sample = c * sample
        for weight, remembered in zip(b, history, strict=True):
            prev_sample = torch.addcmul(prev_sample, weight, remembered)
        self._history = history[:-1]
        prev_sample, x_0 = prev_sample.to(sample.dtype), x_0.to(sample.dtype)
        if not return_dict:
            return prev_sample, x_0
        return FewStepSchedulerOutput(prev_sample=prev_sample, pred_original_sample=x_0)

    @staticmethod
    def _threshold_sample(x_0: torch.Tensor, ratio: float, max_value: float) -> torch.Tensor:
        """Clip to the quantile of each image's absolute values, at least 1, and divide by it (2205.11487, § 2.3)."""
        bound = torch.quantile(x_0.abs().flatten(1), ratio, dim=1).clamp(1, max_value)
        bound = bound.view(-1, *[1] * (x_0.ndim - 1))
        return x_0.clamp(-bound, bound) / bound

    def add_noise(self, original_samples: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """x_t = a_t x_0 + s_t eps, for timesteps (batch,). Computed in float32, so right in half precision too."""
        angles = self.angles.to(original_samples.device, torch.float32)[timesteps]
        angles = angles.view(-1, *[1] * (original_samples.ndim - 1))
        return (angles.cos() * original_samples + angles.sin() * noise).to(original_samples.dtype)

    def __len__(self) -> int:
        return len(self.betas)
