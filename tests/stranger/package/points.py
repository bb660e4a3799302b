"""A kind of data that the package has never heard of: points in the plane, of a mixture of three Gaussians."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image
from points_model import PointsMLP, PointsPipeline

from logsnr.conditions.class_label import ClassLabel
from logsnr.data.arrays import ArrayExamples
from logsnr.data.seeded import SeededData
from logsnr.media.medium import Medium
from logsnr.media.plots import as_image
from logsnr.settings.choice import Name
from logsnr.settings.condition import ConditionConfig
from logsnr.settings.kind import Kind
from logsnr.settings.objective import ElboWeighting, WeightedConfig
from logsnr.settings.presets import Preset
from logsnr.settings.run import RunConfig, TrainConfig
from logsnr.settings.schedule import ScheduleConfig
from logsnr.tasks.parts import Parts

MEANS, STD = np.array([[-0.6, -0.4], [0.7, -0.3], [0.0, 0.6]]), 0.15


@dataclass(frozen=True)
class PointsData:
    num: int = 4000


@dataclass(frozen=True)
class PointsModel:
    hidden: int = 64


@dataclass(frozen=True)
class ComponentConfig(ConditionConfig):
    name: Name = field(default="component", init=False)
    dropout: float = 0.2


class PointsMedium(Medium):
    def show(self, samples: torch.Tensor, columns: Any = None, row_labels: Any = ()) -> Image.Image:
        (figure := Figure(figsize=(2, 2))).subplots().scatter(*samples.T.numpy(), s=2)
        return as_image(figure)

    def write(self, samples: torch.Tensor, folder: Path, names: Any) -> None:
        for name, sample in zip(names, samples, strict=True):
            np.save(folder / f"{name}.npy", sample.numpy())


class PointsParts(Parts):
    network_class, medium, noun = PointsMLP, PointsMedium(), "point"

    def open_data(self, config: RunConfig) -> Any:
        rng = np.random.default_rng(0)
        component = rng.integers(3, size=config.data.num)
        points = MEANS[component] + STD * rng.normal(size=(config.data.num, 2))
        return SeededData(ArrayExamples(points.astype(np.float32), {"component": component}, "point"), 0.1)

    def make_network(self, config: RunConfig, data: Any) -> PointsMLP:
        torch.manual_seed(config.train.seed)
        return PointsMLP(config.schedule.num_train_timesteps, config.model.hidden)

    def conditioner(self, network: Any, data: Any = None) -> ClassLabel:
        return ClassLabel(3, "component")

    def pipeline(self, network: Any, scheduler: Any, facts: Any) -> PointsPipeline:
        return PointsPipeline(network, scheduler)

    def arguments(self, pipeline: Any, options: Any) -> dict[str, list[int]]:
        chosen = [int(word) for word in options.class_labels or range(3)]
        return {"component": (chosen * options.num)[: options.num]}

    def shape(self, pipeline: Any) -> tuple[int]:
        return (2,)


TRAIN = TrainConfig(num_steps=1200, batch_size=512, learning_rate=0.01, mixed_precision="no", checkpoint_every=200)
PARTS = PointsParts()
KIND = Kind("points", PointsData, PointsModel, "points:PARTS", ("PointsPipeline",), {}, lambda data, model: None)
SETTINGS = (PointsData(), ScheduleConfig(num_train_timesteps=100), PointsModel(), WeightedConfig(ElboWeighting()))
PRESET = Preset("4,000 points in the plane: seconds", RunConfig(*SETTINGS, ComponentConfig(), TRAIN, "points"))
