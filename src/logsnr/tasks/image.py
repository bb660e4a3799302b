"""Images, with or without classes: a stock `UNet2DModel`, drawn with by `PixelDiffusionPipeline`."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

from diffusers.models.unets.unet_2d import UNet2DModel

from logsnr.base.errors import ConfigError
from logsnr.base.warn import warn_caller
from logsnr.base.words import listed
from logsnr.conditions.conditioner import Conditioner
from logsnr.data.images import ImageData, ImageExamples, open_images
from logsnr.folders.model_folder import NETWORK
from logsnr.media.image import ImageMedium
from logsnr.models.networks import conditioner_of, make_unet, unlearned
from logsnr.models.precision import fast_attention
from logsnr.models.schedules import make_scheduler
from logsnr.pipelines.pipeline_pixel import PixelDiffusionPipeline
from logsnr.settings.options import SampleOptions
from logsnr.settings.picture import COLOURS
from logsnr.settings.run import RunConfig
from logsnr.tasks import image_words
from logsnr.tasks.parts import Facts, Parts
from logsnr.tasks.truth import Truth
from logsnr.tasks.words import CardWords, DataOrigin


class ImageParts(Parts):
    """The kind `image`."""

    network_class = UNet2DModel
    network_name = NETWORK
    medium = ImageMedium()
    noun = ImageExamples.noun

    def open_data(self, config: RunConfig) -> ImageData:
        return open_images(config.data, config.condition.reads_labels)

    def make_network(self, config: RunConfig, data: ImageData) -> UNet2DModel:
        learned_variance = config.schedule.variance_type == "learned_range"
        names, base = data.examples.class_names, config.model.init_from
        unet = make_unet(config.data, config.model, names, config.train.seed, learned_variance)
        if base is not None and config.schedule.name != "learned":  # that one moves while it is trained
            for sentence in unlearned(base, make_scheduler(config.schedule)):
                warn_caller(f"{sentence}.")
        return unet

    def pipeline(self, network: Any, scheduler: Any, facts: Facts) -> PixelDiffusionPipeline:
        return PixelDiffusionPipeline(network, scheduler, id2label=facts.get("id2label"))

    def facts(self, data: ImageData) -> Facts:
        names = data.examples.class_names
        return {"id2label": None if names is None else {str(k): name for k, name in enumerate(names)}}

    def conditioner(self, network: Any, data: ImageData | None = None) -> Conditioner:
        return conditioner_of(network)

    def arguments(self, pipeline: PixelDiffusionPipeline, options: SampleOptions) -> Mapping[str, list[int]]:
        """Classes by name or number, taken in turn; all of them where none is named."""
        chosen = list(range(pipeline.num_classes or 0))
        if options.class_labels is not None:
            names = (pipeline.id2label or {}).values()
            chosen = pipeline.get_label_ids(
                [int(c) if isinstance(c, str) and c.isdigit() and c not in names else c for c in options.class_labels]
            )
        return {"class_labels": [chosen[k % len(chosen)] for k in range(options.num)]} if chosen else {}

    def truth(self, config: RunConfig, data: ImageData, attributes: Sequence[str] = ()) -> Truth:
        super().truth(config, data, attributes)
        return Truth(classes=data.examples.labels)

    def choices(self, pipeline: PixelDiffusionPipeline) -> list[str]:
        names = pipeline.id2label or {}
        return [names.get(index, str(index)) for index in range(pipeline.num_classes or 0)]

    def shape(self, pipeline: PixelDiffusionPipeline) -> tuple[int, ...]:
        size = pipeline.unet.config.sample_size
        return (pipeline.unet.config.in_channels, *((size, size) if isinstance(size, int) else size))

    def swap_scheduler(
        self, pipeline: PixelDiffusionPipeline, target: str | type[Any], options: Mapping[str, Any]
    ) -> None:
        pipeline.swap_scheduler(target, **options)

    def stock(self, pipeline: PixelDiffusionPipeline) -> Any | None:
        """A model with classes has one: its network for no class in particular."""
        return pipeline.to_stock() if pipeline.num_classes is not None and _has_stock(pipeline) else None

    def stock_of(self, pipeline: PixelDiffusionPipeline, class_label: str) -> Any:
        if pipeline.num_classes is None:
            return super().stock_of(pipeline, class_label)
        known = (pipeline.id2label or {}).values()
        try:
            return pipeline.to_stock(
                class_label if class_label in known or not class_label.isdigit() else int(class_label)
            )
        except ValueError as error:
            raise ConfigError(str(error).replace("class_labels", "--class-label")) from error

    def describe(self, pipeline: PixelDiffusionPipeline) -> str:
        config = pipeline.unet.config
        kind = COLOURS.get(config.in_channels, f"{config.in_channels} channels")
        names = pipeline.id2label
        classes = f"{pipeline.num_classes} classes" if pipeline.num_classes else "no classes"
        if names:
            classes += f" ({listed(names.values())})"
        return f"{config.sample_size}x{config.sample_size} {kind}, {classes}"

    def origin(self, config: RunConfig) -> DataOrigin:
        return image_words.origin(config.data)

    def card_words(self, pipeline: PixelDiffusionPipeline, data: str) -> CardWords:
        return image_words.card_words(pipeline, self.choices(pipeline), _has_stock(pipeline), data)

    def features(self, data: ImageData) -> str:
        """A classifier of the data's own where they have classes."""
        return "efficientnet-lite0" if data.examples.class_names is None else "classifier"

    def kernels(self, network: Any) -> contextlib.AbstractContextManager[None]:
        return fast_attention(network)


def _has_stock(pipeline: PixelDiffusionPipeline) -> bool:
    return bool(pipeline.scheduler.config["prediction_type"] != "x0_minus_noise")


IMAGES = ImageParts()
