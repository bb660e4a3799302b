"""Named, complete configurations: where to begin. Every setting can be overridden on the command line.

A preset of another package is a `Preset`, declared by an entry point in the group `logsnr.presets`.
"""

from __future__ import annotations

from dataclasses import dataclass

from logsnr.settings.condition import CaptionConfig, ClassLabelConfig
from logsnr.settings.image import DataConfig, ModelConfig
from logsnr.settings.objective import CrossEntropyConfig, SigmoidWeighting, WeightedConfig
from logsnr.settings.registry import find, known
from logsnr.settings.run import RunConfig, TrainConfig
from logsnr.settings.schedule import ScheduleConfig, TransitionConfig
from logsnr.settings.text import TextDataConfig, TextModelConfig
from logsnr.settings.text_to_image import CaptionedDataConfig, PromptedModelConfig


@dataclass(frozen=True)
class Preset:
    """A configuration, and a line that says what it is for."""

    text: str
    config: RunConfig


def presets() -> dict[str, Preset]:
    """The presets that are installed, by name."""
    return {name: find("logsnr.presets", name, "preset") for name in known("logsnr.presets")}


def require_config(config: object, caller: str) -> None:
    """Raise TypeError for a preset, or its name, in the place of a configuration."""
    if isinstance(config, RunConfig):
        return
    cure = "it is the .config of a preset, logsnr.presets()[NAME].config"
    if isinstance(config, Preset):
        cure = "give the preset's .config"
    elif isinstance(config, str) and config in presets():
        cure = f"give logsnr.presets()[{config!r}].config"
    raise TypeError(f"{caller} takes a RunConfig, and was given a {type(config).__name__}: {cure}.")


MNIST = Preset(
    "5,000 handwritten digits, class-conditional, 28x28: some minutes on two CPU cores",
    RunConfig(
        data=DataConfig(source="mnist-5k", resolution=28, channels=1),
        # A narrow network sees twice the digits in the same time, and the sigmoid weighting stresses the noise levels
        # at which a digit takes shape.
        model=ModelConfig(block_out_channels=(16, 32, 64), attention_levels=(2,), attention_head_dim=64),
        objective=WeightedConfig(SigmoidWeighting()),
        condition=ClassLabelConfig(dropout=0.2),
        train=TrainConfig(
            num_steps=1700,
            batch_size=64,
            optimizer="muon",
            learning_rate=5e-3,
            lr_warmup_steps=50,
            checkpoint_every=500,
            held_out_every=850,
            sample_every=850,
        ),
    ),
)

FASHION_MNIST = Preset(
    "60,000 pictures of clothes, class-conditional, 28x28, from the Hub",
    RunConfig(
        data=DataConfig(source="zalando-datasets/fashion_mnist", resolution=28, channels=1, horizontal_flip=True),
        model=ModelConfig(block_out_channels=(64, 128, 128), layers_per_block=2, attention_levels=(1, 2)),
        train=TrainConfig(num_steps=20_000, batch_size=128, learning_rate=5e-4, ema_decay=0.9995),
    ),
)

IMAGES_64 = Preset(
    "a folder of your own images (--data.source FOLDER), 64x64 RGB, with or without classes; for one GPU",
    RunConfig(
        data=DataConfig(source="images", resolution=64, channels=3, num_workers=2),
        model=ModelConfig(
            block_out_channels=(64, 128, 192, 256), layers_per_block=2, attention_levels=(2, 3), dropout=0.1
        ),
        train=TrainConfig(
            num_steps=50_000,
            batch_size=32,
            learning_rate=2e-4,
            lr_warmup_steps=500,
            ema_decay=0.9995,
            checkpoint_every=1000,
            held_out_every=1000,
            sample_every=1000,
        ),
    ),
)

