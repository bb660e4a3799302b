"""Held-out images, damaged and repaired: what the figures of repair are made of, kept in the run folder.

    RUN/evaluation/restored-<hash>/00017.safetensors   the draws of the held-out image at place 17, and how each fits

The hash is of all that decides a draw: weights, data, damage, method, steps, number of draws, seed, and the code of the
methods. An image has its own seeds, by its place among the held-out ones, each of a stream of its own: for what is
random in the damage (each image has a mask of its own), for the noise of the measurement, and for the draws. So a
repair that was stopped goes on with the next image, and more images begin with those that are there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from logsnr.base.files import digest_of, replacing_file
from logsnr.base.seeds import sample_seed
from logsnr.data.images import ImageData
from logsnr.evaluation.wiener import FittedGaussian, fit_gaussian, number_to_fit
from logsnr.models.gaussian import Directions, GaussianNetwork
from logsnr.pipelines.restoration_operators import Operator
from logsnr.repair.operators import make_operator
from logsnr.schedulers.scheduling_beta import BetaScheduler
from logsnr.settings.damage import Damage

_BATCH = 128


@dataclass(frozen=True, eq=False)
class Case:
    """An image, and what is left of it."""

    place: int
    """Among the held-out images."""
    original: Tensor
    """(channels, height, width) in [0, 1]."""
    operator: Operator
    measurement: Tensor
    """(1, *operator.measurement_shape)."""
    seed: int
    """Of its first draw; draw j has `seed + j`."""

    @property
    def hidden(self) -> Tensor:
        """Pixels that the measurement doesn't show, bool (channels, height, width); all where it shows none alone, or
        all, behind noise."""
        observed = self.operator.observed()
        if observed is None or bool(observed.all()):
            return torch.ones_like(self.original, dtype=torch.bool)
        return ~observed


@dataclass(frozen=True, eq=False)
class Repairs:
    """What was drawn of some cases."""

    draws: Tensor
    """(n, draws, channels, height, width) in [0, 1], of the depth of the data."""
    fit: Tensor
    """Root mean square of y - A x over the noise's standard deviation, (n, draws); about 1 is right, nan without
    noise."""

    @property
    def means(self) -> Tensor:
        """(n, channels, height, width)."""
        return self.draws.mean(1)


def damaged(data: ImageData, damage: Damage, num: int, seed: int) -> list[Case]:
    """At most `num` held-out images, always the same, damaged. Raises ConfigError where they can't be so."""
    batches = list(data.in_order("held_out", _BATCH, num))
    places = torch.cat([batch.positions for batch in batches]).tolist()
    images = torch.cat([batch.clean for batch in batches]).add(1).div(2)
    shape = (images.shape[1], images.shape[2], images.shape[3])
    fixed = None if damage.random else make_operator(damage, shape)
    cases = []
    for place, image in zip(places, images, strict=True):
        operator = fixed or make_operator(damage, shape, seed=sample_seed(seed, place, "operator"))
        measurement = operator.measure(image.unsqueeze(0), sample_seed(seed, place, "degrade"))
        cases.append(Case(place, image, operator, measurement, sample_seed(seed, place, "restore") >> 1))
    return cases


def kept(folder: Path, bits: int | None, cases: Sequence[Case], repair: Callable[[Case], Tensor], what: str) -> Repairs:
    """The draws of each case: from `folder` where they are there, else made by `repair` and kept, with a progress bar.

    repair: a case -> draws (draws, channels, height, width), which are cut off at 0 and 1 and rounded to the depth.
    """
    most = 1 if bits is None else (1 << bits) - 1
    draws, fits = [], []
    for case in tqdm(cases, desc=what, unit="image", leave=False, delay=2):
        path = folder / f"{case.place:05}.safetensors"
        if not path.exists():
            made = repair(case).clamp(0, 1).float()
            if bits is not None:
                made = made.mul(most).round().to(torch.uint8 if bits == 8 else torch.uint16)
            with replacing_file(path) as temporary:
                save_file(
                    {"samples": made, "fit": case.operator.fit(made.float().div(most), case.measurement)}, temporary
                )
        found = load_file(path)
        draws.append(found["samples"].float().div(most))
        fits.append(found["fit"])
    return Repairs(torch.stack(draws), torch.stack(fits))


def by_network(pipeline: Any, method: str, steps: int | None, draws: int) -> Callable[[Case], Tensor]:
    """What `kept` repairs a case with: a RestorationPipeline, of no class in particular."""

    def repair(case: Case) -> Tensor:
        found = pipeline(
            case.measurement.to(pipeline.device),
            case.operator,
            method=method,
            num_samples=draws,
            num_inference_steps=steps,
            generator=case.seed,
            output_type="pt",
        )
        images: Tensor = found.images[0]
        return images.cpu()

    return repair


def by_gaussian(gaussian: FittedGaussian, draws: int) -> Callable[[Case], Tensor]:
    """What `kept` repairs a case with: exact draws of a Gaussian's posterior."""

    def repair(case: Case) -> Tensor:
        return gaussian.posterior_draws(case.operator, case.measurement, range(case.seed, case.seed + draws))

    return repair


def of_gaussian(cases: Sequence[Case], gaussian: FittedGaussian, seed: int) -> list[Case]:
    """As many cases with the same operators, whose originals are draws of the Gaussian, which may leave [0, 1]."""
    made = []
    for case in cases:
        generator = torch.Generator().manual_seed(sample_seed(seed, case.place, "original"))
        original = gaussian.draw([generator])
        noise = torch.Generator().manual_seed(sample_seed(seed, case.place, "degrade"))
        measurement = case.operator.measure(original, noise).float()
        made.append(dataclasses.replace(case, original=original[0].float(), measurement=measurement))
    return made


def exact_network(gaussian: FittedGaussian, schedule: BetaScheduler) -> GaussianNetwork:
    """The network of that Gaussian, which sees images in [-1, 1]."""
    channels, size, _ = gaussian.shape
    network: GaussianNetwork = GaussianNetwork(size, channels, channels)
    covariance = Directions(gaussian.basis, 4 * gaussian.variances, 4 * gaussian.rest)
    return network.of((2 * gaussian.mean - 1).view(gaussian.shape), covariance, schedule.alphas_cumprod)


def gaussian_of(data: ImageData) -> FittedGaussian:
    """The Gaussian that fits the training images best."""
    shape = data.examples.shape
    num = number_to_fit(shape[0] * shape[1] * shape[2])
    return fit_gaussian(torch.cat([batch.clean for batch in data.in_order("train", _BATCH, num)]).add(1).div(2))


def folder_name(*decisive: Any) -> str:
    """The name of the folder of draws that all this decides."""
    return f"restored-{digest_of(repr(decisive).encode())}"
