r"""Diffusion over states (letters, tokens, palette entries): a Markov chain given by a transition matrix and betas.

Notation, with diffusers' names in brackets. Each place of a sequence has one of K states, and moves independently of
the others. A kernel is a family of K x K matrices Q(r), rows from, columns to, one for each survival r in [0, 1], with

    Q(1) = I,    Q(r) Q(r') = Q(r r'),    Q(0) = 1 pi^T,  whose rows are all the stationary distribution pi

so that any noise schedule of alpha_bar serves (Austin et al. 2021, D3PM, 2107.03006, eq. 2 and 3):

    q(x_t | x_{t-1}) = Q(1 - beta_t)                                             [transition_matrix]
    q(x_t | x_0)     = Q(alpha_bar_t),  alpha_bar_t = prod_{r <= t} (1 - beta_r)   [cumulative_matrix, alphas_cumprod]
    log_snr_t        = log(alpha_bar_t / (1 - alpha_bar_t))                      (diffusers' lambda_t is half of it)

`absorbing`, `uniform` and `mask_and_replace` are Q(r) = r I + (1 - r) 1 pi^T: alpha_bar_t is the chance that a state
has survived, and what hasn't is drawn from pi. They make no matrix unless asked. `gaussian` and a matrix R of your own
are Q(r) = exp(log(r) (I - R) / gap), moves by R at random times. The gap, 1 - Re(second eigenvalue of R), makes
alpha_bar_t what has survived of that which survives longest.

The network says p(x_0 | x_t) of each place, given the whole of x_t. With it the reverse step is exact as

    p(x_s | x_t) = sum over x_0 of q(x_s | x_t, x_0) p(x_0 | x_t)
                 = q(x_t | x_s) * sum over x_0 of q(x_s | x_0) [p(x_0 | x_t) / q(x_t | x_0)]

The bracket is the leave-one-out denoiser: what the other places say of x_0. D3PM's eq. 4 leaves the division out, and
is wrong for every kernel but the absorbing one. The bound is the sum of KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t)).

The timestep t runs from 0 to T - 1, as in diffusers: t = 0 is the least noise, the clean sequence is "t = -1". Chance
is float64, by inverse distribution functions of uniform numbers: Gumbel noise in float32 never draws rare states, and
lowers the temperature unseen (Zheng et al., 2409.02908).

References: MD4 (Shi et al., 2406.04329) and MDLM (2406.07524) for the absorbing bound, ReMDM (Wang et al., 2503.00307)
for remasking, Campbell et al. (2205.14987) for correctors, GIDD (2503.04482) for kernels between mask and uniform.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from diffusers.configuration_utils import ConfigMixin
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from diffusers.utils.outputs import BaseOutput
from torch import Tensor

Kernel = Literal["absorbing", "uniform", "mask_and_replace", "gaussian"]
Order = Literal["random", "confidence", "entropy"]
Numbers = Sequence[Any] | npt.NDArray[np.floating[Any]] | Tensor
Generators = torch.Generator | list[torch.Generator] | None

MASKED = ("absorbing", "mask_and_replace")
"""The kernels with a mask, a state that no data has."""
MAX_TERMINAL_SURVIVAL = 2e-3
"""Betas of which at most this survives get a last beta of 1; others are refused."""
IMPOSSIBLE = 1e-280
"""A likelihood below this counts as 0: dividing by it would overflow."""


@dataclass
class TransitionSchedulerOutput(BaseOutput):
    """Result of `TransitionScheduler.step`.

    prev_sample (batch, ...): the states one step less noisy, input of the next network call.
    pred_original_sample (same shape): the likeliest clean state of each place.
    """

    prev_sample: Tensor
    pred_original_sample: Tensor


class _Interpolation:
    """Q(r) = r I + (1 - r) 1 pi^T, by closed forms of O(K). Everywhere `ratio` is r, of shape (batch,) or (1,)."""

    def __init__(self, stationary: Tensor) -> None:
        self.stationary = stationary

    def matrix(self, ratio: Tensor) -> Tensor:
        """Q(r), (batch, K, K)."""
        r = _spread(ratio, 3)
        return r * torch.eye(len(self.stationary), dtype=r.dtype) + (1 - r) * self.stationary

    def push(self, weights: Tensor, ratio: Tensor) -> Tensor:
        """Weights of states (batch, ..., K), times Q(r): those after the move."""
        r = _spread(ratio, weights.ndim)
        return r * weights + (1 - r) * weights.sum(-1, keepdim=True) * self.stationary.to(weights.device)

    def column(self, sample: Tensor, ratio: Tensor) -> Tensor:
        """The chance to arrive at `sample` (batch, ...) from each state, (batch, ..., K)."""
        r = _spread(ratio, sample.ndim + 1)
        drawn = self.stationary.to(sample.device)[sample].unsqueeze(-1)
        return r * _one_hot(sample, len(self.stationary)) + (1 - r) * drawn

    def move(self, states: Tensor, uniform: Tensor, ratio: Tensor) -> Tensor:
        """Where states (batch, ...) go by Q(r), by one uniform number each."""
        r = _spread(ratio, states.ndim)
        cumulated = self.stationary.to(states.device).cumsum(0)
        # a uniform number that isn't below r is uniform on [r, 1)
        drawn = torch.searchsorted(cumulated, (uniform - r) / (1 - r) * cumulated[-1], right=True)
        return torch.where(uniform < r, states, drawn)


class _Semigroup:
    """Q(r) = exp(log(r) (I - R) / gap) for a matrix R. Each Q(r) is made once and kept."""

    def __init__(self, jump: Tensor) -> None:
        self.gap = float((1 - torch.linalg.eigvals(jump).real).sort().values[1])  # the first is 0, for R 1 = 1
        if self.gap < 1e-9:
            raise ValueError(
                "`kernel` must lead from every state to one stationary distribution, and has a second eigenvalue of "
                f"1 - {self.gap:.1g}: some states never meet. Connect them."
            )
        balance = torch.cat([jump.T - torch.eye(len(jump), dtype=jump.dtype), torch.ones_like(jump[:1])])
        right = torch.zeros_like(balance[:, :1])
        right[-1] = 1
        solution = torch.linalg.lstsq(balance, right).solution[:, 0].clamp(min=0)
        self.stationary = solution / solution.sum()
        self._jump = jump
        self._kept: dict[float, Tensor] = {0.0: self.stationary.expand(jump.shape)}

    def matrix(self, ratio: Tensor) -> Tensor:
        return torch.stack([self._power(r) for r in ratio.tolist()])

    def _power(self, r: float) -> Tensor:
        """exp(c (R - I)) with c = -log(r) / gap, by Taylor's series at c / 2^n and n squarings.

        All terms are positive, so that small chances keep their digits, which eigenvectors would lose.
        """
        if r not in self._kept:
            moves = -math.log(r) / self.gap
            squarings = max(0, math.ceil(math.log2(2 * moves))) if moves > 0 else 0
            part = math.ldexp(moves, -squarings)
            total = term = torch.eye(len(self._jump), dtype=self._jump.dtype)
            for k in range(1, 16):  # 0.5^16 / 16! = 7e-19
                term = term @ self._jump * (part / k)
                total = total + term
            for _ in range(squarings):
                total = total / total.sum(-1, keepdim=True)
                total = total @ total
            self._kept[r] = total / total.sum(-1, keepdim=True)
        return self._kept[r]

    def push(self, weights: Tensor, ratio: Tensor) -> Tensor:
        flat = weights.reshape(len(weights), -1, weights.shape[-1])
        return (flat @ self.matrix(ratio).to(weights.device)).reshape(weights.shape)

    def column(self, sample: Tensor, ratio: Tensor) -> Tensor:
        return self._rows(self.matrix(ratio).mT, sample)

    def move(self, states: Tensor, uniform: Tensor, ratio: Tensor) -> Tensor:
        return _draw(self._rows(self.matrix(ratio), states), uniform)

    @staticmethod
    def _rows(matrix: Tensor, states: Tensor) -> Tensor:
        batch = torch.arange(len(states), device=states.device) % len(matrix)
        return matrix.to(states.device)[_spread(batch, states.ndim), states]


class TransitionScheduler(SchedulerMixin, ConfigMixin):  # type: ignore[misc]  # stock's own two bases disagree
    """A diffusers scheduler of states, given by a kernel and betas.

    Args:
        kernel: where a state goes that doesn't survive. `absorbing`: to the mask. `uniform`: to any state alike.
            `mask_and_replace`: to the mask, or by `replace_share` to any other state alike, masks too (VQ-Diffusion's
            stay masks). `gaussian`: step by step to its neighbours, for states in a natural order; a survival of r is a
            spread of sqrt(-2 log r) K / pi states, whatever K is. Or a matrix of your own, rows from and columns to, of
            the moves, from any state to one stationary distribution. The last two keep K^2 numbers for each timestep.
        num_states: K, the mask included, as many as the network has logits. By default the bytes and a mask.
        num_train_timesteps: T, the length of the chain.
        trained_betas: T betas in (0, 1], such as `CosineBetaScheduler().betas.tolist()`. By default alpha_bar falls on
            a line, beta_t = 1 / (T - t). Nothing may survive the chain, or the absorbing bound is infinite: where at
            most 0.002 does, the last beta is made 1; more is refused.
        mask_token_id: the mask of the kernels that have one; the last state where it isn't given.
        replace_share: of `mask_and_replace`, in (0, 1).

    Raises:
        ValueError: an option breaks a rule; the message names it.
    """

    order = 1

    def __init__(
        self,
        kernel: Kernel | Numbers = "absorbing",
        num_states: int = 257,
        num_train_timesteps: int = 1000,
        trained_betas: Numbers | None = None,
        mask_token_id: int | None = None,
        replace_share: float | None = None,
    ) -> None:
        name = kernel if isinstance(kernel, str) else "a matrix"
        if isinstance(kernel, str):
            _require_one_of("kernel", kernel, get_args(Kernel))
        if num_states < 2 or num_train_timesteps < 1:
            raise ValueError(
                "`num_states` must be at least 2 and `num_train_timesteps` at least 1; they are "
                f"{num_states} and {num_train_timesteps}."
            )
        if name not in MASKED and mask_token_id is not None:
            raise ValueError(
                f"`mask_token_id` is for the kernels {' and '.join(MASKED)}, and `kernel` is {name}: leave it None."
            )
        if (name == "mask_and_replace") != (replace_share is not None):
            raise ValueError(
                "`replace_share` must be given for the kernel mask_and_replace, and for no other; `kernel` is "
                f"{name} and `replace_share` is {replace_share}."
            )
        if replace_share is not None and not 0 < replace_share < 1:
            raise ValueError(f"`replace_share` must be in (0, 1), and is {replace_share}: use absorbing or uniform.")
        if name in MASKED and mask_token_id is None:
            mask_token_id = num_states - 1
        if mask_token_id is not None and not 0 <= mask_token_id < num_states:
            raise ValueError(f"`mask_token_id` must be in [0, num_states = {num_states}), and is {mask_token_id}.")

        self.kernel, self.num_states, self.mask_token_id = name, num_states, mask_token_id
        self.betas = _checked_betas(trained_betas, num_train_timesteps)
        self.alphas_cumprod = torch.cumprod(1 - self.betas, dim=0)
        self._survival = torch.cat([torch.ones(1, dtype=torch.float64), self.alphas_cumprod])  # of t at t + 1
        self._kernel: _Interpolation | _Semigroup
        if isinstance(kernel, str) and kernel != "gaussian":
            stationary = torch.full((num_states,), 1 / num_states, dtype=torch.float64)
            if mask_token_id is not None:
                stationary[:] = (replace_share or 0) / (num_states - 1)
                stationary[mask_token_id] = 1 - (replace_share or 0)
            self._kernel = _Interpolation(stationary)
        else:
            jump = _neighbours(num_states) if isinstance(kernel, str) else _checked_matrix(kernel, num_states)
            self._kernel = _Semigroup(jump)
        self.register_to_config(  # type: ignore[no-untyped-call]
            kernel=kernel if isinstance(kernel, str) else jump.tolist(),
            num_states=num_states,
            num_train_timesteps=num_train_timesteps,
            trained_betas=self.betas.tolist(),
            mask_token_id=mask_token_id,
            replace_share=replace_share,
        )
        self.set_timesteps(num_train_timesteps)

    # -- the chain ----------------------------------------------------------------------------------------------------

    @property
    def stationary(self) -> Tensor:
        """pi, where the chain ends whatever it began with, (K,), float64."""
        return self._kernel.stationary

    def transition_matrix(self, timesteps: Tensor | int) -> Tensor:
        """q(x_t | x_{t-1}), rows x_{t-1} and columns x_t, float64: (K, K), or (n, K, K) for n timesteps."""
        t = torch.as_tensor(timesteps).cpu()
        return self._kernel.matrix(self._ratio(t - 1, t)).reshape(*t.shape, self.num_states, self.num_states)

    def cumulative_matrix(self, timesteps: Tensor | int) -> Tensor:
        """q(x_t | x_0), rows x_0 and columns x_t, float64: (K, K), or (n, K, K) for n timesteps."""
        t = torch.as_tensor(timesteps).cpu()
        return self._kernel.matrix(self._ratio(-1, t)).reshape(*t.shape, self.num_states, self.num_states)

    def log_snr(self, timesteps: Tensor) -> Tensor:
        """log(alpha_bar / (1 - alpha_bar)) at `timesteps`, float32, same shape; -inf at the last."""
        alpha_bar = self.alphas_cumprod.to(timesteps.device)[timesteps]
        return (torch.log(alpha_bar) - torch.log1p(-alpha_bar)).float()

    def _ratio(self, s: Tensor | int, t: Tensor) -> Tensor:
        """What survives from s to t, alpha_bar_t / alpha_bar_s, of shape (batch,) or (1,)."""
        survival = self._survival.to(t.device)
        return (survival[t + 1] / survival[s + 1]).reshape(-1)

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """x_t for x_0 = `original_samples` (batch, ...) and timesteps (batch,).

        `noise` are uniform numbers in [0, 1) in float64, one a place: `torch.rand(x_0.shape, dtype=torch.float64)`.
        But for `gaussian` and a matrix a place survives where its number is below alpha_bar_t.
        """
        self._check_states("original_samples", original_samples)
        if noise.dtype != torch.float64 or noise.shape != original_samples.shape:
            raise ValueError(
                f"`noise` must be uniform numbers in float64 of shape {tuple(original_samples.shape)}, and is "
                f"{noise.dtype} of shape {tuple(noise.shape)}. Use torch.rand(x_0.shape, dtype=torch.float64)."
            )
        return self._kernel.move(original_samples, noise, self._ratio(-1, timesteps))

    def sample_stationary(
        self, shape: tuple[int, ...], generator: Generators = None, device: str | torch.device | None = None
    ) -> Tensor:
        """x_T, where sampling begins: states of `shape` (batch, ...) from the stationary distribution."""
        states = torch.zeros(shape, dtype=torch.int64, device=device)
        (uniform,) = _uniform(states, 1, generator)
        return self._kernel.move(states, uniform, torch.zeros_like(uniform).flatten()[:1])

    # -- the posterior and the bound ----------------------------------------------------------------------------------

    def denoise(self, model_output: Tensor, sample: Tensor, timesteps: Tensor, temperature: float = 1.0) -> Tensor:
        """p(x_0 | x_t) (batch, ..., K), float64, of the network's logits, without the x_0 that can't be.

        Those are the mask, and all but x_t itself at a place that the absorbing kernel has left alone.
        """
        self._check_states("sample", sample)
        if model_output.shape != (*sample.shape, self.num_states):
            raise ValueError(
                f"`model_output` must be logits of shape {(*sample.shape, self.num_states)}, the shape of `sample` and "
                f"num_states, and is of shape {tuple(model_output.shape)}."
            )
        # where nothing survives, a state that can't be was given, and stays
        possible = self._kernel.column(sample, self._ratio(-1, timesteps)) > IMPOSSIBLE
        possible |= _one_hot(sample, self.num_states).bool()
        if self.mask_token_id is not None:
            possible[..., self.mask_token_id] = False
        logits = model_output.double().masked_fill(~possible, -math.inf)
        if temperature == 0:
            return _one_hot(logits.argmax(-1), self.num_states)
        return torch.softmax(logits / temperature, -1)

    def posterior(
        self, original_samples: Tensor, sample: Tensor, timesteps: Tensor, prev_timesteps: Tensor | None = None
    ) -> Tensor:
        """q(x_s | x_t, x_0) (batch, ..., K), float64, for x_t = `sample` (batch, ...) and timesteps (batch,).

        `original_samples` are states x_0 (batch, ...), or p(x_0 | x_t) (batch, ..., K), of which it makes p(x_s | x_t),
        exactly. s are `prev_timesteps`, by default t - 1; -1 is the clean end. Where x_t can't come of x_0 it is NaN.
        """
        self._check_states("sample", sample)
        s = timesteps - 1 if prev_timesteps is None else prev_timesteps
        given = original_samples.is_floating_point()
        p = original_samples.double() if given else _one_hot(original_samples, self.num_states)
        likelihood = self._kernel.column(sample, self._ratio(-1, timesteps))
        possible = likelihood > IMPOSSIBLE
        leave_one_out = p * possible / torch.where(possible, likelihood, 1.0)
        back = self._kernel.column(sample, self._ratio(s, timesteps))
        joint = back * self._kernel.push(leave_one_out, self._ratio(-1, s))
        return joint / joint.sum(-1, keepdim=True)

    def bound(self, model_output: Tensor, original_samples: Tensor, sample: Tensor, timesteps: Tensor) -> Tensor:
        """KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t)) of each place (batch, ...), in nats, float64.

        The sum over t and all places, in expectation over x_t, is the bound on -log p(x_0), and all of it: at t = 0 it
        is -log p(x_0 | x_t), and x_T costs nothing.
        """
        true = self.posterior(original_samples, sample, timesteps)
        predicted = self.posterior(self.denoise(model_output, sample, timesteps), sample, timesteps)
        # at 0 the logarithm's gradient is infinite, and `true` is 0 too
        return (torch.xlogy(true, true) - true * predicted.clamp(min=1e-300).log()).sum(-1)

    def elbo_weights(self, timesteps: Tensor) -> Tensor:
        """The weights (alpha_bar_{t-1} - alpha_bar_t) / (1 - alpha_bar_t), float64, for the kernel `absorbing`.

        Times -log p(x_0 | x_t) of the masked places they are `bound` (2406.07524).
        """
        self._require_absorbing("elbo_weights", "Use `bound`, which is for every kernel.")
        survival = self._survival.to(timesteps.device)
        return (survival[timesteps] - survival[timesteps + 1]) / (1 - survival[timesteps + 1])

    # -- reverse process ----------------------------------------------------------------------------------------------

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: str | torch.device | None = None,
        timesteps: list[int] | None = None,
    ) -> None:
        """Choose the timesteps of a sampling run.

        Args:
            num_inference_steps: how many, at most T, equally spaced from the last down (`trailing`); or else
            timesteps: your own, descending, in [0, T).
            device: where `self.timesteps` goes.
        """
        if (num_inference_steps is None) == (timesteps is None):
            raise ValueError("Pass one of `num_inference_steps` and `timesteps`.")
        total, n = len(self), num_inference_steps
        if n is not None and not 1 <= n <= total:
            raise ValueError(f"`num_inference_steps` must be in [1, {total}], and is {n}.")
        chosen = [round(total * (1 - k / n)) - 1 for k in range(n)] if n is not None else list(timesteps or [])
        if not chosen or any(a <= b for a, b in itertools.pairwise([total, *chosen, -1])):
            raise ValueError(f"`timesteps` must be a list of descending integers in [0, {total}), and is {timesteps}.")
        self.num_inference_steps = len(chosen)
        self.timesteps = torch.tensor(chosen, device=device)
        self._chosen = torch.tensor([*chosen, -1])

    def scale_model_input(self, sample: Tensor, timestep: Tensor | int | None = None) -> Tensor:
        """The sample as it is: states have no scale."""
        return sample

    def step(
        self,
        model_output: Tensor,
        timestep: Tensor | int,
        sample: Tensor,
        temperature: float = 1.0,
        order: Order = "random",
        remask: float = 0.0,
        corrector_steps: int = 0,
        generator: Generators = None,
        return_dict: bool = True,
    ) -> TransitionSchedulerOutput | tuple[Tensor, Tensor]:
        """One reverse step, from `timestep` to the next of `self.timesteps` (after the last: to the clean states).

        With a perfect network and temperature 1 it leaves the right distribution, whatever the other options are, but
        for this: all places are drawn at once, an error that falls with 1 / T. `remask` and `corrector_steps` add to
        it, since they draw more at once: they are there for networks that err.

        Args:
            model_output: the network's logits of x_0, (batch, ..., K).
            timestep: one of `self.timesteps`, of shape () or (batch,).
            sample: x_t, (batch, ...), int64.
            temperature: the logits are divided by it; at 0 the likeliest x_0 counts alone.
            order: which masks are lifted (kernel `absorbing`); how many is left to chance. `confidence`: where the
                likeliest state is likeliest. `entropy`: where the entropy is least. Neither looks at what is drawn,
                which would lower the temperature.
            remask: the chance of a lifted mask to come back in this step (kernel `absorbing`), at most
                (1 - alpha_bar_s) / alpha_bar_t; more masks are lifted in turn (2503.00307).
            corrector_steps: go down by so many more of `self.timesteps`, then up again by the forward chain. Where
                steps are short, that is a predictor and so many correctors (2205.14987, § 4.4), at one network call.
            generator: source of chance; one a sample, or one for all.
            return_dict: False for a plain tuple.
        """
        _require_one_of("order", order, get_args(Order))
        if not (0 <= temperature < math.inf and 0 <= remask <= 1 and corrector_steps >= 0):
            raise ValueError(
                "`temperature` must be 0 or more, `remask` in [0, 1], `corrector_steps` 0 or more; they are "
                f"{temperature}, {remask} and {corrector_steps}."
            )
        if remask > 0:
            self._require_absorbing("remask", "Use `corrector_steps`, which are for every kernel.")
        if order != "random":
            self._require_absorbing("order", "Use order='random': only masks can wait for their turn.")
        found = torch.as_tensor(timestep, device="cpu").reshape(-1, 1) == self._chosen[:-1]
        if not bool(found.any(1).all()):
            raise ValueError(f"`timestep` must be one of `timesteps`, and is {timestep}. Call `set_timesteps` before.")
        index = found.long().argmax(1)
        below = (index + 1 + corrector_steps).clamp(max=self.num_inference_steps)
        t, s, below = self._chosen[torch.stack([index, index + 1, below])].to(sample.device)

        p = self.denoise(model_output, sample, t, temperature)
        whether, what, back = _uniform(sample, 3, generator)
        if self.kernel == "absorbing":
            assert self.mask_token_id is not None
            masked = sample == self.mask_token_id
            lifted, masked_again = self._coins(p, masked, below, t, order, remask, whether)
            prev_sample = torch.where(lifted, _draw(p, what), sample)
            prev_sample = torch.where(masked_again, self.mask_token_id, prev_sample)
        else:
            prev_sample = _draw(self.posterior(p, sample, t, below), what)
        if corrector_steps > 0:
            prev_sample = self._kernel.move(prev_sample, back, self._ratio(below, s))
        x_0 = p.argmax(-1)
        if not return_dict:
            return prev_sample, x_0
        return TransitionSchedulerOutput(prev_sample=prev_sample, pred_original_sample=x_0)

    def _coins(
        self, p: Tensor, masked: Tensor, s: Tensor, t: Tensor, order: Order, remask: float, uniform: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Which masks are lifted from t to s, and which come back, with chance sigma (2503.00307)."""
        survival = self._survival.to(masked.device)
        at_s, at_t = _spread(survival[s + 1], masked.ndim), _spread(survival[t + 1], masked.ndim)
        sigma = ((1 - at_s) / at_t.clamp(min=1e-300)).clamp(max=remask)
        lifted = masked & (uniform < (at_s - (1 - sigma) * at_t) / (1 - at_t))
        if order != "random":
            score = p.amax(-1) if order == "confidence" else -torch.special.entr(p).sum(-1)
            score = score.masked_fill(~masked, -math.inf).flatten(1)
            rank = score.argsort(stable=True, dim=1, descending=True).argsort(1)
            lifted = (rank < lifted.flatten(1).sum(1, keepdim=True)).reshape(masked.shape)
        return lifted, ~masked & (uniform < sigma)

    def __len__(self) -> int:
        return len(self.betas)

    def _check_states(self, name: str, states: Tensor) -> None:
        if states.dtype != torch.int64:
            raise ValueError(f"`{name}` must be states, int64 in [0, {self.num_states}), and is {states.dtype}.")

    def _require_absorbing(self, name: str, cure: str) -> None:
        if self.kernel != "absorbing":
            raise ValueError(f"`{name}` is for the kernel absorbing, and `kernel` is {self.kernel}. {cure}")


