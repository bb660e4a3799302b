"""What a step of the optimizer takes, beside forward and backward of the network that the preset mnist has.

    pip install pytorch-optimizer==4.1.0 && python benchmarks/optimizer_step.py

One process, the optimizers in turn, medians of ten rounds. Ours is `logsnr.training.optimizers`: AdamW alone, and Muon
with AdamW on the rest. Beside it Muon as torch has it (matrices alone, so it is given views of the convolutions) and as
pytorch-optimizer has it, by both of its methods; both compute in half precision.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import torch
from pytorch_optimizer import Muon

from logsnr.models.precision import resolve_precision
from logsnr.settings.presets import MNIST
from logsnr.tasks.task import open_task
from logsnr.training.optimizers import hidden_matrices, make_optimizers

ROUNDS = 10


def main() -> None:
    config = replace(MNIST.config, train=replace(MNIST.config.train, learning_rate=1e-9))
    task = open_task(config)
    network = task.network.train()
    batch = next(task.data.batches(seed=0, batch_size=config.train.batch_size, start_step=0, num_steps=1))
    bf16 = resolve_precision("auto") == "bf16"

    def forward_and_backward() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = task.objective.loss(task.denoiser, batch)
        loss.backward()

    forward_and_backward()
    matrices = hidden_matrices(network)
    chosen = {id(matrix) for matrix in matrices}
    rest = [parameter for parameter in network.parameters() if id(parameter) not in chosen]
    views = [torch.nn.Parameter(matrix.detach().flatten(1)) for matrix in matrices]
    for view, matrix in zip(views, matrices, strict=True):
        assert matrix.grad is not None
        view.grad = matrix.grad.flatten(1)

    def library(method: str) -> Callable[[], object]:
        return Muon(
            [{"params": matrices, "use_muon": True}, {"params": rest, "use_muon": False}],
            lr=1e-9,
            adamw_lr=1e-9,
            use_adjusted_lr=True,
            ns_method=method,
        ).step

    def ours(optimizer: str) -> Callable[[], object]:
        made = make_optimizers(network, replace(config.train, optimizer=optimizer))
        return lambda: [each.step() for each in made]

    candidates: dict[str, Callable[[], object]] = {
        "forward and backward": forward_and_backward,
        "adamw": ours("adamw"),
        "muon": ours("muon"),
        "torch.optim.Muon, matrices alone": torch.optim.Muon(views, lr=1e-9).step,
        "pytorch-optimizer, newton_schulz": library("newton_schulz"),
        "pytorch-optimizer, gram_newton_schulz": library("gram_newton_schulz"),
    }
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(ROUNDS + 1):
        for name, step in candidates.items():
            start = time.perf_counter()
            step()
            seconds[name].append(time.perf_counter() - start)
    for name, taken in seconds.items():
        print(f"{name:40} {1000 * statistics.median(taken[1:]):8.1f} ms")


if __name__ == "__main__":
    main()
