"""What `logsnr compare` measures of texts.

The bound in bits a token can be compared whatever the chain and the kernel: it is of the same text. What is written in
`steps` as in `logsnr evaluate`, and in each of `at_steps`, is judged by the share of words, which is read with the
unigram entropy beside it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from logsnr.base.columns import aligned
from logsnr.base.errors import ConfigError
from logsnr.data.seeded import SeededData, Split
from logsnr.evaluation.generated import generate
from logsnr.evaluation.judged import list_name, tokens_of, words_and_variety, words_of
from logsnr.evaluation.subject import Subject
from logsnr.evaluation.text_bits import text_bound
from logsnr.evaluation.texts import TEXTS as MEASURES
from logsnr.evaluation.texts import manner_in_words, number_of_sequences
from logsnr.evaluation.words import read_words
from logsnr.media.state_plots import ComparedStates, compared_states_figure
from logsnr.objectives.held_out import LOG_SNR_EDGES
from logsnr.settings.options import EvaluateOptions, SampleOptions
from logsnr.settings.run import RunConfig
from logsnr.studies.comparison import Row, steps_in_words
from logsnr.tasks.task import parts_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class TextComparison:
    """Of texts."""

    def require(self, config: RunConfig, options: EvaluateOptions, at_steps: tuple[int, ...]) -> None:
        MEASURES.refuse_foreign(options)
        parts_of(config.kind).refuse_foreign(SampleOptions(guidance=options.guidance))
        if options.words is not None:
            read_words(options.words)
        most, total = max(_steps(config, options, at_steps)), config.schedule.num_train_timesteps
        if most > total:
            raise ConfigError(
                f"--at-steps and --evaluate.steps must be at most {total}, the length of the chain, and go up to "
                f"{most}. Give fewer, or a longer chain by --schedule.num-train-timesteps."
            )

    def plan(
        self, config: RunConfig, data: SeededData[Any], options: EvaluateOptions, at_steps: tuple[int, ...]
    ) -> str:
        steps = steps_in_words(_steps(config, options, at_steps))
        return (
            f"Of each, {number_of_sequences(data, options):,} {data.examples.noun}s would be drawn in {steps} steps, "
            f"and their words looked up in {list_name(options)}."
        )

    def measured(self, subject: Subject, options: EvaluateOptions, at_steps: tuple[int, ...]) -> Row:
        data, split = subject.data, _split(subject.data)
        examples, num = data.examples, number_of_sequences(data, options)
        row: Row = {"token": examples.token, "kernel": subject.schedule.kernel, "split": split}
        if options.elbo_images:
            row["elbo"] = text_bound(subject, options, split)
        real = torch.from_numpy(tokens_of(data, split, num))
        if options.words is None:
            known = words_of(examples, tokens_of(data, "train").ravel())
        else:
            known = read_words(options.words)
        row["steps"] = {}
        decisive, *others = _steps(subject.config, options, at_steps)
        for steps in sorted({decisive, *others}):
            drawing, asked = subject.pipeline(), dataclasses.replace(options, steps=steps)
            samples = generate(drawing, subject.folder, subject.digest, data, asked, num).long()
            found = words_and_variety(examples, samples, real, known, list_name(options))
            row["steps"][str(steps)] = {name: found[name] for name in ("words", "unigram_entropy") if name in found}
            if steps == decisive:
                how = manner_in_words(subject, drawing, asked)
                row |= row["steps"][str(steps)] | {"drawn_in": steps, "drawn": num, "sampler": how}
        return row

    def table(self, rows: Mapping[str, Row]) -> str:
        first = next(iter(rows.values()))
        token, real = first["token"], first["split"].replace("train", "training").replace("_", "-") + " text"
        with_bits, with_words = ("elbo" in first, "words" in first)
        with_limit = with_bits and any("limit" in row["elbo"] for row in rows.values())
        head = ["noise", *([f"bits a {token}", "±"] if with_bits else [])]
        head += ["in continuous time", "±"] if with_limit else []
        head += ["share of words", "±"] if with_words else []
        lines = [(*head, "unigram entropy")]
        for name, row in rows.items():
            cells = [name]
            if with_bits:
                cells += _shown(row["elbo"]["bits_per_dim"])
            if with_limit:
                cells += _shown(row["elbo"]["limit"]) if "limit" in row["elbo"] else ["", ""]
            if with_words:
                cells += [f"{row['words'][key]:.4f}" for key in ("value", "standard_error")]
            lines.append((*cells, f"{row['unigram_entropy']['value']:.4f}"))
        cells = [real, *[""] * (2 * with_bits + 2 * with_limit)]
        if with_words:
            cells += [f"{first['words'][key]:.4f}" for key in ("held_out", "held_out_standard_error")]
        lines.append((*cells, f"{first['unigram_entropy']['held_out']:.4f}"))
        tables = [f"{aligned(lines)}\n{_said(rows, with_limit)}"]
        for title, key in (("share of words", "words"), ("unigram entropy", "unigram_entropy")):
            if key in first:
                by_steps = [(f"{title} at steps", *first["steps"])]
                by_steps += [
                    (name, *(f"{found[key]['value']:.4f}" for found in row["steps"].values()))
                    for name, row in rows.items()
                ]
                tables.append(aligned(by_steps))
        return "\n\n".join([*tables, _protocol(first)])

    def figure(self, rows: Mapping[str, Row]) -> Figure:
        first = next(iter(rows.values()))
        real = first["words"]["held_out"] if "words" in first else None
        return compared_states_figure(
            {name: _compared(row) for name, row in rows.items()},
            LOG_SNR_EDGES,
            (real, first["unigram_entropy"]["held_out"]),
            first["token"],
        )


def _steps(config: RunConfig, options: EvaluateOptions, at_steps: tuple[int, ...]) -> tuple[int, ...]:
    """Steps in which texts are drawn; the decisive ones first."""
    return (options.steps or min(parts_of(config.kind).steps, config.schedule.num_train_timesteps), *at_steps)


def _split(data: SeededData[Any]) -> Split:
    """What text the bound is of and samples are set beside."""
    return "held_out" if data.num_held_out > 1 else "train"


def _shown(figure: dict[str, float]) -> list[str]:
    return [f"{figure['total']:.4f}", f"{figure['standard_error']:.4f}"]


def _said(rows: Mapping[str, Row], with_limit: bool) -> str:
    first = next(iter(rows.values()))
    judged = "share of words and unigram entropy are" if "words" in first else "unigram entropy is"
    said = f"{judged} of texts drawn in {first['drawn_in']} steps. ± is one standard error."
    if with_limit and sum(row["kernel"] == "absorbing" for row in rows.values()) > 1:
        said += (
            "\nIn continuous time the bound of absorbing noise is the same whatever the schedule: where it differs by "
            "more than\nits error, training made other networks."
        )
    return said


def _compared(row: Row) -> ComparedStates:
    def pair(name: str) -> tuple[float, float] | None:
        found = row.get("elbo", {}).get(name)
        return None if found is None else (found["total"], found["standard_error"])

    by_steps = {int(steps): found for steps, found in row["steps"].items()}
    return ComparedStates(
        bound=pair("bits_per_dim"),
        limit=pair("limit"),
        by_log_snr=row["elbo"]["bits_per_dim"]["by_log_snr"] if "elbo" in row else (),
        words={
            steps: (found["words"]["value"], found["words"]["standard_error"])
            for steps, found in by_steps.items()
            if "words" in found
        },
        entropy={steps: found["unigram_entropy"]["value"] for steps, found in by_steps.items()},
    )


def _protocol(row: Row) -> str:
    said = f"{row['drawn']} sequences generated; {row['sampler']}"
    if "words" in row:
        said += f"; words of {row['words']['list']}, {row['words']['list_words']:,} different ones"
    if "elbo" in row:
        found = row["elbo"]
        said += f"; bound of {found['num_images']} sequences, {found['draws']} draws each"
    return said + "."


TEXTS = TextComparison()
