"""Is the operator what it says, and does the method find the right answer where that is known?

The operator's adjoint is compared with the operator itself. Then a Gaussian picture is measured, and the draws of the
method, with the network that is exactly right for such pictures under the model's own noise schedule, with exact draws.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from logsnr.pipelines.pipeline_restoration import RestorationPipeline
from logsnr.pipelines.restoration_operators import Operator
from logsnr.repair.exact_gaussian import draw_prior, exact_network, exact_posterior
from logsnr.repair.operators import make_operator
from logsnr.repair.plan import Restoration, explaining
from logsnr.settings.damage import Damage

DRAWS = 64
_ADJOINT = 1e-4
_OFF, _SPREAD = 0.3, (0.8, 1.25)
"""What is good: see `compare`."""
_QUIET = 2e-3
"""The sigma at which the pipeline takes a measurement without noise."""


def check(restoration: Restoration) -> str:
    """Operator and method on Gaussian pictures of the model's size, in words. Raises ModelError where the method can't
    take the operator."""
    options = restoration.options
    operator = _operator(restoration)
    size = "x".join(map(str, operator.shape))
    if not operator.linear:
        return f"Check: {options.damage} isn't linear, so no exact answer is known, and nothing was compared."
    wrong = operator.adjoint_error()
    adjoint = f"the adjoint of {options.damage} is off by {wrong:.0e} of its size; " if wrong > _ADJOINT else ""
    mean_error, spread = compare(restoration, operator)
    good = mean_error < _OFF and _SPREAD[0] <= spread <= _SPREAD[1]
    cure = "more --steps" + ("" if options.method == "moment" else ", or --method moment")
    return (
        f"Check: {'good' if good else f'not good, try {cure}'}. On Gaussian pictures of {size} whose answer is known, "
        f"{adjoint}the mean of {DRAWS} draws by {options.method} is {mean_error:.2f} posterior standard deviations off "
        f"(of as many exact draws {1 / math.sqrt(DRAWS):.2f}, good below {_OFF}), and their standard deviation is "
        f"{spread:.2f} times the exact one (good from {_SPREAD[0]} to {_SPREAD[1]})."
    )


def compare(restoration: Restoration, operator: Operator) -> tuple[float, float]:
    """Root mean square error of the mean of `DRAWS` draws, in exact posterior standard deviations, and the ratio of
    their standard deviation to the exact one."""
    options, scheduler = restoration.options, restoration.pipeline.scheduler
    network: Any = exact_network(operator.shape, scheduler)
    generator = torch.Generator().manual_seed(options.seed)
    measurement = operator.measure(draw_prior(operator.shape, generator), generator)
    noise_std = max(operator.noise_std, _QUIET)
    mean, exact = exact_posterior(operator, measurement, noise_std, DRAWS, generator)
    pipeline = RestorationPipeline(network, scheduler)
    pipeline.set_progress_bar_config(disable=True)  # type: ignore[no-untyped-call]
    with explaining():
        drawn: Any = pipeline(
            measurement.float(),
            operator,
            method=options.method,
            num_samples=DRAWS,
            num_inference_steps=options.steps,
            generator=options.seed,
            output_type="pt",
        )
    draws = drawn.images[0].double()
    sd = float((exact - mean).square().mean().sqrt())
    off = float((draws.mean(0) - mean[0]).square().mean().sqrt())
    return off / sd, float(draws.std(0).square().mean().sqrt()) / sd


def _operator(restoration: Restoration) -> Operator:
    """The operator on pictures of the model's size, or the next that can be shrunk so many times."""
    damage, (channels, *sides) = restoration.options.damage, restoration.pipeline.image_shape
    height, width = (-(-side // damage.factor) * damage.factor for side in sides)
    mask = None
    if restoration.mask is not None:
        before = Damage(damage.steps[: damage.names.index("mask")], 0.0).factor
        mask = _fitted(restoration.mask, (height // before, width // before))
    return make_operator(damage, (channels, height, width), mask, restoration.options.seed)


def _fitted(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """A mask of that size that is like another, and hides and shows something."""
    share = F.adaptive_avg_pool2d(mask.double()[None, None], size)[0, 0]
    known = (share > 0.5) | (share == share.max())
    return known & (share > share.min())
