"""What restoration.py and deepinv_restoration.py have in common: the seven tasks, and a count of what a network did.

Both sides load this file, each in its own environment, so it imports torch alone and is handed the module of operators.
"""

from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

NOISE_STD = 0.05  # on [0, 1]
TASKS = ("box", "random", "gaussian", "motion", "x2", "x4", "gray")
WORDS = {
    "box": "a box in the middle missing, 40 % of the side",
    "random": "70 % of the pixels missing, at random",
    "gaussian": "Gaussian blur, standard deviation 1.5 pixels, circular",
    "motion": "motion blur, 9 pixels at 45 degrees, circular",
    "x2": "squares of 2x2 pixels averaged",
    "x4": "squares of 4x4 pixels averaged",
    "gray": "luma alone; where there is one channel, 90 % of the pixels missing in its place",
}


def make_operator(task: str, shape: tuple[int, int, int], operators: ModuleType) -> Any:
    """The operator of one of TASKS on images of `shape`, (channels, height, width); a random one by a fixed seed."""
    channels, height, width = shape
    if task in ("gaussian", "motion"):
        kernel = operators.gaussian_kernel(1.5) if task == "gaussian" else operators.motion_kernel(9, 45)
        return operators.Blur(shape, kernel, NOISE_STD, boundary="circular")
    if task in ("x2", "x4"):
        return operators.Downscale(shape, int(task[1:]), NOISE_STD, kernel="average")
    if task == "gray" and channels == 3:
        return operators.Gray(shape, NOISE_STD)
    known = torch.ones(height, width, dtype=torch.bool)
    if task == "box":
        side, top, left = round(0.4 * height), round(0.3 * height), round(0.3 * width)
        known[top : top + side, left : left + side] = False
    else:
        missing = 0.7 if task == "random" else 0.9
        known = torch.rand(height, width, generator=torch.Generator().manual_seed(0)) >= missing
    return operators.Mask(known.expand(shape), NOISE_STD)


class _Passed(torch.autograd.Function):
    """The identity, which tells a `Counter` when a gradient comes back through it."""

    @staticmethod
    def forward(sample: Tensor, counter: "Counter") -> Tensor:
        return sample.view_as(sample)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.counter = inputs[1]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        ctx.counter.backward += len(gradient)
        return gradient, None


class Counter:
    """Pictures that went through a network, `forward`, and gradients that came back, `backward`."""

    def __init__(self, network: nn.Module) -> None:
        self.forward = self.backward = 0
        plain = network.forward

        def counted(sample: Tensor, *arguments: Any, **keywords: Any) -> Any:
            self.forward += len(sample)
            return plain(_Passed.apply(sample, self), *arguments, **keywords)

        network.forward = counted  # type: ignore[method-assign]

    def take(self, pictures: int) -> tuple[float, float]:
        """Both for each of so many pictures, since the last call."""
        counts = self.forward / pictures, self.backward / pictures
        self.forward = self.backward = 0
        return counts
