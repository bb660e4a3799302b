"""Captioned pictures: a stock `UNet2DConditionModel`, drawn with by `TextToImagePipeline` or stock's `IFPipeline`."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

from logsnr.base.errors import ConfigError, ModelError
from logsnr.base.quiet import without_bars
from logsnr.base.words import one_line
from logsnr.conditions.caption import Caption
from logsnr.conditions.conditioner import Conditioner
from logsnr.data.captioned_images import CaptionedData, CaptionedExamples, open_captioned_images
from logsnr.data.captions import open_columns
from logsnr.data.seeded import SeededData, Split
from logsnr.folders.model_folder import INDEX, NETWORK, PROMPTS, read_json_object
from logsnr.media.image import ImageMedium
from logsnr.models.locate import locate
from logsnr.models.networks import load_network, require_equal
from logsnr.models.precision import fast_attention
from logsnr.models.prompted import PromptedUNet, fitted_vocabulary, make_prompted_unet, word_pieces
from logsnr.models.text_encoders import Remembered, TextEncoder, Tokenizer, open_text_encoder
from logsnr.pipelines.pipeline_text_to_image import TextToImagePipeline
from logsnr.settings.condition import CaptionConfig
from logsnr.settings.options import SampleOptions
from logsnr.settings.run import RunConfig
from logsnr.tasks import text_to_image_words
from logsnr.tasks.parts import Facts, Parts
from logsnr.tasks.truth import Truth
from logsnr.tasks.words import CardWords, DataOrigin

SCRATCH = "scratch"
"""The `condition.text_encoder` that is trained along."""
_PROMPTS = 16
"""Held-out captions, at most, that a model is drawn with where nobody says what."""
_READ = 512
"""Captions, at most, by whose states a network begins."""


class TextToImageParts(Parts):
    """The kind `text-to-image`."""

    network_class = PromptedUNet
    network_name = NETWORK
    medium = ImageMedium()
    noun = CaptionedExamples.noun
    option = "prompts"

    def open_data(self, config: RunConfig) -> CaptionedData:
        if _learns(config):
            return open_captioned_images(config.data, lambda captions: word_pieces(fitted_vocabulary(captions)))
        encoder = _frozen_encoder(config)
        return open_captioned_images(config.data, lambda _: encoder.tokenizer, encoder.digest)

    def make_network(self, config: RunConfig, data: CaptionedData) -> PromptedUNet:
        learned_variance = config.schedule.variance_type == "learned_range"
        encoder = None if _learns(config) else _frozen_encoder(config)
        tokenizer = data.examples.tokenizer
        assert isinstance(tokenizer, Tokenizer)
        vocabulary = tokenizer.vocabulary if encoder is None else None
        if config.model.init_from is not None:
            return _start_from(config, encoder, vocabulary)
        states = None if encoder is None else encoder.states(_some_captions(data, "train", _READ))
        return make_prompted_unet(
            config.data, config.model, encoder, vocabulary, config.train.seed, learned_variance, states
        )

    def trunk(self, network: PromptedUNet) -> Any:
        return network.unet

    def unlearned(self, config: RunConfig, network: Mapping[str, Any]) -> PromptedUNet:
        made: PromptedUNet = PromptedUNet.from_config(network)
        if not _learns(config):
            made.frozen = [_frozen_encoder(config)]
        return made

    def network_of(self, pipeline: TextToImagePipeline) -> PromptedUNet:
        encoder = TextEncoder(Tokenizer(pipeline.tokenizer), pipeline.text_encoder)
        network: PromptedUNet = PromptedUNet.of(pipeline.unet, encoder, self.choices(pipeline))
        return network

    def pipeline(self, network: PromptedUNet, scheduler: Any, facts: Facts) -> TextToImagePipeline:
        encoder = network.encoder
        return TextToImagePipeline(
            network.unet, scheduler, encoder.tokenizer.tokenizer, encoder.model, prompts=facts.get("prompts")
        )

    def load(self, folder: Path, scheduler: Any, facts: Facts, source: str) -> TextToImagePipeline:
        unet = load_network(folder, NETWORK, UNet2DConditionModel, source)
        if scheduler.config.get("variance_type") != "learned_range":
            _without_padding(unet)
        network = PromptedUNet.of(unet, _load_encoder(folder, source))
        path = folder / PROMPTS
        prompts = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
        return self.pipeline(network, scheduler, {"prompts": prompts})

    def facts(self, data: CaptionedData) -> Facts:
        """Some captions, of held-out pictures where there are any."""
        return {"prompts": _some_captions(data, "held_out" if data.num_held_out else "train", _PROMPTS)}

    def conditioner(self, network: PromptedUNet, data: SeededData[Any] | None = None) -> Conditioner:
        encoder = network.encoder
        prompts = self.facts(data)["prompts"] if data is not None else network.prompts
        tokens = encoder.tokenizer.tensors(prompts or [""])
        if network.text_encoder is not None:
            return Caption(encoder.tokenizer.null, tokens)
        remembered = Remembered(encoder)
        if data is not None:
            remembered.remember(*data.examples.unique_tokens())
        return Caption(encoder.tokenizer.null, tokens, remembered)

    def arguments(self, pipeline: TextToImagePipeline, options: SampleOptions) -> Mapping[str, list[str]]:
        """Prompts, taken in turn."""
        chosen: Sequence[str] = options.prompts or self.choices(pipeline) or [""]
        return {"prompt": [chosen[k % len(chosen)] for k in range(options.num)]}

    def asked(self, conditions: Sequence[Mapping[str, Any]], data: CaptionedData) -> Mapping[str, list[str]]:
        return {"prompt": [data.examples.text(condition) for condition in conditions]}

    def truth(self, config: RunConfig, data: CaptionedData, attributes: Sequence[str] = ()) -> Truth:
        examples = data.examples
        columns = open_columns(config.data, attributes, "attributes") if attributes else {}
        return Truth(
            captions=[examples.text(examples.condition(index)) for index in range(len(examples))],
            groups=examples.belonging,
            attributes={name: [values[k] for k in examples.images.places] for name, values in columns.items()},
        )

    def choices(self, pipeline: TextToImagePipeline) -> list[str]:
        return list(pipeline.prompts or [])

    def shape(self, pipeline: TextToImagePipeline) -> tuple[int, ...]:
        config = pipeline.unet.config
        return (config.in_channels, config.sample_size, config.sample_size)

    def swap_scheduler(
        self, pipeline: TextToImagePipeline, target: str | type[Any], options: Mapping[str, Any]
    ) -> None:
        pipeline.swap_scheduler(target, **options)

    def describe(self, pipeline: TextToImagePipeline) -> str:
        config = pipeline.unet.config
        return f"{config.sample_size}x{config.sample_size}, {config.in_channels} channels, by prompt"

    def origin(self, config: RunConfig) -> DataOrigin:
        return text_to_image_words.origin(config.data)

    def card_words(self, pipeline: TextToImagePipeline, data: str) -> CardWords:
        return text_to_image_words.card_words(pipeline.unet, self.choices(pipeline), pipeline.text_encoder, data)

    def features(self, data: SeededData[Any]) -> str:
        return "efficientnet-lite0"

    def kernels(self, network: PromptedUNet) -> contextlib.AbstractContextManager[None]:
        return fast_attention(network.unet)


def _caption(config: RunConfig) -> CaptionConfig:
    assert isinstance(config.condition, CaptionConfig)  # other conditions read no captions
    return config.condition


def _learns(config: RunConfig) -> bool:
    """Whether the text encoder is trained along."""
    return _caption(config).text_encoder == SCRATCH


def _frozen_encoder(config: RunConfig) -> TextEncoder:
    return open_text_encoder(_caption(config).text_encoder, _caption(config).text_layers)


def _some_captions(data: CaptionedData, split: Split, most: int) -> list[str]:
    """At most so many captions of that part, from the whole length of it."""
    captions = list(dict.fromkeys(data.examples.text(condition) for condition in data.conditions(split)))
    return captions[:: -(-len(captions) // most)]


def _start_from(config: RunConfig, encoder: TextEncoder | None, vocabulary: list[str] | None) -> PromptedUNet:
    """The network of `model.init_from`. Raises ConfigError or ModelError where it isn't one for this run."""
    source, data = config.model.init_from, config.data
    try:
        folder = locate(source)
        unet, base = load_network(folder, NETWORK, UNet2DConditionModel, source), _load_encoder(folder, source)
    except ModelError as error:
        raise ModelError(f"model.init_from: {error}") from error
    learned_variance = config.schedule.variance_type == "learned_range"
    if not learned_variance:
        _without_padding(unet)
    wanted = {
        "in_channels": ("data.channels", data.channels),
        "out_channels": ("what schedule.variance_type asks for", data.channels * (2 if learned_variance else 1)),
        "sample_size": ("data.resolution", data.resolution),
    }
    require_equal(source, unet, wanted)
    same = base.digest == encoder.digest if encoder is not None else base.tokenizer.vocabulary == vocabulary
    if not same:
        raise ConfigError(
            f"model.init_from: {source} was trained with another text encoder than condition.text_encoder "
            f"{_caption(config).text_encoder} gives for these captions. Take its own: --condition.text-encoder {source}"
        )
    network: PromptedUNet = PromptedUNet.of(unet, base)
    if vocabulary is not None:
        network.learn(vocabulary)
    return network


