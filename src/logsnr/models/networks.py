"""Configuration -> the U-Net: diffusers' own `UNet2DModel`, new or started from a trained one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.unets.unet_2d import UNet2DModel
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

from logsnr.base.errors import ConfigError, ModelError
from logsnr.conditions.class_label import ClassLabel
from logsnr.conditions.conditioner import Conditioner, Unconditioned
from logsnr.folders.model_folder import NETWORK, read_json_object
from logsnr.models.locate import locate
from logsnr.schedulers.scheduling_beta import BetaScheduler
from logsnr.settings.image import DataConfig, ModelConfig


def num_class_embeds(class_names: list[str] | None) -> int | None:
    """Embeddings of a conditional model: one a class, and the last for "no class", which guidance needs."""
    return None if class_names is None else len(class_names) + 1


def conditioner_of(unet: UNet2DModel) -> Conditioner:
    """What a U-Net can be conditioned on."""
    embeds = unet.config["num_class_embeds"]
    return Unconditioned() if embeds is None else ClassLabel(embeds - 1)


def make_unet(
    data: DataConfig, model: ModelConfig, class_names: list[str] | None, seed: int, learned_variance: bool = False
) -> UNet2DModel:
    """A U-Net with weights drawn from `seed`, or those of `model.init_from`.

    With a learned variance it has twice the output channels, the second half for the variance.
    """
    out_channels = data.channels * (2 if learned_variance else 1)
    if model.init_from is not None:
        return _start_from(model.init_from, data, class_names, out_channels)
    levels = range(len(model.block_out_channels))
    attention = [level in model.attention_levels for level in levels]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet: UNet2DModel = UNet2DModel(
            sample_size=data.resolution,
            in_channels=data.channels,
            out_channels=out_channels,
            block_out_channels=model.block_out_channels,
            layers_per_block=model.layers_per_block,
            down_block_types=tuple("AttnDownBlock2D" if a else "DownBlock2D" for a in attention),
            up_block_types=tuple("AttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attention)),
            add_attention=bool(model.attention_levels),
            attention_head_dim=model.attention_head_dim,
            norm_num_groups=model.norm_num_groups,
            resnet_time_scale_shift=model.resnet_time_scale_shift,
            dropout=model.dropout,
            num_class_embeds=num_class_embeds(class_names),
        )
    begin_at_zero(unet)
    return unet


def begin_at_zero(unet: Any) -> None:
    """Have each residual block pass on what it gets, and the network predict 0, until they have learned better
    (Dhariwal and Nichol 2021, arXiv 2105.05233, whose U-Net does so; diffusers' doesn't)."""
    last = [module.conv2 for module in unet.modules() if isinstance(module, ResnetBlock2D)]
    for parameter in (parameter for convolution in (*last, unet.conv_out) for parameter in convolution.parameters()):
        torch.nn.init.zeros_(parameter)


def portable_config(network: Any) -> dict[str, Any]:
    """The network's own configuration, without the keys that say where it was loaded from."""
    return {key: value for key, value in network.config.items() if not key.startswith("_")}


def unlearned(source: str, schedule: BetaScheduler) -> list[str]:
    """What the model at `source`, whose weights a run begins with, was taught otherwise than that run teaches: a
    sentence each. Empty where it is the same, or the model doesn't say."""
    path = locate(source) / "scheduler" / "scheduler_config.json"
    if not path.is_file():
        return []
    config, said = read_json_object(path), []
    before, now = config.get("prediction_type", "epsilon"), schedule.config["prediction_type"]
    if before != now:
        said.append(
            f"{source} predicts {before}, and this run teaches it {now}: much of what it knows is learned anew. "
            f"As it was: --schedule.prediction-type {before}"
        )
    theirs: Any = DDPMScheduler.from_config(config)
    if theirs.alphas_cumprod.shape != schedule.alphas_cumprod.shape or not torch.allclose(
        theirs.alphas_cumprod, schedule.alphas_cumprod, atol=1e-3
    ):
        named = "" if config.get("trained_betas") else f" ({config.get('beta_schedule', 'linear')})"
        said.append(
            f"{source} was trained on another noise schedule{named} than this run's: --schedule.name says which"
        )
    return said


def load_network(folder: Path, name: str, cls: Any, source: str) -> Any:
    """The trained network of a model folder, its component `name`, from one safetensors file. Raises ModelError, naming
    the folder `source`.

    Stock would follow an index to files of any kind, and a quantization_config to other libraries: of a repo of
    somebody's neither is read.
    """
    index = folder / name / "diffusion_pytorch_model.safetensors.index.json"
    try:
        if index.exists():
            raise ValueError("its weights are in several files.")
        if "quantization_config" in read_json_object(folder / name / "config.json"):
            raise ValueError("its weights are quantized.")
        return cls.from_pretrained(folder, subfolder=name, use_safetensors=True)
    except Exception as error:  # what others wrote may be wrong in any way
        raise ModelError(f"{source}: its network can't be loaded: {error}") from error


def _start_from(source: str, data: DataConfig, class_names: list[str] | None, out_channels: int) -> UNet2DModel:
    try:
        unet: UNet2DModel = load_network(locate(source), NETWORK, UNet2DModel, source)
    except ModelError as error:
        raise ModelError(f"model.init_from: {error}") from error
    wanted = {
        "in_channels": ("data.channels", data.channels),
        "out_channels": ("what schedule.variance_type asks for", out_channels),
        "sample_size": ("data.resolution", data.resolution),
        "num_class_embeds": ("the number of classes plus 1", num_class_embeds(class_names)),
    }
    require_equal(source, unet, wanted)
    return unet


def require_equal(source: str, unet: Any, wanted: Mapping[str, tuple[str, Any]]) -> None:
    """Raise ConfigError where the U-Net that a run begins with has another value of a key of its configuration than is
    `wanted`, which says by what: `{"in_channels": ("data.channels", 3)}`."""
    for key, (name, value) in wanted.items():
        if unet.config[key] != value:
            raise ConfigError(
                f"model.init_from: the U-Net of {source} has {key} {unet.config[key]}, and {name} is {value}. "
                "They must be equal."
            )
