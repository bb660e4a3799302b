"""A recipe: how a network is made and trained on a set of pictures, and a training by it, a step at a time.

For levers.py and time_to_quality.py. The parts are those of logsnr; the loop is its own, so that what logsnr doesn't
offer can be tried beside it.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn
from torch.nn import functional

from logsnr.evaluation.extractors import Features, make_extractor
from logsnr.objectives.targets import target
from logsnr.objectives.timesteps import draw_timesteps
from logsnr.settings.condition import ClassLabelConfig, NoConditionConfig
from logsnr.settings.image import DataConfig, ModelConfig
from logsnr.settings.objective import (
    SigmoidWeighting,
    WeightedConfig,
    WeightingConfig,
)
from logsnr.settings.run import RunConfig, TrainConfig
from logsnr.settings.schedule import ScheduleConfig
from logsnr.tasks.task import open_task
from logsnr.training.optimizers import make_optimizers
from logsnr.training.train import learning_rate

LENGTHS = (0.03, 0.07, 0.15)
"""Averages of the weights with this standard deviation, as a share of training (Karras et al. 2023, 2312.02696)."""


@dataclass(frozen=True)
class Recipe:
    """How a network is made and trained: a lever changes some of it."""

    optimizer: str = "muon"
    learning_rate: float = 5e-3
    adam_rate: float | None = None  # of what Muon leaves; that of Muon when None
    beta1: float = 0.9  # of AdamW alone
    beta2: float = 0.99
    decay: float = 0.01
    clip: float = 1.0
    warm_up: int = 50
    annealing: str = "cosine"  # or the share of steps at the end in which the rate falls linearly
    batch: int = 64
    classes: bool = True
    dropped: float = 0.2
    weighting: WeightingConfig = dataclasses.field(default_factory=SigmoidWeighting)
    schedule: str = "cosine"
    shift: float = 0.0
    target: str = "v_prediction"
    channels: tuple[int, ...] = (16, 32, 64)
    layers: int = 1
    attention: tuple[int, ...] = (2,)
    head: int = 64
    groups: int = 8
    time: str = "default"
    dropout: float = 0.0
    zero: bool = True  # as networks begin
    flip: bool = False
    immiscible: bool = False
    independent: bool = False  # timesteps drawn independently, not as an even cover
    small: float = 0.0  # share of the steps at the beginning that are at half the resolution
    opaque: str = "no"  # RGBA: "premultiplied", or "weighted" by opacity
    seed: int = 0


DATA = {
    "mnist": ({}, {"source": "mnist-5k", "resolution": 28, "channels": 1}),
    "fashion": ({"flip": True}, {"resolution": 28, "channels": 1}),
    "emoji": ({"channels": (32, 64, 96), "head": 32}, {"resolution": 32, "channels": 4}),
    "tiles": ({"channels": (32, 64, 96), "head": 32, "flip": True}, {"resolution": 32, "channels": 3}),
}


def config_of(data: str, source: str | None, recipe: Recipe, steps: int) -> RunConfig:
    where = DATA[data][1] | ({"source": source} if source else {})
    return RunConfig(
        data=DataConfig(**where, horizontal_flip=recipe.flip),
        schedule=ScheduleConfig(recipe.schedule, prediction_type=recipe.target, shift=recipe.shift),
        model=ModelConfig(
            block_out_channels=recipe.channels,
            layers_per_block=recipe.layers,
            attention_levels=recipe.attention,
            attention_head_dim=recipe.head,
            norm_num_groups=recipe.groups,
            resnet_time_scale_shift=recipe.time,
            dropout=recipe.dropout,
        ),
        objective=WeightedConfig(recipe.weighting),
        condition=ClassLabelConfig(dropout=recipe.dropped) if recipe.classes else NoConditionConfig(),
        train=TrainConfig(
            num_steps=steps,
            batch_size=recipe.batch,
            optimizer=recipe.optimizer,
            learning_rate=recipe.learning_rate,
            lr_warmup_steps=recipe.warm_up,
            weight_decay=recipe.decay,
            adam_beta2=recipe.beta2,
            seed=recipe.seed,
        ),
    )


def straight(recipe: Recipe, step: int, steps: int) -> float:
    """The share of the peak rate: constant, and a straight line to 0 in the last `annealing` of the steps."""
    warm = min(1.0, (step + 1) / max(1, recipe.warm_up))
    return warm * min(1.0, (steps - step) / (steps * float(recipe.annealing)))


def exponent(length: float) -> float:
    """gamma of the average whose profile t^gamma has that standard deviation (2312.02696, eq. 126)."""
    roots = np.roots([1, 7, 16 - length**-2, 12 - length**-2])
    return float(roots[np.isreal(roots) & (roots.real >= 0)].real.max())


class Averages:
    """The present average, and those by power functions, of a network's parameters."""

    def __init__(self, network: nn.Module) -> None:
        self.parameters = [p for p in network.parameters() if p.requires_grad]
        self.kept = {name: [p.detach().clone() for p in self.parameters] for name in ("0.999", *map(str, LENGTHS))}
        self.exponents = {str(length): exponent(length) for length in LENGTHS}
        self.count = 0

    @torch.no_grad()
    def step(self) -> None:
        self.count += 1
        for name, kept in self.kept.items():
            share = 1 - min(0.999, self.count / (9 + self.count))
            if name != "0.999":
                share = 1 - (1 - 1 / self.count) ** (self.exponents[name] + 1)
            torch._foreach_lerp_(kept, self.parameters, share)

    @torch.no_grad()
    def use(self, name: str) -> None:
        torch._foreach_copy_(self.parameters, self.kept[name])


