"""What the card of a model that draws by prompt says in the words of its kind."""

from __future__ import annotations

import json
from typing import Any

from logsnr.settings.picture import COLOURS
from logsnr.settings.text_to_image import TEXT_TO_IMAGE, CaptionedDataConfig
from logsnr.tasks.words import CardWords, DataOrigin


def origin(data: CaptionedDataConfig) -> DataOrigin:
    """What is known of the pictures of public settings."""
    if data.source == TEXT_TO_IMAGE.placeholders["data.source"]:
        return DataOrigin("a folder of captioned images that isn't public", None, None)
    return DataOrigin(f"the data set {data.source} of the Hub", None, data.source)


def card_words(unet: Any, prompts: list[str], encoder: Any, data: str) -> CardWords:
    """The words for a model; `data` is the description of its training images, empty where it isn't recorded."""
    size = f"{unet.config.sample_size}×{unet.config.sample_size} pixels"
    limits = [f"It draws what its data show, at {size}, and knows nothing else of the world."]
    if "16 bit" in data:
        limits.append('It was trained at 16 bits; PNGs of the pipeline have 8, and `output_type="np"` gives floats.')
    asked = f"prompt={json.dumps(prompts[:3] or [''], ensure_ascii=False)}"
    return CardWords(
        draws=f"{COLOURS[unet.config.in_channels]} images of {size} by prompt",
        task="text-to-image",
        tags=("pixel-space",),
        limits=tuple(limits),
        settings=(
            ("channels of the levels", ", ".join(map(str, unet.config.block_out_channels))),
            ("text encoder", f"{type(encoder).__name__}, {encoder.config.num_hidden_layers} layers"),
        ),
        asks=asked,
        asks_stock=f"{asked}, guidance_scale=2.0, clean_caption=False",
        seeds="generator=0",
        returned="",
        call="images = pipe({}).images",
        then='images[0].save("image.png")',
    )