def _checked_betas(trained_betas: Numbers | None, num_train_timesteps: int) -> Tensor:
    if trained_betas is None:
        return 1 / torch.arange(num_train_timesteps, 0, -1, dtype=torch.float64)
    betas = torch.as_tensor(trained_betas, dtype=torch.float64, device="cpu").clone()
    if betas.shape != (num_train_timesteps,):
        raise ValueError(
            f"`trained_betas` must hold num_train_timesteps = {num_train_timesteps} values, and has shape "
            f"{tuple(betas.shape)}. To make them anew for another length pass trained_betas=None."
        )
    if not bool(((betas > 0) & (betas <= 1)).all()) or bool((betas[:-1] == 1).any()):
        raise ValueError(
            "`trained_betas` must lie in (0, 1], only the last may be 1; they lie in "
            f"[{betas.min():g}, {betas.max():g}]."
        )
    left = float((1 - betas).prod())
    if left > MAX_TERMINAL_SURVIVAL:
        raise ValueError(
            f"`trained_betas` must let at most {MAX_TERMINAL_SURVIVAL} of the states survive the chain, and let "
            f"{left:.3g}. Use more noise, such as zero_terminal_snr=True of the beta schedules, or a last beta of 1."
        )
    betas[-1] = 1
    return betas


def _checked_matrix(kernel: Numbers, num_states: int) -> Tensor:
    matrix = torch.as_tensor(kernel, dtype=torch.float64, device="cpu").clone()
    if matrix.shape != (num_states, num_states):
        raise ValueError(
            f"`kernel` must be a matrix of num_states x num_states = {num_states} x {num_states}, and has shape "
            f"{tuple(matrix.shape)}. Give `num_states` as many as it has rows."
        )
    off = float((matrix.sum(1) - 1).abs().max())
    if not bool((matrix >= 0).all()) or off > 1e-6:
        raise ValueError(
            f"`kernel` must be a matrix of chances whose rows add up to 1; its least entry is {matrix.min():g}, and a "
            f"row is off by {off:.2g}. Divide each row by its sum (columns are where a state goes)."
        )
    return matrix


