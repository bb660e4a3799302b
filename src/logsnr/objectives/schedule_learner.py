r"""A noise schedule that is learned: a monotone curve of log-SNR between two fixed ends.

With u = t / (T - 1) and K segments of shares p_k > 0 that sum to 1, the curve falls from lambda_0 by R in all,

    lambda(u) = lambda_0 - R (p_1 + ... + p_{k-1} + (K u - (k - 1)) p_k)      on the k-th segment,

with slope -d lambda / du = R K p_k. Nine tenths of the shares are a softmax, one is even, so that no step is too small
for float32.

A loss that is an integral over lambda (the weightings elbo, sigmoid and edm) is the mean over u of

    l = (-d lambda / du) h,   h = g(lambda) |x_0 - x_0'|^2 for one image and one noise.

Its expectation depends on the two ends alone, its variance on all of the curve (Kingma et al., 2107.00630, section
5.1). The least variance is where the slope is in proportion to 1 / sqrt(E[h^2 | lambda]) (Euler's and Lagrange's
equation of E[l^2]): where each timestep's loss has the same second moment. There are two ways there.

**variance.** Gradient descent on E[l^2] beside the network's on E[l]. Both come from one backward pass: each image has
its own lambda, whose gradient dl / dlambda goes through x_t, target and weight, and l is linear in the slope; so
dl^2 = 2 l (dl / dlambda dlambda + l / slope dslope) (appendix I.2).

**losses.** E[h^2 | lambda], kept as a running mean in bins of lambda, says directly where the curve must be flat: the
timesteps' losses are the teacher.

The curve stands still in the second half of a run, so that the network ends on the schedule that it is sampled with.
"""

from __future__ import annotations

import torch
from torch import Tensor

from logsnr.objectives.objective import Gather
from logsnr.schedulers.scheduling_beta import BetaScheduler, betas_from_log_snr

SEGMENTS = 20
_BINS, _MEMORY, _EVEN, _LEARNING_RATE = 40, 0.99, 0.1, 0.02


