"""The variational bound of states, in bits a token: T times the mean of its terms, exact for every kernel.

    T L_t = w_t e_t,   t from an even cover of the chain        (Austin et al., 2107.03006, eq. 1)

Of the absorbing kernel it is the cross-entropy of masks, weighted by T (alpha_bar_{t-1} - alpha_bar_t) /
(1 - alpha_bar_t) (2406.07524, eq. 10): masks count more where there are few. The sum is then the upper Riemann sum of
the integral of e over alpha_bar, the same whatever the schedule, and comes down to it as 1 / T.
"""

from __future__ import annotations

from torch import Tensor

from logsnr.objectives.states import StateObjective, bound_errors
from logsnr.settings.objective import TransitionBoundConfig


class TransitionBoundObjective(StateObjective):
    """The bound on -log2 p(x_0), in bits a token; its settings are `TransitionBoundConfig()`."""

    config = TransitionBoundConfig

    def loss_of(self, logits: Tensor, clean: Tensor, x_t: Tensor, timesteps: Tensor) -> Tensor:
        return (bound_errors(self.schedule, logits, clean, x_t, timesteps) * self.weights[timesteps]).mean()