class Training:
    """A recipe under way, step by step, on pictures that are all on the device; on a GPU the step is a CUDA graph."""

    def __init__(self, data: str, source: str | None, recipe: Recipe, steps: int, device: torch.device) -> None:
        self.recipe, self.steps, self.step = recipe, steps, 0
        self.task = open_task(config_of(data, source, recipe, steps), device=device)
        self.network = self.task.network.train()
        if not recipe.zero:
            for module in self.network.modules():
                if isinstance(module, nn.Conv2d) and not module.weight.any():
                    module.reset_parameters()
        self.optimizers = make_optimizers(self.network, self.task.config.train)
        self.optimizers[0].param_groups[0]["betas"] = (recipe.beta1, recipe.beta2)
        self.averages = Averages(self.network)
        self.losses: list[Tensor] = []
        self.graph: Any = None

        parts = list(self.task.data.in_order("train", 1000))
        self.clean = torch.cat([part.clean for part in parts]).to(device)
        if recipe.opaque == "premultiplied":
            self.clean[:, :3] = (self.clean[:, :3] / 2 + 0.5) * (self.clean[:, 3:] / 2 + 0.5) * 2 - 1
        self.labels = torch.cat([part.condition["class_labels"] for part in parts]) if parts[0].condition else None
        self.generator = torch.Generator().manual_seed(recipe.seed)
        self.noises = torch.Generator(device).manual_seed(recipe.seed)
        count = min(steps, 20_000) * recipe.batch
        epochs = -(-count // len(self.clean))
        self.order = torch.cat([torch.randperm(len(self.clean), generator=self.generator) for _ in range(epochs)])
        schedule = self.task.schedule
        t = torch.from_numpy(draw_timesteps(recipe.seed, np.arange(count), len(schedule)))
        if recipe.independent:
            t = torch.randint(len(schedule), t.shape, generator=self.generator)
        self.t = t.to(device)
        if self.labels is not None:
            classes = len(self.task.data.examples.class_names)
            dropped = torch.rand(count, generator=self.generator) < recipe.dropped
            self.labels = torch.where(dropped, classes, self.labels[self.order[:count]]).to(device)
        self.order = self.order.to(device)

    def inputs(self) -> list[Tensor]:
        """x_t, t, the class, what is to be said and how its error is weighted, and the weight of its noise level."""
        recipe, schedule, weights = self.recipe, self.task.schedule, self.task.objective.weights
        rows = slice(self.step * recipe.batch, (self.step + 1) * recipe.batch)
        clean, t = self.clean[self.order[rows]], self.t[rows]
        if recipe.flip:
            mirrored = torch.rand(len(clean), generator=self.generator).lt(0.5).to(clean.device)
            clean = torch.where(mirrored[:, None, None, None], clean.flip(3), clean)
        if self.step < recipe.small * self.steps:  # of 28 pixels 16: half of them can't be halved twice
            side = -(-clean.shape[-1] // 2 // 4) * 4
            clean = functional.interpolate(clean, (side, side), mode="area")
        noise = torch.randn(clean.shape, generator=self.noises, device=clean.device)
        if recipe.immiscible:
            distances = torch.cdist(clean.flatten(1), noise.flatten(1)).square().cpu().numpy()
            noise = noise[torch.from_numpy(linear_sum_assignment(distances)[1]).to(clean.device)]
        root = torch.ones_like(clean)
        if recipe.opaque == "weighted":
            root[:, :3] = (clean[:, 3:] / 2 + 0.5).clamp(min=0.05).sqrt()
        labels = torch.zeros_like(t) if self.labels is None else self.labels[rows]
        wanted = target(schedule, clean, noise, t) * root
        return [schedule.add_noise(clean, noise, t), t, labels, wanted, root, weights[t]]

    def backward(self, x_t: Tensor, t: Tensor, labels: Tensor, wanted: Tensor, root: Tensor, weights: Tensor) -> Tensor:
        """The loss, its gradients left in the parameters."""
        condition = {} if self.labels is None else {"class_labels": labels}
        output, _ = self.task.denoiser(x_t, t, condition)
        loss = ((output * root - wanted).square().flatten(1).mean(1) * weights).mean()
        loss.backward()
        return loss.detach()

    def replay(self, inputs: list[Tensor]) -> Tensor:
        """`backward` by a CUDA graph, captured at the first batch of a shape."""
        if self.graph is None or self.static[0].shape != inputs[0].shape:
            self.static = [x.clone() for x in inputs]
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(3):
                    self.network.zero_grad(set_to_none=True)
                    self.backward(*self.static)
            torch.cuda.current_stream().wait_stream(stream)
            self.network.zero_grad(set_to_none=True)
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph):
                self.loss = self.backward(*self.static)
        torch._foreach_copy_(self.static, inputs)
        self.graph.replay()
        return self.loss.clone()

    def advance(self) -> None:
        peak = self.recipe.learning_rate
        factor = learning_rate(self.task.config, self.step) / peak
        if self.recipe.annealing != "cosine":
            factor = straight(self.recipe, self.step, self.steps)
        for optimizer in self.optimizers:
            own = peak if type(optimizer).__name__ == "Muon" else self.recipe.adam_rate or peak
            for group in optimizer.param_groups:
                group["lr"] = own * factor
        inputs = self.inputs()
        if inputs[0].is_cuda:
            loss = self.replay(inputs)
        else:
            self.network.zero_grad(set_to_none=True)
            loss = self.backward(*inputs)
        nn.utils.clip_grad_norm_(self.network.parameters(), self.recipe.clip)
        for optimizer in self.optimizers:
            optimizer.step()
        self.averages.step()
        self.losses.append(loss)
        self.step += 1


def reference(name: str, data: Any, config: DataConfig, device: str) -> tuple[Any, Features]:
    """The network that sees pictures of this set, and what it says of the training pictures, in no order."""
    extractor = make_extractor(
        "classifier" if name in ("mnist", "fashion") else "efficientnet-lite0", data, config, device
    )
    real = torch.cat([batch.clean / 2 + 0.5 for batch in data.in_order("train", 500, 5000)])
    order = torch.randperm(len(real), generator=torch.Generator().manual_seed(0))  # a source often comes in some order
    return extractor, features_of(extractor, real[order])


def features_of(extractor: Any, images: Tensor) -> Features:
    parts = [extractor(part) for part in images.split(100)]
    logits = torch.cat([part.logits for part in parts]) if parts[0].logits is not None else None
    return Features(torch.cat([part.features for part in parts]), logits)
