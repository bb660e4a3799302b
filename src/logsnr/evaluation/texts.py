"""What `logsnr evaluate` measures of a kind whose samples are texts.

    elbo              the bound in bits a token, by noise level, and in continuous time
    words             the share of drawn words that stand in a list
    unigram_entropy   of what is drawn, beside the data's: what a judged figure must be read with
    distinct          the share of n-grams that are different
    passages          the longest runs that training texts have too
    infilling         how many tokens of a gap the network knows
    protocol          what was drawn and compared, and how

What is drawn, at temperature 1 and without remasking unless it is asked otherwise, is set beside held-out text.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from logsnr.base.errors import ConfigError, DataError
from logsnr.data.seeded import SeededData
from logsnr.evaluation.generated import generate
from logsnr.evaluation.judged import in_words, judged
from logsnr.evaluation.subject import Subject
from logsnr.evaluation.text_bits import likelihood
from logsnr.evaluation.words import read_words
from logsnr.sampling.guidance import guidance_in_words
from logsnr.sampling.sample import choose_scheduler, sampler_in_words, steps_of
from logsnr.settings.options import EvaluateOptions, SampleOptions, refuse_foreign

_ENOUGH = 512
"""Sequences that are drawn, unless there are fewer to compare with."""
_FOREIGN = ("features", "reference", "attributes", "eta", "respace", "ode_images", "restore")


class TextMeasures:
    """Of texts."""

    def refuse_foreign(self, options: EvaluateOptions) -> None:
        refuse_foreign(options, _FOREIGN, "for images")

    def plan(self, subject: Subject, options: EvaluateOptions) -> list[str]:
        drawing, data = _checked(subject, options), subject.data
        num, steps, noun = number_of_sequences(data, options), steps_of(drawing, options.steps), data.examples.noun
        against = "the training documents" if options.words is None else str(options.words)
        lines = [
            f"Would draw {num:,} {noun}s ({num * steps:,} evaluations of the network) with "
            f"{manner_in_words(subject, drawing, options)} in {steps} steps, look up their words in {against}, and "
            f"compare them with held-out {noun}s."
        ]
        if options.elbo_images:
            held_out, trained = (min(options.elbo_images, each) for each in (data.num_held_out, len(data)))
            lines.append(
                f"The likelihood would be bounded for {held_out} held-out and {trained} training {noun}s, by "
                f"{options.elbo_timesteps} draws each."
            )
        return lines

    def measure(self, subject: Subject, options: EvaluateOptions, say: Callable[[str], None]) -> dict[str, Any]:
        drawing, num = _checked(subject, options), number_of_sequences(subject.data, options)
        say(subject.data.description)
        metrics, words = likelihood(subject, options)
        if words:
            say(words)
        samples = generate(drawing, subject.folder, subject.digest, subject.data, options, num).long()
        figures = judged(subject, samples, options)
        protocol = {
            "sequences": f"{num} generated",
            "guidance_scale": guidance_in_words(options.guidance_scale, options.guidance),
            "scheduler": f"{manner_in_words(subject, drawing, options)}, {steps_of(drawing, options.steps)} steps",
            "seeds": f"{options.seed} to {options.seed + num - 1}",
            "model_hash": subject.digest,
        }
        say(f"{protocol['sequences']}; guidance {protocol['guidance_scale']}; {protocol['scheduler']}")
        say(in_words(subject, figures))
        return metrics | figures | {"protocol": protocol}


def _checked(subject: Subject, options: EvaluateOptions) -> Any:
    """What would draw. Raises what drawing and measuring would raise later."""
    if subject.data.num_held_out < 2:
        raise DataError(
            f"There are {subject.data.num_held_out} held-out {subject.data.examples.noun}s, and 2 are needed to "
            "compare with. Train with a larger --data.held-out-fraction."
        )
    if options.words is not None:
        read_words(options.words)
    drawing = subject.pipeline()
    choose_scheduler(drawing, options)
    subject.task.parts.refuse_foreign(SampleOptions(guidance=options.guidance))
    if options.guidance_scale != 1 and not subject.task.parts.choices(drawing):
        raise ConfigError(
            f"guidance_scale is {options.guidance_scale:g}, and needs classes, which this model lacks. Leave it out."
        )
    return drawing


def manner_in_words(subject: Subject, drawing: Any, options: EvaluateOptions) -> str:
    """How it is drawn, in words."""
    asked = [f"{name} {value}" for name, value in subject.task.parts.manner(options).items()]
    return ", ".join([sampler_in_words(drawing.scheduler, None), *asked])


def number_of_sequences(data: SeededData[Any], options: EvaluateOptions) -> int:
    """How many sequences are drawn."""
    return min(_ENOUGH, max(20, data.num_held_out)) if options.num is None else options.num


TEXTS = TextMeasures()