IMAGES_32 = Preset(
    "a folder of your own images (--data.source FOLDER), 32x32 RGB, with or without classes; for two CPU cores",
    RunConfig(
        data=DataConfig(source="images", resolution=32, channels=3),
        model=ModelConfig(block_out_channels=(32, 64, 96), attention_levels=(2,), attention_head_dim=32, dropout=0.1),
        train=TrainConfig(
            num_steps=8000,
            batch_size=64,
            learning_rate=1e-3,
            ema_decay=0.9995,
            checkpoint_every=500,
            held_out_every=1000,
            sample_every=1000,
        ),
    ),
)

CAPTIONS_32 = Preset(
    "a folder of your own pictures with captions (--data.source FOLDER), 32x32 RGB; for two CPU cores",
    RunConfig(
        kind="text-to-image",
        data=CaptionedDataConfig(source="captioned"),
        schedule=ScheduleConfig(shift=-1.5),
        model=PromptedModelConfig(block_out_channels=(32, 64, 128), attention_levels=(2,)),
        objective=WeightedConfig(SigmoidWeighting(bias=-2)),
        condition=CaptionConfig(),
        train=TrainConfig(
            num_steps=5000,
            batch_size=32,
            optimizer="muon",
            learning_rate=5e-3,
            checkpoint_every=500,
            held_out_every=1000,
            sample_every=1000,
        ),
    ),
)

CAPTIONS_64 = Preset(
    "a folder of your own pictures with captions (--data.source FOLDER), 64x64 RGB; for one GPU",
    RunConfig(
        kind="text-to-image",
        data=CaptionedDataConfig(source="captioned", resolution=64, num_workers=2),
        model=PromptedModelConfig(
            block_out_channels=(64, 128, 192, 256), layers_per_block=2, attention_levels=(1, 2, 3), dropout=0.1
        ),
        objective=WeightedConfig(SigmoidWeighting()),
        condition=CaptionConfig(),
        train=TrainConfig(
            num_steps=50_000,
            optimizer="muon",
            learning_rate=1e-3,
            lr_warmup_steps=500,
            ema_decay=0.9995,
            checkpoint_every=1000,
            held_out_every=1000,
            sample_every=1000,
        ),
    ),
)

TEXT_128 = Preset(
    "texts of your own (--data.source FILE or FOLDER) by characters, 128 at a time; for two CPU cores",
    RunConfig(
        kind="text",
        data=TextDataConfig(source="texts"),
        schedule=TransitionConfig(),
        model=TextModelConfig(),
        objective=CrossEntropyConfig(),
        train=TrainConfig(
            num_steps=3000,
            batch_size=32,
            optimizer="muon",
            learning_rate=1e-2,
            checkpoint_every=250,
            held_out_every=500,
            sample_every=500,
        ),
    ),
)

TEXT_256 = Preset(
    "texts of your own (--data.source FILE or FOLDER) by word pieces, 256 at a time; for one GPU",
    RunConfig(
        kind="text",
        data=TextDataConfig(source="texts", tokens="word-pieces", length=256),
        schedule=TransitionConfig(),
        model=TextModelConfig(
            hidden_size=512, num_hidden_layers=8, num_attention_heads=8, intermediate_size=1024, dropout=0.1
        ),
        objective=CrossEntropyConfig(),
        train=TrainConfig(
            num_steps=50_000,
            batch_size=128,
            optimizer="muon",
            learning_rate=2e-3,
            lr_warmup_steps=500,
            ema_decay=0.9995,
            checkpoint_every=1000,
            held_out_every=1000,
            sample_every=1000,
        ),
    ),
)

SMOKE = Preset(
    "a few steps of a tiny network on the digits at 16x16: seconds, to see that everything works",
    RunConfig(
        data=DataConfig(source="mnist-5k", resolution=16, channels=1),
        model=ModelConfig(block_out_channels=(8, 16), layers_per_block=1, attention_levels=(), norm_num_groups=4),
        train=TrainConfig(
            num_steps=30, batch_size=32, lr_warmup_steps=5, checkpoint_every=10, held_out_every=15, sample_every=15
        ),
    ),
)
