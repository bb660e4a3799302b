"""The plain cross-entropy of states that noise took, all noise levels alike.

    sum over places of noise of -log p(x_0 | x_t)  /  (length  mean over t of the share of noise)

Places of noise are the masks of the absorbing kernel, 1 - alpha_bar_t of all; of the other kernels, where nobody sees
which they are, all places. It is the cross-entropy of such places, but for a factor that doesn't depend on the batch:
so it is linear in the samples. (MaskGIT, 2202.04200, eq. 2, is trained so.)
"""

from __future__ import annotations

from torch import Tensor

from logsnr.objectives.states import StateObjective, cross_entropies
from logsnr.settings.objective import CrossEntropyConfig


class CrossEntropyObjective(StateObjective):
    """The cross-entropy of states that noise took, in nats; its settings are `CrossEntropyConfig()`."""

    config = CrossEntropyConfig

    def loss_of(self, logits: Tensor, clean: Tensor, x_t: Tensor, timesteps: Tensor) -> Tensor:
        of_masks = self.schedule.kernel == "absorbing"
        share = float(1 - self.schedule.alphas_cumprod.mean()) if of_masks else 1.0
        return cross_entropies(self.schedule, logits, clean, x_t).mean() / share
