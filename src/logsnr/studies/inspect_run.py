"""What `logsnr inspect run` says of a trained model, a picture and a line of words each.

- `loss.png`: its error on held-out and on training images, by log-SNR: where it could be better, and where it has
  learned the training images rather than what they have in common.
- `bits.png`: what each noise level costs of the variational bound (see `logsnr.objectives.variational_bound`; of
  states `logsnr.evaluation.state_bound`). Of images bits are spent on what can be seen as well as on what can't: most
  go to the last, faintest noise.
- `film.png`: how two images come out of noise, x_t above and the clean image that the network predicts below.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from logsnr.data.seeded import Split
from logsnr.evaluation.bits import bound
from logsnr.evaluation.subject import Subject
from logsnr.evaluation.text_bits import text_bound
from logsnr.media.film import Frame
from logsnr.media.plots import bits_by_log_snr_figure, loss_by_log_snr_figure, save_png
from logsnr.objectives.held_out import LOG_SNR_EDGES, binned_means, errors_by_timestep
from logsnr.publishing.pictures import sample_film
from logsnr.settings.options import EvaluateOptions

_SAMPLES = 2048
_ALIKE = {True: "correlation with the end above 0.9", False: "more than 0.9 of it as in the end"}
"""What resembles the end, of numbers or of states."""


def inspect_run(subject: Subject, options: EvaluateOptions, out: Path) -> str:
    """Draw the three pictures into the folder `out`, and return what there is to say of them."""
    bits = _bits if subject.task.parts.numbers else _bits_of_states
    lines = (
        _loss(subject, out / "loss.png"),
        bits(subject, options, out / "bits.png"),
        _film(subject, out / "film.png"),
    )
    return "\n\n".join(lines)


# Loss


def _loss(subject: Subject, path: Path) -> str:
    noun = subject.task.parts.noun
    parts: list[Split] = ["held_out", "train"] if subject.data.num_held_out else ["train"]
    weights = subject.task.objective.weights.double()
    curves: dict[str, list[float]] = {}
    means, said = {}, []
    for split in parts:
        errors, timesteps = errors_by_timestep(subject.task.objective, subject.denoiser, subject.data, split, _SAMPLES)
        errors = errors.double()
        log_snr = subject.schedule.log_snr(timesteps).double()
        weighted = errors * weights[timesteps]
        name = "training" if split == "train" else "held-out"
        means[name] = (float(weighted.mean()), float(weighted.std()) / len(weighted) ** 0.5)
        curves[name] = binned_means(log_snr, errors)
        if split == parts[0]:
            low, high = _middle_half(log_snr, weighted)
            said.append(f"half of it between log-SNR {low:.1f} and {high:.1f}")
    save_png(loss_by_log_snr_figure(LOG_SNR_EDGES, curves), path)
    text = " and ".join(f"{mean:.4f} ± {error:.4f} on {name} {noun}s" for name, (mean, error) in means.items())
    return (
        f"Loss, weighted as in training: {text}; {said[0]}. By log-SNR, unweighted (the outer "
        f"bins with all that lies beyond): {path}"
    )


def _middle_half(log_snr: Tensor, values: Tensor) -> tuple[float, float]:
    """Between which log-SNRs the second and third quarter of the sum of `values` lie."""
    order = log_snr.argsort()
    share = values[order].cumsum(0) / values.sum()
    low, high = (int(torch.searchsorted(share, at)) for at in (0.25, 0.75))
    return float(log_snr[order[low]]), float(log_snr[order[high]])


# Bits


def _bits(subject: Subject, options: EvaluateOptions, path: Path) -> str:
    split, name = _measured_on(subject)
    found: dict[str, Any] = bound(subject, options, split)
    terms = found["bits_per_dim"]
    steps = torch.linspace(0, len(subject.schedule) - 1, found["chain_length"], dtype=torch.float64).round().long()
    log_snr = subject.schedule.log_snr(steps).double()
    kl = torch.tensor([math.nan if term is None else term for term in terms["kl_terms"]], dtype=torch.float64)
    # a step that wasn't evaluated costs about what its neighbours do
    known = kl.isfinite()
    kl = torch.from_numpy(np.interp(np.arange(len(kl)), np.flatnonzero(known), kl[known]))
    kl *= terms["kl"] / kl.sum()
    edges, binned = _bits_in_bins(log_snr, kl)
    ends = {name: terms[name] for name in ("prior", "decoder")}
    save_png(bits_by_log_snr_figure(edges, binned, ends, "bits per dimension"), path)
    low, high = _middle_half(log_snr[1:], kl)
    return (
        f"ELBO on {name} {subject.task.parts.noun}s: {terms['total']:.4f} ± "
        f"{terms['standard_error']:.4f} bits per dimension, of which the prior takes {terms['prior']:.4f}, the decoder "
        f"{terms['decoder']:.4f} and the steps {terms['kl']:.4f}, half of that between log-SNR {low:.1f} and "
        f"{high:.1f}. By log-SNR: {path}"
    )


def _bits_of_states(subject: Subject, options: EvaluateOptions, path: Path) -> str:
    split, name = _measured_on(subject)
    found = text_bound(subject, options, split)
    terms, token = found["bits_per_dim"], found["dim"]
    spent = np.array(terms["by_log_snr"])
    save_png(bits_by_log_snr_figure(LOG_SNR_EDGES, spent, {}, f"bits a {token}"), path)
    low, high = np.interp([0.25, 0.75], np.concatenate([[0.0], spent.cumsum() / spent.sum()]), LOG_SNR_EDGES)
    return (
        f"Bound on {name} {subject.task.parts.noun}s: {terms['total']:.4f} ± {terms['standard_error']:.4f} bits a "
        f"{token}, half of it between log-SNR {low:.1f} and {high:.1f}. By log-SNR (the outer bins with all that lies "
        f"beyond): {path}"
    )


def _measured_on(subject: Subject) -> tuple[Split, str]:
    """The part of the data that the bound is of, and what to call it."""
    return ("held_out", "held-out") if subject.data.num_held_out > 1 else ("train", "training")


def _bits_in_bins(log_snr: Tensor, kl: Tensor) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Edges of bins of 1 over the whole schedule, and the bits in each: all of `kl`.

    The step from t - 1 to t is spread evenly over the log-SNRs between them: at the ends it may be wider than a bin.
    Where the chain ends in pure noise (-inf), its last step ends with the lowest bin.
    """
    finite = log_snr[log_snr.isfinite()]
    edges = np.arange(math.ceil(finite.min()) - 1, math.floor(finite.max()) + 2, dtype=np.float64)
    from_noise = log_snr.clamp(min=float(edges[0])).flip(0).numpy()
    up_to = np.concatenate([[0.0], kl.flip(0).cumsum(0).numpy()])
    return edges, np.diff(np.interp(edges, from_noise, up_to))


# Film


def _film(subject: Subject, path: Path) -> str:
    pipeline = subject.pipeline()
    frames = sample_film(pipeline)
    save_png(subject.task.parts.medium_of(pipeline).film(frames), path)
    settled = _settled(frames)
    return (
        f"Film of two {subject.task.parts.noun}s, seeds 0 and 1: what the network predicts has its final structure "
        f"from {settled.noise:.0%} noise on ({_ALIKE[subject.task.parts.numbers]}). {path}"
    )


def _settled(frames: list[Frame]) -> Frame:
    """The first frame from which on what is predicted resembles the last in every image."""
    last = frames[-1].predicted.flatten(1)
    found = frames[-1]
    for frame in reversed(frames):
        if min(_alike(*pair) for pair in zip(frame.predicted.flatten(1), last, strict=True)) <= 0.9:
            break
        found = frame
    return found


def _alike(a: Tensor, b: Tensor) -> float:
    """The correlation of two samples of numbers, or how much of two samples of states is the same."""
    if not a.is_floating_point():
        return float((a == b).double().mean())
    return float(torch.corrcoef(torch.stack([a, b]))[0, 1])