class LearnedCurve(torch.nn.Module):
    """The curve lambda(u) for timesteps 0 .. T - 1; a straight line at first."""

    def __init__(self, total: int, start: float, end: float) -> None:
        super().__init__()
        self.total, self.start, self.range = total, start, start - end
        self.weights = torch.nn.Parameter(torch.zeros(SEGMENTS))

    def shares(self) -> Tensor:
        return (1 - _EVEN) * torch.softmax(self.weights, 0) + _EVEN / SEGMENTS

    def forward(self, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        """Log-SNR and slope -d lambda / du at timesteps (batch,)."""
        place = timesteps / (self.total - 1) * SEGMENTS
        segment = place.long().clamp(max=SEGMENTS - 1)
        shares = self.shares()
        before = shares.cumsum(0) - shares
        fallen = before[segment] + (place - segment) * shares[segment]
        return self.start - self.range * fallen, self.range * SEGMENTS * shares[segment]

    @torch.no_grad()
    def place(self, shares: Tensor) -> None:
        """Make these the shares, as far as the even tenth allows."""
        free = ((shares - _EVEN / SEGMENTS) / (1 - _EVEN)).clamp(min=1e-6)
        self.weights.copy_((free / free.sum()).log())


class ScheduleLearner:
    """Moves a curve by the losses of the batches.

    Args:
        scheduler: T and the ends; whatever lies between is begun anew as a straight line.
        teacher: `variance` or `losses`.
    """

    def __init__(self, scheduler: BetaScheduler, teacher: str, device: torch.device) -> None:
        start, end = scheduler.log_snr(torch.tensor([0, len(scheduler) - 1])).tolist()
        self.curve = LearnedCurve(len(scheduler), start, end).to(device)
        self.teacher = teacher
        self.optimizer = torch.optim.Adam(self.curve.parameters(), betas=(0.9, 0.99))
        weights = self.curve.weights
        self.optimizer.state[weights] = {
            "step": torch.zeros(()),
            "exp_avg": torch.zeros_like(weights),
            "exp_avg_sq": torch.zeros_like(weights),
        }
        self.moments = torch.zeros(2, _BINS, device=device)  # of h^2 in bins of lambda: sums and numbers
        self._kept: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []

    def log_snr(self, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        """Each image's own log-SNR, which gathers a gradient, and the curve's slope there: (batch,)."""
        with torch.no_grad():
            log_snr, slope = self.curve(timesteps)
        return log_snr.requires_grad_(), slope

    def keep(self, timesteps: Tensor, log_snr: Tensor, slope: Tensor, losses: Tensor) -> None:
        """Remember a batch until `learn`. `log_snr` has no gradient yet: the mean of `losses` is about to be
        differentiated."""
        self._kept.append((timesteps, log_snr, slope, losses.detach()))

    def learn(self, gather: Gather, progress: float) -> bool:
        """Move the curve by the batches since the last call, in all processes; whether it moved.

        `progress` is the share of the run's steps that are done.
        """
        kept, self._kept = self._kept, []
        if progress >= 0.5:
            return False
        timesteps, slope, losses = (torch.cat([batch[i] for batch in kept]) for i in (0, 2, 3))
        log_snr = torch.cat([batch[1] for batch in kept]).detach()
        if self.teacher == "losses":
            return self._follow(gather, log_snr, losses / slope)
        gradients = torch.cat([_gradient(batch[1]) for batch in kept]) * len(
            losses
        )  # what was differentiated is a mean
        now, steepness = self.curve(timesteps)
        change = 2 * losses * (gradients * now + losses / slope * steepness)
        (gradient,) = torch.autograd.grad(change.mean() / losses.mean().square(), self.curve.weights)
        self.curve.weights.grad = gather(gradient[None]).mean(0)
        for group in self.optimizer.param_groups:
            group["lr"] = _LEARNING_RATE * (1 - 2 * progress)
        self.optimizer.step()
        return True

    def _follow(self, gather: Gather, log_snr: Tensor, h: Tensor) -> bool:
        """Put the curve's knots where the root of the second moment of h has passed each K-th of its integral."""
        curve = self.curve
        bins = ((curve.start - log_snr) / curve.range * _BINS).long().clamp(0, _BINS - 1)
        new = torch.stack([torch.bincount(bins, weight, _BINS) for weight in (h.square(), torch.ones_like(h))])
        self.moments.mul_(_MEMORY).add_(gather(new.float()[None]).sum(0))
        root = (self.moments[0] / self.moments[1]).sqrt()
        if not bool(torch.isfinite(root).all()):  # a bin that hasn't been seen
            return False
        passed = torch.cat([root.new_zeros(1), root.cumsum(0)]) / root.sum()
        wanted = torch.linspace(0, 1, SEGMENTS + 1, device=root.device)
        at = torch.searchsorted(passed, wanted[1:-1], right=True).clamp(1, _BINS)
        within = (wanted[1:-1] - passed[at - 1]) / (passed[at] - passed[at - 1])
        knots = torch.cat([wanted[:1], (at - 1 + within) / _BINS, wanted[-1:]])
        curve.place(knots.diff())
        return True

    def state(self) -> dict[str, Tensor]:
        adam = self.optimizer.state[self.curve.weights]
        return {
            "schedule.weights": self.curve.weights.detach(),
            "schedule.moments": self.moments,
            **{f"schedule.{name}": value for name, value in adam.items()},
        }

    @torch.no_grad()
    def restore(self, state: dict[str, Tensor]) -> None:
        self.curve.weights.copy_(state["schedule.weights"])
        self.moments.copy_(state["schedule.moments"])
        for name, value in self.optimizer.state[self.curve.weights].items():
            value.copy_(state[f"schedule.{name}"])


def _gradient(leaf: Tensor) -> Tensor:
    assert leaf.grad is not None
    return leaf.grad


def learned_scheduler(scheduler: BetaScheduler, state: dict[str, Tensor]) -> BetaScheduler:
    """`scheduler` with the betas of a learner's `state`."""
    start, end = scheduler.log_snr(torch.tensor([0, len(scheduler) - 1])).tolist()
    curve = LearnedCurve(len(scheduler), start, end).double()
    with torch.no_grad():
        curve.weights.copy_(state["schedule.weights"])
        log_snr, _ = curve(torch.arange(len(scheduler), dtype=torch.float64))
    betas = betas_from_log_snr(log_snr).tolist()
    made = type(scheduler).from_config(scheduler.config, trained_betas=betas)
    assert isinstance(made, BetaScheduler)
    return made
