"""The likelihood of a run's model, in bits per dimension, on held-out and on training images.

What a model gives up on images that it hasn't seen, the gap between the two, is the other sign of memorisation: a model
that has learned the training images by heart needs fewer bits for them. The images are chosen at random by a fixed
seed, and so are noise and steps: the same images every time, kept in the run folder by all that decides the figure.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from logsnr.base.files import digest_of
from logsnr.data.seeded import Split
from logsnr.evaluation.likelihood import elbo
from logsnr.evaluation.ode import ode_likelihood
from logsnr.evaluation.subject import Subject, kept_json
from logsnr.settings.options import EvaluateOptions

_BATCH = 64


def bound(subject: Subject, options: EvaluateOptions, split: Split) -> dict[str, Any]:
    """The ELBO of some images of one part of the data: the fields of `logsnr.evaluation.likelihood.Elbo`."""
    images = _count(subject, options.elbo_images, split)
    decisive = _decisive(subject, images, split, options.elbo_timesteps, options.respace)
    return kept_json(
        subject.folder / f"elbo-{decisive}.json",
        lambda: dataclasses.asdict(
            elbo(
                subject.denoiser,
                subject.data.in_order(split, _BATCH, images),
                num_images=images,
                bits=subject.data.examples.bits,
                timesteps=options.elbo_timesteps,
                respace=options.respace,
            )
        ),
    )


def flow(subject: Subject, options: EvaluateOptions, split: Split) -> dict[str, Any]:
    """The ODE likelihood of some images: the fields of `logsnr.evaluation.ode.OdeLikelihood`."""
    images = _count(subject, options.ode_images, split)
    return kept_json(
        subject.folder / f"ode-{_decisive(subject, images, split)}.json",
        lambda: dataclasses.asdict(
            ode_likelihood(
                subject.denoiser,
                subject.data.in_order(split, _BATCH, images),
                num_images=images,
                bits=subject.data.examples.bits,
            )
        ),
    )


def gap(held_out: dict[str, Any], train: dict[str, Any]) -> tuple[float, float]:
    """How many bits more held-out images need than training images, and its standard error."""
    one, other = held_out["bits_per_dim"], train["bits_per_dim"]
    return one["total"] - other["total"], math.hypot(one["standard_error"], other["standard_error"])


def _count(subject: Subject, wanted: int, split: Split) -> int:
    return min(wanted, len(subject.data) if split == "train" else subject.data.num_held_out)


def _decisive(subject: Subject, *values: Any) -> str:
    data = subject.data
    return digest_of(repr((subject.digest, data.fingerprint, *values)).encode())
