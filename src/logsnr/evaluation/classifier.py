"""A small CNN trained on the data's own labels: features for images that no published network has seen the like of.

It is trained once for each data set, on the training images, in a minute or less, and kept in the cache. How well it
knows the classes of the held-out images, its test accuracy, is printed beside every figure, with a warning where it
hardly does: features of a network that doesn't are no measure of anything. Since it has seen the training images and
not the held-out ones, a distance between these two, through it, is a little more than chance alone would make it.
"""

from __future__ import annotations

import math

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from tqdm import tqdm

from logsnr.base.errors import ConfigError
from logsnr.base.files import digest_of, replacing_file
from logsnr.base.warn import warn_caller
from logsnr.data.images import ImageData, class_counts, open_images
from logsnr.evaluation.extractors import Features, digest_of_network
from logsnr.folders.cache import cache_folder
from logsnr.models.precision import resolve_precision
from logsnr.settings.image import DataConfig

NUM_FEATURES = 128
_STEPS, _FEWEST_STEPS, _EPOCHS, _BATCH, _LEARNING_RATE = 400, 30, 100, 128, 4e-3
"""400 steps, but at most 100 times through few images; 30 at least."""
_RECIPE = "small CNN 2"
"""To be changed with anything that changes the file."""
_FEWEST_TESTED = 50


class SmallCNN(nn.Module):
    """Convolutions that halve the image down to about 7 pixels a side, then the mean over places: the features."""

    def __init__(self, channels: int, resolution: int, classes: int) -> None:
        super().__init__()
        halvings = max(0, round(math.log2(resolution / 7)))
        layers: list[nn.Module] = []
        width, stride = channels, 2 if resolution > 32 else 1  # large images are halved at once
        for level in range(halvings + 1 - (stride == 2)):
            wider = min(NUM_FEATURES, 32 << level)
            layers += _block(width, wider, stride)
            width, stride = wider, 2
        self.body = nn.Sequential(*layers, *_block(width, NUM_FEATURES, 1))
        self.head = nn.Linear(NUM_FEATURES, classes)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features and logits of images in [0, 1]."""
        features = self.body(images * 2 - 1).mean(dim=(2, 3))
        return features, self.head(features)


def _block(inputs: int, outputs: int, stride: int) -> list[nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
    return [convolution, nn.BatchNorm2d(outputs), nn.ReLU()]


class Classifier:
    """The trained network as a `FeatureExtractor`."""

    resize = "none"

    def __init__(self, network: SmallCNN, right: int, tested: int, device: str) -> None:
        self.network = network.to(device).eval()
        self.device = device
        accuracy = (
            f"{right / tested:.1%} on {tested} held-out images" if tested else "unknown, as no images are held out"
        )
        self.name = f"small CNN trained on the data's own labels, test accuracy {accuracy}"
        self.digest = digest_of_network(network)

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Features:
        features, logits = self.network(images.to(self.device))
        return Features(features.cpu(), logits.cpu())


def make_classifier(data: ImageData, config: DataConfig, device: str) -> Classifier:
    """The classifier of these data: from the cache, or trained now. Raises ConfigError where they have no classes."""
    if data.examples.class_names is None:  # the model may do without labels that there are, the network can't
        data = open_images(config)
    if data.examples.class_names is None:
        raise ConfigError(
            f"features classifier needs labelled images, and {config.source} has no classes. Use efficientnet-lite0 "
            "or inception."
        )
    content = (_RECIPE, data.fingerprint, config.horizontal_flip)
    path = cache_folder() / f"classifier-{digest_of(repr(content).encode())}.safetensors"
    network = SmallCNN(data.examples.channels, data.examples.resolution, len(data.examples.class_names))
    if path.exists():
        with safe_open(path, "pt") as file:
            network.load_state_dict({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
            right = int(file.metadata()["right"])
    else:
        network = _train(data, device)
        right = _right(network, data, device)
        with replacing_file(path) as temporary:
            save_file(network.state_dict(), temporary, {"right": str(right)})
    classifier = Classifier(network, right, data.num_held_out, device)
    if reason := _doubt(right, data):
        warn_caller(
            f"figures by the features of this network mean little: {reason} ({classifier.name}). Better: --features "
            "efficientnet-lite0."
        )
    return classifier


def _doubt(right: int, data: ImageData) -> str | None:
    """Why the network isn't known to know the classes, if it isn't."""
    counts = class_counts(data)
    assert counts is not None
    if data.num_held_out < _FEWEST_TESTED:
        return f"it was tested on fewer than {_FEWEST_TESTED} images"
    chance = max(counts) / len(data)
    if right / data.num_held_out < chance + (1 - chance) / 4:
        return f"it does little better than always to name the most frequent class, {chance:.1%}"
    return None


def _train(data: ImageData, device: str) -> SmallCNN:
    examples = data.examples
    assert examples.class_names is not None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = SmallCNN(examples.channels, examples.resolution, len(examples.class_names))
    network.to(device).train()
    steps = max(_FEWEST_STEPS, min(_STEPS, _EPOCHS * len(data) // _BATCH))
    optimizer = torch.optim.AdamW(network.parameters(), lr=_LEARNING_RATE, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _LEARNING_RATE, total_steps=steps)
    batches = data.batches(seed=0, batch_size=_BATCH, start_step=0, num_steps=steps)
    for batch in tqdm(batches, "Training the classifier", steps, unit="step", leave=False, delay=2):
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=resolve_precision("auto") == "bf16"):
            _, logits = network(batch.clean.to(device).add(1).div(2))
        loss = F.cross_entropy(logits.float(), batch.condition["class_labels"].to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return network.eval().cpu()


@torch.no_grad()
def _right(network: SmallCNN, data: ImageData, device: str) -> int:
    """How many held-out images it names rightly."""
    network.to(device)
    right = 0
    for batch in data.in_order("held_out", _BATCH):
        logits = network(batch.clean.to(device).add(1).div(2))[1]
        right += int((logits.argmax(1).cpu() == batch.condition["class_labels"]).sum())
    return right
