"""How an image comes out of noise: x_t as the network sees it, and the clean image that it predicts there.

The network's output at x_t = a_t x_0 + s_t ε, a_t² = ᾱ_t, s_t² = 1 − ᾱ_t, means one x̂_0, whatever it was trained to
predict: with output m,

    ε:        x̂_0 = (x_t − s m) / a           x_0:      x̂_0 = m
    v:        x̂_0 = a x_t − s m               x_0 − ε:  x̂_0 = (x_t + s m) / (a + s)

(v: Salimans & Ho 2022, arXiv 2202.00512, appendix D.) For a network that is exactly right, x̂_0 = E[x_0 | x_t].

States, such as letters, have no mean: x̂_0 is the likeliest of each place, which the scheduler's step says itself.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import torch


class Frame(NamedTuple):
    """One evaluation of the network. Images are (batch, channels, height, width), about in [−1, 1], not clipped; states
    are int64, (batch, length)."""

    timestep: float
    """t; solvers with steps between the steps have fractions."""
    noise: float
    """1 − ᾱ_t, the share of noise in the variance of x_t, or the share of the states that noise took."""
    sample: torch.Tensor
    """x_t."""
    predicted: torch.Tensor
    """x̂_0."""


def record(scheduler: Any, frames: int, on_step: Callable[[int, int], None] = lambda done, total: None) -> list[Frame]:
    """The next sampling run with `scheduler` puts `frames` of its steps, evenly chosen, into the returned list.

    `scheduler.step(model_output, t, sample)` is where x_t and the network's (guided) output meet in any pipeline, so
    it is what is recorded, on this instance alone. Solvers that work on x_t / a_t (Euler, Heun) give the network
    `scale_model_input(sample, t)`, which is x_t again. Between two timesteps the log-SNR is interpolated.

    on_step: called with the number of steps done and their total after each.
    """
    # at zero terminal SNR the log-SNR is −∞, and ε says nothing of x_0: ±60 is as good, and finite
    log_snr = torch.logit(scheduler.alphas_cumprod.double()).clamp(-60, 60)
    step, film, done = scheduler.step, list[Frame](), 0

    def frame(output: torch.Tensor, t: float, x: torch.Tensor) -> Frame:
        low = min(int(t), len(log_snr) - 1)
        at = torch.lerp(log_snr[low], log_snr[min(low + 1, len(log_snr) - 1)], t - low)
        a, s = float(at.sigmoid().sqrt()), float((-at).sigmoid().sqrt())
        m = output[:, : x.shape[1]]  # learned variances come after
        predicted = {
            "epsilon": lambda: (x - s * m) / a,
            "sample": lambda: m,
            "v_prediction": lambda: a * x - s * m,
            "x0_minus_noise": lambda: (x + s * m) / (a + s),
        }[scheduler.config["prediction_type"]]()
        return Frame(t, s**2, x.float().cpu(), predicted.float().cpu())

    @functools.wraps(step)
    def recorded(model_output: torch.Tensor, timestep: Any, sample: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        nonlocal done
        total = len(scheduler.timesteps)
        chosen = done in {round(k * (total - 1) / max(frames - 1, 1)) for k in range(frames)}
        states = not sample.is_floating_point()
        if chosen and not states:
            film.append(frame(model_output, float(timestep), scheduler.scale_model_input(sample, timestep)))
        result = step(model_output, timestep, sample, *args, **kwargs)
        if chosen and states:
            noise = 1 - float(scheduler.alphas_cumprod[int(timestep)])
            film.append(Frame(float(timestep), noise, sample.cpu(), result.pred_original_sample.cpu()))
        done += 1
        on_step(done, total)
        return result

    scheduler.step = recorded
    return film
