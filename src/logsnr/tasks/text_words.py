"""What the card of a model that writes texts says in the words of its kind."""

from __future__ import annotations

import json
from typing import Any

from logsnr.pipelines.pipeline_text import TextPipeline
from logsnr.settings.text import TEXT, TextDataConfig
from logsnr.tasks.words import CardWords, DataOrigin


def origin(data: TextDataConfig) -> DataOrigin:
    """What is known of the texts of public settings."""
    if data.source == TEXT.placeholders["data.source"]:
        return DataOrigin("texts that aren't public", None, None)
    return DataOrigin(f"the data set {data.source} of the Hub", None, data.source)


def card_words(pipeline: TextPipeline, classes: list[str]) -> CardWords:
    """The words for a model."""
    config: Any = pipeline.model.config
    absorbing = pipeline.kernel == "absorbing"
    asked = f"class_labels={json.dumps(classes[:4], ensure_ascii=False)}" if classes else ""
    return CardWords(
        draws=f"texts of {pipeline.max_length} tokens, {len(pipeline.tokenizer):,} different ones",
        verb="writes",
        task="text-generation",
        tags=("text", "masked-diffusion" if absorbing else "discrete-diffusion"),
        limits=("It writes what looks like its texts, and knows nothing else of the world; what it says isn't true.",),
        settings=(
            ("kernel of the noise", pipeline.kernel),
            ("layers, and width", f"{config.num_hidden_layers}, {config.hidden_size}"),
        ),
        asks=asked,
        seeds="generator=0",
        returned="",
        call="texts = pipe({}).texts",
        then=f"print(texts[0])\n{_infilling(pipeline)}",
        stock_imports="import torch\nfrom transformers import AutoTokenizer" if absorbing else "",
        stock_call=pipeline.stock_call("{repo_id}") if absorbing else "",
    )


def _infilling(pipeline: TextPipeline) -> str:
    """Python that fills in the middle of the first of `texts`, which no tokenizer refuses."""
    ends, steps = max(1, min(16, pipeline.max_length // 8)), min(64, pipeline.scheduler.config.num_train_timesteps)
    return (
        f'infill = texts[0][:{ends}] + "[blank]" + texts[0][-{ends}:]  # what is given; [blank:12] is 12 tokens long\n'
        f"print(pipe(infill=infill, num_inference_steps={steps}).texts[0])"
    )
