"""How likely a run's model holds texts: its bound in bits a token, of held-out and of training sequences.

A token that only fills a sequence up, an end of a document after another, counts nowhere in the number of tokens; what
it costs does. Where tokens aren't characters, bits a character stand beside: those of the same text, in which each end
of a document counts as one.

Figures are of sequences chosen at random by a fixed seed, and kept in the run folder by all that decides them.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from logsnr.base.columns import aligned
from logsnr.base.files import digest_of
from logsnr.data.seeded import Split
from logsnr.data.texts import TextExamples
from logsnr.evaluation.bits import gap
from logsnr.evaluation.ngrams import counted
from logsnr.evaluation.ratio import ratio
from logsnr.evaluation.state_bound import state_bound
from logsnr.evaluation.subject import Subject, kept_json
from logsnr.objectives.held_out import LOG_SNR_EDGES
from logsnr.settings.options import EvaluateOptions

_BATCH = 64


def likelihood(subject: Subject, options: EvaluateOptions) -> tuple[dict[str, Any], str]:
    """The bound as it stands in metrics.json, under `elbo`, and in words."""
    if not options.elbo_images:
        return {}, ""
    held_out, train = (text_bound(subject, options, split) for split in ("held_out", "train"))
    more, error = gap(held_out, train)
    examples: TextExamples = subject.data.examples
    token, noun = examples.token, examples.noun
    found = held_out | {"train": train, "gap": more, "gap_standard_error": error}
    bits = found["bits_per_dim"]
    found |= {
        "title": f"ELBO, bits a {token}",
        "direction": "lower is better",
        "value": bits["total"],
        "standard_error": bits["standard_error"],
        "beside": f"of {found['num_images']} held-out {noun}s, {found['draws']} draws each; {more:.2g} ± {error:.2g} "
        f"above as many training {noun}s",
    }
    knows = f"the model knows its training {noun}s better than others" if more > 2 * error else "none beyond its error"
    said = [
        f"ELBO of {found['num_images']} held-out {noun}s: {_shown(bits)} bits a {token}, at most ({found['draws']} "
        f"draws each, of a chain of {found['chain_length']})."
    ]
    if "limit" in found:
        said.append(f"In continuous time it would be {_shown(found['limit'])}.")
    if "bits_per_character" in found:
        said.append(f"That is {_shown(found['bits_per_character'])} bits a character.")
    said.append(
        f"Of {train['num_images']} training {noun}s: {_shown(train['bits_per_dim'])}. The gap is {more:.4f} ± "
        f"{error:.4f}: {knows}. ± is one standard error."
    )
    edges = ["-inf", *(f"{edge:g}" for edge in LOG_SNR_EDGES[1:-1]), "inf"]
    rows = [("log-SNR from", "to", f"bits a {token}")]
    rows += [
        (low, high, f"{value:.4f}")
        for low, high, value in zip(edges[:-1], edges[1:], bits["by_log_snr"], strict=True)
        if round(value, 4)
    ]
    return {"elbo": found}, "\n".join([" ".join(said), aligned(rows)])


def _shown(figure: dict[str, float]) -> str:
    return f"{figure['total']:.4f} ± {figure['standard_error']:.4f}"


def text_bound(subject: Subject, options: EvaluateOptions, split: Split) -> dict[str, Any]:
    """The bound on some sequences of one part of the data, in bits a token, as it stands in metrics.json."""
    data = subject.data
    count = min(options.elbo_images, len(data) if split == "train" else data.num_held_out)
    decisive = (subject.digest, data.fingerprint, count, split, options.elbo_timesteps)
    path = subject.folder / f"elbo-{digest_of(repr(decisive).encode())}.json"
    return kept_json(path, lambda: _measured(subject, split, count, options.elbo_timesteps))


def _measured(subject: Subject, split: Split, count: int, draws: int) -> dict[str, Any]:
    examples: TextExamples = subject.data.examples
    batches = list(subject.data.in_order(split, _BATCH, count))
    clean = torch.cat([batch.clean for batch in batches])
    bound = state_bound(subject.denoiser, batches, num_sequences=count, draws=draws)
    tokens = counted(clean, examples.codec.end_token_id).sum(1)
    spent = bound.by_log_snr.sum(0) / tokens.sum() / math.log(2)
    found: dict[str, Any] = {"bits_per_dim": _bits(bound.bound, tokens) | {"by_log_snr": spent.tolist()}}
    if bound.limit is not None:
        found["limit"] = _bits(bound.limit, tokens)
    if examples.token != "character":
        found["bits_per_character"] = _bits(bound.bound, characters(examples, clean))
    chain = {"chain_length": len(subject.schedule), "draws": draws}
    return found | {"dim": examples.token, "log_snr_edges": list(LOG_SNR_EDGES), "num_images": count} | chain


def _bits(nats: Tensor, counts: Tensor) -> dict[str, float]:
    total, error = ratio(nats / math.log(2), counts)
    return {"total": total, "standard_error": error}


def characters(examples: TextExamples, clean: Tensor) -> Tensor:
    """How many characters each sequence has, the end of a document being one, (n,)."""
    end = examples.codec.end_token_id
    ends = ((clean == end) & counted(clean, end)).sum(1)
    letters = [len(examples.codec.decode(sequence[sequence != end])) for sequence in clean]
    return ends + torch.tensor(letters)
