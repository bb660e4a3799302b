"""What moves the weights: AdamW, or Muon on the matrices and AdamW on the rest.

Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/) takes of the momentum of a matrix, U S V^T, only
U V^T: directions in which gradients are rarely large are learned as fast as the others. With momentum M and gradient G
of a weight W, of a rows and b columns (of a convolution: a outputs, b inputs times the size of its kernel),

    M <- mu M + (1 - mu) G,    W <- W - lr 0.2 sqrt(max(a, b)) polar((1 - mu) G + mu M),

where the factor gives the update the size that AdamW's has (Liu et al. 2025, arXiv 2502.16982, section 2.2), so that
one learning rate does for both. polar is approached by five Newton-Schulz iterations. They are done in float32, on all
matrices of a shape at once: `torch.optim.Muon` and the one of pytorch-optimizer compute in half precision one by one or
by shape, which takes 20 to 300 times as long on processors without it, as long as the step itself.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from logsnr.settings.run import TrainConfig

_MOMENTUM, _ITERATIONS = 0.95, 5
_QUINTIC = (3.4445, -4.7750, 2.0315)
"""a, b, c of the iteration X <- a X + b (X X^T) X + c (X X^T)^2 X: Jordan's, steepest at 0."""


def make_optimizers(
    network: nn.Module, options: TrainConfig, trunk: nn.Module | None = None
) -> list[torch.optim.Optimizer]:
    """The optimizers that share the network's parameters among them; the learning rate is set in each step.

    trunk: the part of the network that faces the data, where that isn't all of it.
    """
    matrices = hidden_matrices(network, trunk) if options.optimizer == "muon" else []
    chosen = {id(matrix) for matrix in matrices}
    rest = torch.optim.AdamW(
        [parameter for parameter in network.parameters() if id(parameter) not in chosen],
        betas=(0.9, options.adam_beta2),
        weight_decay=options.weight_decay,
        fused=True,
    )
    return [rest, Muon(matrices, weight_decay=options.weight_decay)] if matrices else [rest]


def hidden_matrices(network: nn.Module, trunk: nn.Module | None = None) -> list[Tensor]:
    """The weights of all linear layers and convolutions but the first and the last layer of the trunk (all of the
    network where none is given), which face the data; where it begins with embeddings, these do."""
    kinds = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
    facing = [module for module in (trunk or network).modules() if isinstance(module, (*kinds, nn.Embedding))]
    outer = {*facing[:1], *facing[-1:]}
    return [module.weight for module in network.modules() if isinstance(module, kinds) and module not in outer]


class Muon(torch.optim.Optimizer):
    """Orthogonalised momentum, of parameters with at least two axes, the first that of the outputs.

    Args:
        params: the parameters.
        lr: the learning rate, of about the size of AdamW's.
        weight_decay: each step takes lr * weight_decay of the weights away.
    """

    def __init__(self, params: list[Tensor], lr: float = 1e-3, weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """One step by the gradients that are there."""
        assert closure is None, "nothing here evaluates a loss anew"
        for group in self.param_groups:
            for weights in _by_shape(group["params"]):
                gradients = [weight.grad for weight in weights if weight.grad is not None]
                momenta = [self._momentum(weight) for weight in weights]
                torch._foreach_lerp_(momenta, gradients, 1 - _MOMENTUM)
                ahead = torch._foreach_lerp(gradients, momenta, _MOMENTUM)
                directions = polar(torch.stack([_wide(x) for x in ahead]))
                updates = [_shaped(x, weight) for x, weight in zip(directions, weights, strict=True)]
                torch._foreach_mul_(weights, 1 - group["lr"] * group["weight_decay"])
                torch._foreach_add_(weights, updates, alpha=-group["lr"] * 0.2 * directions.shape[-1] ** 0.5)

    def _momentum(self, weight: Tensor) -> Tensor:
        state = self.state[weight]
        if not state:
            state["momentum"] = torch.zeros_like(weight)
        momentum: Tensor = state["momentum"]
        return momentum


def polar(matrices: Tensor) -> Tensor:
    """About U V^T of matrices U S V^T, (count, rows, columns), rows <= columns: with singular values from 0.7 to 1.2.

    Those that are less than a hundredth of the root of all their squares come out smaller.
    """
    a, b, c = _QUINTIC
    x: Tensor = matrices / matrices.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-20)
    for _ in range(_ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x


def _by_shape(weights: Iterable[Tensor]) -> Iterable[list[Tensor]]:
    """Those that have a gradient, by the shape of their matrices, lying or standing."""
    found = defaultdict[tuple[int, int], list[Tensor]](list)
    for weight in weights:
        if weight.grad is not None:
            rows, columns = len(weight), weight.numel() // len(weight)
            found[min(rows, columns), max(rows, columns)].append(weight)
    return found.values()


def _wide(weight: Tensor) -> Tensor:
    """The matrix of a weight, with no more rows than columns."""
    matrix = weight.flatten(1)
    return matrix if matrix.shape[0] <= matrix.shape[1] else matrix.mT


def _shaped(wide: Tensor, weight: Tensor) -> Tensor:
    """The inverse of `_wide`, in the shape of `weight`."""
    return (wide if wide.shape[0] == weight.shape[0] else wide.mT).reshape(weight.shape)
