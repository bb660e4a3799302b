"""A tiny model as it would be published, and what is recorded of its training: for tests of what is said of it."""

from __future__ import annotations

import dataclasses
from typing import Any

from tiny_unet import tiny_unet

from logsnr.pipelines.pipeline_pixel import PixelDiffusionPipeline
from logsnr.publishing.published import Published, Training
from logsnr.schedulers.scheduling_beta import CosineBetaScheduler
from logsnr.settings.image import DataConfig
from logsnr.settings.options import SampleOptions
from logsnr.settings.run import RunConfig, to_record
from logsnr.training.effort import Effort, Session
from logsnr.training.monitor import HeldOutLoss

NAMES = ["calm", 'wild |*_"`', "<b>", "ünder\nway"]


def pipeline(
    names: list[str] | None, prediction_type: str = "v_prediction", variance_type: str = "fixed_small"
) -> PixelDiffusionPipeline:
    out_channels = 2 if variance_type == "learned_range" else 1
    unet = tiny_unet(None if names is None else len(names), out_channels=out_channels)
    scheduler = CosineBetaScheduler(prediction_type=prediction_type, variance_type=variance_type)  # type: ignore[arg-type]
    return PixelDiffusionPipeline(unet, scheduler, None if names is None else dict(enumerate(names)))


def recorded(config: RunConfig, **more: Any) -> dict[str, Any]:
    data = {
        "description": "380 training and 20 held-out images, 8x8, gray, 8 bit, 4 classes",
        "facts": {"id2label": dict(enumerate(NAMES))},
    }
    return to_record(config) | {"local": [], "data": data, "network": {}, "versions": {}, **more}


def session(**values: Any) -> Session:
    made = Session(0, 1000, 90.0, 64, 1, "2 CPU cores", "bf16", {"logsnr": "0.1.0", "torch": "2.13.0"})
    return dataclasses.replace(made, **values)


def training(metrics: dict[str, Any] | None = None, **values: Any) -> Training:
    config = RunConfig(data=DataConfig(source="path/to/images"))
    losses = [HeldOutLoss(1000, 0.25, [0.5] * 10)]
    made = Training(recorded(config), config, Effort([session()], 1000), losses, metrics or {})
    return dataclasses.replace(made, **values)


def published(names: list[str] | None = NAMES, metrics: dict[str, Any] | None = None, **values: Any) -> Published:
    made = Published(
        repo_id="ada/shapes",
        pipeline=pipeline(names),
        code="pipeline_pixel_01234567",
        names_code=names is not None,
        repairs="pipeline_restoration_01234567",
        samples=SampleOptions(num=16, guidance_scale=2.0 if names else None),
        shown=names,
        training=training(metrics),
        curve=None,
        license="apache-2.0",
        data_license=None,
    )
    return dataclasses.replace(made, **values)