def _neighbours(num_states: int) -> Tensor:
    """Half to the left, half to the right; who would leave stays. Its Q(r) are the heat kernels of a line."""
    half = torch.full((num_states - 1,), 0.5, dtype=torch.float64)
    matrix = torch.diag(half, 1) + torch.diag(half, -1)
    matrix[0, 0] = matrix[-1, -1] = 0.5
    return matrix


def _spread(values: Tensor, ndim: int) -> Tensor:
    """(batch,) as (batch, 1, ...) of `ndim` axes."""
    return values.reshape(-1, *[1] * (ndim - 1))


def _one_hot(states: Tensor, num_states: int) -> Tensor:
    return (states.unsqueeze(-1) == torch.arange(num_states, device=states.device)).double()


def _uniform(sample: Tensor, count: int, generator: Generators) -> list[Tensor]:
    """`count` tensors of uniform numbers in float64 of the shape of `sample`, each sample's from its own generator."""
    if not isinstance(generator, list):
        device = sample.device if generator is None else generator.device
        numbers = torch.rand((count, *sample.shape), generator=generator, dtype=torch.float64, device=device)
    elif len(generator) != len(sample):
        raise ValueError(f"`generator` must be one for each of {len(sample)} samples, and has {len(generator)}.")
    else:
        shape = (count, *sample.shape[1:])
        rows = [torch.rand(shape, generator=g, dtype=torch.float64, device=g.device) for g in generator]
        numbers = torch.stack(rows, 1)
    return list(numbers.to(sample.device).unbind(0))


def _draw(weights: Tensor, uniform: Tensor) -> Tensor:
    """A state for each place by its weights (batch, ..., K): where the distribution function passes `uniform`."""
    cumulated = weights.cumsum(-1).contiguous()
    return torch.searchsorted(cumulated, uniform.unsqueeze(-1) * cumulated[..., -1:], right=True).squeeze(-1)


def _require_one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"`{name}` must be one of {', '.join(allowed)}, and is {value!r}.")
