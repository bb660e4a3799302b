"""`logsnr evaluate RUN`: every figure with its protocol, into RUN/metrics.json.

RUN/metrics.json                       the figures of the last evaluation, and how they came about; and those of repair,
                                       by damage, of this model (see `logsnr.evaluation.restoration`)
RUN/evaluation/samples-…/              the samples that were drawn, see `logsnr.evaluation.generated`
               features-…, figures-…   what was made of images, by the hash of what it was made of
               judged-…                and of texts
               elbo-…, ode-…           likelihoods, by the hash of what they are of
               nearest_neighbours.png  generated images beside their nearest training images
               nearest_passages.txt    generated texts by the longest passage that training texts have too

What is measured is a matter of the kind of data: see `logsnr.evaluation.measures`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from logsnr.base.files import read_json, write_atomically
from logsnr.evaluation.measures import measures_of
from logsnr.evaluation.restoration import plan as plan_restoration
from logsnr.evaluation.restoration import restoration
from logsnr.evaluation.subject import Subject, open_subject
from logsnr.settings.options import EvaluateOptions

_DEFAULTS = EvaluateOptions()


def plan(run: Path | str, options: EvaluateOptions, source: str | None = None) -> str:
    """What `evaluate` would do, in words. Raises what it would raise at once."""
    subject = open_subject(Path(run), source)
    measures = measures_of(subject)
    measures.refuse_foreign(options)
    lines = measures.plan(subject, options) if options.restore is None else [plan_restoration(subject, options)]
    return "\n".join([subject.data.description, *lines, _would_go(subject)])


def _would_go(subject: Subject) -> str:
    return f"Figures would go to {subject.run / 'metrics.json'}; nothing was written."


def evaluate(
    run: Path | str,
    options: EvaluateOptions = _DEFAULTS,
    source: str | None = None,
    *,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Measure a run's model: how far what it draws is from its data, whether it copies them, how likely it holds them.

    What was drawn and measured before is reused. The figures are said, written to RUN/metrics.json and returned.
    With `options.restore` it measures how well the model repairs such damage, and nothing else: what metrics.json says
    of the same model stays.

    Args:
        run: the folder that `train` made.
        options: what is drawn and measured, and of how many samples.
        source: where the run's data are now, if they moved.
        say: takes the figures in words.

    Raises CheckpointError, DataError, ModelError or ConfigError where the model can't be measured as asked.
    """
    subject = open_subject(Path(run), source)
    measures = measures_of(subject)
    measures.refuse_foreign(options)
    before = _of_this_model(subject)
    if options.restore is not None:
        damage, found, words = restoration(subject, options)
        say(f"{subject.data.description}\n{words}")
        return _written(subject, before | {"restoration": before.get("restoration", {}) | {damage: found}})
    metrics = measures.measure(subject, options, say)
    return _written(subject, metrics | {key: before[key] for key in ("restoration",) if key in before})


def _of_this_model(subject: Subject) -> dict[str, Any]:
    """What metrics.json says, if it is of the model as it is now, and if not its hash alone."""
    path = subject.run / "metrics.json"
    found: dict[str, Any] = read_json(path) if path.exists() else {}
    same = found.get("protocol", {}).get("model_hash") == subject.digest
    return found if same else {"protocol": {"model_hash": subject.digest}}


def _written(subject: Subject, metrics: dict[str, Any]) -> dict[str, Any]:
    write_atomically(subject.run / "metrics.json", json.dumps(metrics, indent=2, ensure_ascii=False) + "\n")
    return metrics
