"""Images a second of `logsnr train`, against a bare loop of forward, backward and optimiser step.

    python benchmarks/training_loop.py

Same network (preset mnist), batch, precision and attention kernel; one process, alternating in blocks of steps: the
bare blocks run inside the real `train`, between two of its steps. Prints train's rate as a share of the bare loop's.
"""

import dataclasses
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from logsnr.models.networks import make_unet
from logsnr.models.precision import resolve_precision
from logsnr.objectives.weighted import WeightedObjective
from logsnr.settings.presets import MNIST
from logsnr.training.train import train

BLOCK, BLOCKS = 10, 16


class Alternating:
    """Takes the place of `WeightedObjective.loss`: before every BLOCK-th call it runs and times a bare block."""

    def __init__(self, batch_size: int) -> None:
        config = MNIST.config
        self.unet = make_unet(config.data, config.model, [str(d) for d in range(10)], seed=0).train()
        self.optimizer = torch.optim.AdamW(self.unet.parameters(), lr=1e-5, fused=True)
        self.x = torch.randn(batch_size, 1, 28, 28)
        self.t = torch.randint(0, 1000, (batch_size,))
        self.y = torch.randint(0, 11, (batch_size,))
        self.bf16 = resolve_precision("auto") == "bf16"
        self.calls = 0
        self.started = 0.0
        self.bare: list[float] = []
        self.ours: list[float] = []
        self.loss = WeightedObjective.loss

    def bare_block(self) -> float:
        start = time.perf_counter()
        for _ in range(BLOCK):
            with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
                output = self.unet(self.x, self.t, self.y).sample
            (output.float() - self.x).square().mean().backward()
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
        return time.perf_counter() - start

    def __call__(self, objective: WeightedObjective, denoiser: Any, batch: Any) -> torch.Tensor:
        if self.calls % BLOCK == 0:
            if self.calls:
                self.ours.append(time.perf_counter() - self.started)
            self.bare.append(self.bare_block())
            self.started = time.perf_counter()
        self.calls += 1
        return self.loss(objective, denoiser, batch)


def main() -> None:
    config = MNIST.config
    options = dataclasses.replace(config.train, num_steps=BLOCK * BLOCKS + 1, held_out_every=0, sample_every=0)
    alternating = Alternating(options.batch_size)
    WeightedObjective.loss = lambda self, denoiser, batch: alternating(self, denoiser, batch)  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as folder:
        train(dataclasses.replace(config, train=options), Path(folder) / "run")
    pairs = list(zip(alternating.ours, alternating.bare, strict=False))[2:]
    ratios = [bare / ours for ours, bare in pairs]
    images = options.batch_size * BLOCK
    print(f"bare loop {images / statistics.median(b for _, b in pairs):.0f} images/s")
    print(f"train     {images / statistics.median(o for o, _ in pairs):.0f} images/s")
    print(f"train / bare, median of {len(ratios)} pairs of blocks: {statistics.median(ratios):.3f}")


if __name__ == "__main__":
    main()
