"""Texts: a masked language model of transformers, with which `TextPipeline` or stock's `LLaDA2Pipeline` writes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import ModernBertForMaskedLM

from logsnr.base.errors import ConfigError, ModelError
from logsnr.conditions.class_label import ClassLabel
from logsnr.conditions.conditioner import Conditioner, Unconditioned
from logsnr.data.seeded import SeededData
from logsnr.data.texts import TextData, open_texts
from logsnr.media.text import TextCodec, TextMedium
from logsnr.models.masked_lm import (
    MODEL,
    load_masked_language_model,
    load_tokenizer,
    make_masked_language_model,
    of_config,
)
from logsnr.models.schedules import NoiseSchedule, make_transition_scheduler
from logsnr.models.states import StateDenoiser
from logsnr.pipelines.pipeline_text import TextPipeline
from logsnr.pipelines.prefix_tokens import TIME_BUCKETS
from logsnr.schedulers.scheduling_transition import TransitionScheduler
from logsnr.settings.guidance import PLAIN
from logsnr.settings.options import EvaluateOptions, SampleOptions
from logsnr.settings.run import RunConfig
from logsnr.tasks import text_words
from logsnr.tasks.parts import Facts, Parts
from logsnr.tasks.truth import Truth
from logsnr.tasks.words import CardWords, DataOrigin


class TextParts(Parts):
    """The kind `text`."""

    network_class = ModernBertForMaskedLM
    network_name = MODEL
    noun = "text"
    measures = "logsnr.evaluation.texts:TEXTS"
    compares = "logsnr.studies.compare_texts:TEXTS"
    numbers = False
    output_type = "seq"
    steps = 64

    def open_data(self, config: RunConfig) -> TextData:
        return open_texts(config.data, config.condition.reads_labels)

    def make_network(self, config: RunConfig, data: TextData) -> Any:
        classes, codec = data.examples.class_names, data.examples.codec
        tells_time = config.schedule.kernel != "absorbing"
        told = (TIME_BUCKETS if tells_time else 0) + (0 if classes is None else len(classes) + 1)
        longest = config.data.length + tells_time + (classes is not None)
        return make_masked_language_model(config.model, codec.vocab_size + told, longest, classes, config.train.seed)

    def make_schedule(self, config: RunConfig, facts: Facts) -> TransitionScheduler:
        codec = TextCodec.from_json(facts["tokenizer"])
        return make_transition_scheduler(config.schedule, codec.vocab_size, codec.mask_token_id)

    def denoiser(self, network: Any, schedule: NoiseSchedule, data: SeededData[Any] | None = None) -> StateDenoiser:
        assert isinstance(schedule, TransitionScheduler)
        told = TIME_BUCKETS if schedule.kernel != "absorbing" else 0
        more = network.config.vocab_size - schedule.num_states - told
        conditioner: Conditioner = ClassLabel(more - 1) if more else Unconditioned()
        return StateDenoiser(network, schedule, conditioner)

    def network_config(self, network: Any) -> dict[str, Any]:
        config: dict[str, Any] = network.config.to_dict()
        return {name: value for name, value in config.items() if not name.startswith("_")}

    def unlearned(self, config: RunConfig, network: Mapping[str, Any]) -> Any:
        return of_config(network)

    def pipeline(self, network: Any, scheduler: Any, facts: Facts) -> TextPipeline:
        return TextPipeline(network, scheduler, TextCodec.from_json(facts["tokenizer"]).tokenizer)

    def again(self, pipeline: TextPipeline, scheduler: Any) -> TextPipeline:
        return TextPipeline(pipeline.model, scheduler, pipeline.tokenizer)

    def load(self, folder: Path, scheduler: Any, facts: Facts, source: str) -> TextPipeline:
        network = load_masked_language_model(folder, source)
        return TextPipeline(network, scheduler, load_tokenizer(folder, source))

    def facts(self, data: TextData) -> Facts:
        """The tokenizer."""
        return {"tokenizer": data.examples.codec.to_json()}

    def medium_of(self, pipeline: TextPipeline) -> TextMedium:
        return TextMedium(TextCodec(pipeline.tokenizer))

    def arguments(self, pipeline: TextPipeline, options: SampleOptions) -> Mapping[str, list[Any]]:
        """Classes by name or number, all of them where none is named, and what is given of the text; each in turn."""
        found: dict[str, list[Any]] = {}
        chosen = list(range(pipeline.num_classes or 0))
        if options.class_labels is not None:
            names = self.choices(pipeline)
            chosen = pipeline.get_label_ids(
                [int(c) if isinstance(c, str) and c.isdigit() and c not in names else c for c in options.class_labels]
            )
        for name, values in (("class_labels", chosen), ("prompt", options.prompts), ("infill", options.infill)):
            if values:
                found[name] = [values[k % len(values)] for k in range(options.num)]
        return found

    def manner(self, options: SampleOptions | EvaluateOptions) -> Mapping[str, Any]:
        asked = {name: getattr(options, name, None) for name in ("temperature", "order", "remask")}
        return {name: value for name, value in asked.items() if value is not None}

    def guides(self, arguments: Mapping[str, list[Any]]) -> bool:
        return "class_labels" in arguments

    def refuse_foreign(self, options: SampleOptions) -> None:
        if options.eta is not None:
            raise ModelError(
                "eta is noise added to numbers, and texts are states. Leave it out; temperature makes them more or "
                "less various."
            )
        if options.guidance != PLAIN:
            raise ModelError(
                "guidance of texts knows the scale alone: leave out what begins with guidance and a dot, and give "
                "guidance_scale."
            )

    def truth(self, config: RunConfig, data: TextData, attributes: Any = ()) -> Truth:
        super().truth(config, data, attributes)
        return Truth(classes=data.examples.labels)

    def choices(self, pipeline: TextPipeline) -> list[str]:
        names = pipeline.model.config.id2label
        return [names.get(index, str(index)) for index in range(pipeline.num_classes or 0)]

    def vocabulary(self, pipeline: TextPipeline) -> list[str]:
        return list(pipeline.tokenizer.get_vocab())

    def shape(self, pipeline: TextPipeline) -> tuple[int]:
        return (pipeline.max_length,)

    def swap_scheduler(self, pipeline: TextPipeline, target: str | type[Any], options: Mapping[str, Any]) -> None:
        pipeline.swap_scheduler(target, **options)

    def stock_of(self, pipeline: TextPipeline, class_label: str) -> Any:
        raise ConfigError(
            f"--class-label is {class_label}, and texts have no stock model of one class: in the model's own, stock's "
            "`input_ids` begin with the token of the class. Leave it out."
        )

    def describe(self, pipeline: TextPipeline) -> str:
        classes = self.choices(pipeline)
        of = f", {len(classes)} classes ({', '.join(classes[:4])}{', …' * (len(classes) > 4)})" if classes else ""
        return f"texts of {pipeline.max_length} tokens, {len(pipeline.tokenizer)} different{of}"

    def origin(self, config: RunConfig) -> DataOrigin:
        return text_words.origin(config.data)

    def card_words(self, pipeline: TextPipeline, data: str) -> CardWords:
        return text_words.card_words(pipeline, self.choices(pipeline))


TEXTS = TextParts()