def _without_padding(unet: Any) -> None:
    """Take away the output channels of a stock form that nobody reads: as many as the picture has, all of them 0."""
    channels, padded = unet.config.in_channels, unet.conv_out
    if padded.out_channels != 2 * channels:
        return
    unet.conv_out = torch.nn.Conv2d(padded.in_channels, channels, padded.kernel_size, padding=padded.padding)
    unet.conv_out.load_state_dict({name: value[:channels].clone() for name, value in padded.state_dict().items()})
    unet.register_to_config(out_channels=channels)


def _load_encoder(folder: Path, source: str) -> TextEncoder:
    """The text encoder of a model folder, with its tokenizer. Raises ModelError."""
    try:
        library, name = read_json_object(folder / INDEX)["text_encoder"]
        cls = getattr(transformers, name)
        if library != "transformers" or not issubclass(cls, transformers.PreTrainedModel):
            raise ValueError(f"{library}.{name} is no text encoder of transformers.")
        with without_bars():
            model = cls.from_pretrained(folder / "text_encoder", use_safetensors=True, local_files_only=True)
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
    except Exception as error:  # what others wrote may be wrong in any way
        raise ModelError(f"{source}: its text encoder can't be loaded: {one_line(error)}.") from error
    return TextEncoder(Tokenizer(tokenizer), model.eval().requires_grad_(False))


TEXT_TO_IMAGES = TextToImageParts()
