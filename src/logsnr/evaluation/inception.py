"""Inception-v3 with the weights of the original FID, as torch-fidelity has it: for comparison with published figures.

`pip install ".[inception]"`, and on its first use internet, for the weights (96 MB). The 2,048 features before its
last layer, and its logits without their bias, as FID, KID and the Inception Score were defined with.
"""

from __future__ import annotations

import torch
from torch import Tensor

from logsnr.base.errors import ConfigError
from logsnr.data.images import ImageData
from logsnr.evaluation.extractors import Features, as_rgb, digest_of_network
from logsnr.settings.image import DataConfig


class Inception:
    """The network as a `FeatureExtractor`."""

    name = "Inception-v3 of the original FID"
    resize = "8 bits, then bilinear to 299x299 as in TensorFlow 1"

    def __init__(self, device: str) -> None:
        try:
            from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
        except ImportError as error:  # what it needs itself doesn't fit
            raise ConfigError(
                f"features inception needs torch-fidelity, which can't be imported: {error}. Without it, use "
                "efficientnet-lite0 or classifier."
            ) from None
        try:
            self.network = FeatureExtractorInceptionV3("inception-v3-compat", ["2048", "logits_unbiased"])
        except OSError as error:  # urllib's errors among them
            raise ConfigError(
                f"features inception needs internet once, for its weights, and they can't be had: {error}. Without "
                "it, use efficientnet-lite0 or classifier."
            ) from error
        self.network.to(device).eval()
        self.device = device
        self.digest = digest_of_network(self.network)

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Features:
        pixels = as_rgb(images.to(self.device)).mul(255).round().byte()
        features, logits = self.network(pixels)
        return Features(features.cpu(), logits.cpu())


def make_inception(data: ImageData, config: DataConfig, device: str) -> Inception:
    """The entry point of the name inception."""
    return Inception(device)
