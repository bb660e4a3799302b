"""What `logsnr compare` measures of samples that are arrays of numbers, such as images.

The ELBO of different schedules can be compared: its bits are of the same images, whatever the chain. KID and FID are of
images drawn by the model's own sampler, at `steps` as in `logsnr evaluate` and at each of `at_steps`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from logsnr.base.columns import aligned
from logsnr.base.errors import ConfigError
from logsnr.data.seeded import SeededData
from logsnr.evaluation.bits import bound
from logsnr.evaluation.distribution import distribution, extractor_for, features_name, number_of_images
from logsnr.evaluation.extractors import find_extractor
from logsnr.evaluation.subject import Subject
from logsnr.media.plots import Compared, compare_figure
from logsnr.sampling.sample import DEFAULT_STEPS
from logsnr.settings.options import OF_TEXTS, EvaluateOptions, refuse_foreign
from logsnr.settings.run import RunConfig
from logsnr.studies.comparison import Row, steps_in_words
from logsnr.tasks.task import parts_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class ArrayComparison:
    """Of arrays of numbers."""

    def require(self, config: RunConfig, options: EvaluateOptions, at_steps: tuple[int, ...]) -> None:
        refuse_foreign(options, OF_TEXTS, "for texts")
        if options.features is not None:
            find_extractor(options.features)

    def plan(
        self, config: RunConfig, data: SeededData[Any], options: EvaluateOptions, at_steps: tuple[int, ...]
    ) -> str:
        features, noun = features_name(options, parts_of(config.kind), data), data.examples.noun
        if features is None:
            raise ConfigError(f"features must name a network for {noun}s, which have none yet.")
        find_extractor(features)
        steps = steps_in_words({options.steps or DEFAULT_STEPS, *at_steps})
        return f"Of each, {number_of_images(options, data):,} {noun}s would be drawn in {steps} steps."

    def measured(self, subject: Subject, options: EvaluateOptions, at_steps: tuple[int, ...]) -> Row:
        extractor = extractor_for(subject, options)
        decisive = options.steps or DEFAULT_STEPS
        row: Row = {"steps": {}}
        for steps in sorted({decisive, *at_steps}):
            found = distribution(subject, extractor, dataclasses.replace(options, steps=steps))
            intervals = found.comparison.intervals()
            row["steps"][str(steps)] = {
                key: {"value": getattr(found.comparison.figures, key), "interval": list(interval)}
                for key, interval in intervals.items()
            }
            if steps == decisive:
                row |= row["steps"][str(steps)] | {"drawn_in": decisive, "protocol": found.protocol}
        if options.elbo_images:
            row["elbo"] = bound(subject, options, "held_out" if subject.data.num_held_out > 1 else "train")
            del row["elbo"]["bits_per_dim"]["kl_terms"]
        return row

    def table(self, rows: Mapping[str, Row]) -> str:
        with_bits = all("elbo" in row for row in rows.values())
        head = ["schedule", *(["bits/dim", "±", "prior", "kl", "decoder"] if with_bits else [])]
        head += ["kid", "95 % interval", "fid", "95 % interval"]
        lines: list[tuple[str, ...]] = [tuple(head)]
        for name, row in rows.items():
            cells = [name]
            if with_bits:
                bits = row["elbo"]["bits_per_dim"]
                cells += [f"{bits[key]:.4f}" for key in ("total", "standard_error", "prior", "kl", "decoder")]
            for key in ("kid", "fid"):
                low, high = row[key]["interval"]
                cells += [f"{row[key]['value']:.4f}", f"{low:.4f} to {high:.4f}"]
            lines.append(tuple(cells))
        first = next(iter(rows.values()))
        steps = list(first["steps"])
        by_steps = [("kid at steps", *steps)]
        by_steps += [(name, *(f"{row['steps'][s]['kid']['value']:.4f}" for s in steps)) for name, row in rows.items()]
        said = f"kid and fid above are of images drawn in {first['drawn_in']} steps." + (
            " ± is one standard error." if with_bits else ""
        )
        return f"{aligned(lines)}\n{said}\n\n{aligned(by_steps)}\n\n{_protocol(first)}"

    def figure(self, rows: Mapping[str, Row]) -> Figure:
        return compare_figure({name: _compared(row) for name, row in rows.items()})


def _compared(row: Row) -> Compared:
    bits = row["elbo"]["bits_per_dim"] if "elbo" in row else {}
    return Compared(
        terms={name: bits[name] for name in ("prior", "kl", "decoder") if name in bits},
        standard_error=bits.get("standard_error", 0.0),
        figures={key: (row[key]["value"], *row[key]["interval"]) for key in ("kid", "fid")},
        kid_by_steps={
            int(steps): (found["kid"]["value"], *found["kid"]["interval"]) for steps, found in row["steps"].items()
        },
    )


def _protocol(row: Row) -> str:
    protocol = row["protocol"]
    said = (
        f"{protocol['images']}; labels {protocol['labels']}, guidance {protocol['guidance_scale']}; the model's own "
        f"sampler; features: {protocol['features']}, hash {protocol['features_hash']}"
    )
    if "elbo" in row:
        found = row["elbo"]
        said += (
            f"; ELBO of {found['num_images']} images, {found['kl_evaluations']} of {found['chain_length'] - 1} KL "
            f"divergences each, {found['decoder']}"
        )
    return said + "."


ARRAYS = ArrayComparison()
