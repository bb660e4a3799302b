"""A published model repairs where there are torch and diffusers alone, by the code of its card, as it does here."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from loopback_hub import LoopbackHub
from stock_python import link_packages, run_stock_python
from tiny_unet import tiny_unet

from logsnr.pipelines.pipeline_pixel import PixelDiffusionPipeline
from logsnr.pipelines.pipeline_restoration import RestorationPipeline, sources
from logsnr.publishing.publish import look, publish
from logsnr.publishing.stage import stage
from logsnr.schedulers.scheduling_beta import CosineBetaScheduler, LinearBetaScheduler
from logsnr.tasks.load import load

MODELS = {
    "classes": (3, CosineBetaScheduler(prediction_type="v_prediction"), {0: "cat", 1: "dog", 2: "seven"}),
    "plain": (None, LinearBetaScheduler(), None),
}
READER = """
import sys
from pathlib import Path

import numpy as np
import torch

for folder in map(Path, sys.argv[1:]):
    names = {}
    code = (folder / "card.py").read_text().replace("image.png", str(folder / "image.png"))
    exec(compile(code, "card", "exec"), names)
    pipe = names["pipe"]
    pipe.set_progress_bar_config(disable=True)
    operator = pipe.operators.Mask(torch.arange(64).reshape(1, 8, 8) % 3 > 0, noise_std=0.05)
    measurement = operator.measure(torch.linspace(0, 1, 64).reshape(1, 1, 8, 8), 1)
    out = pipe(measurement, operator, num_samples=2, num_inference_steps=4, generator=5, output_type="np")
    np.save(folder / "images.npy", out.images)
assert not any(name.split(".")[0] == "logsnr" for name in sys.modules)
"""


def test_it_repairs_without_logsnr(at_hub: LoopbackHub, tmp_path: Path) -> None:
    """By the code of its card; and by other arguments as it does here."""
    models, outs = {}, []
    for name, (classes, scheduler, id2label) in MODELS.items():
        models[name] = PixelDiffusionPipeline(tiny_unet(classes), scheduler, id2label)
        models[name].save_pretrained(tmp_path / name / "model")
        repo = f"ada/{name}"
        publish(stage(tmp_path / name / "model", repo, tmp_path / name / "staged", None, None, False), repo, look(repo))
        files = at_hub.repo(repo).files()
        assert {file: files[file] for file in sources()} == sources()
        codes = re.findall(r"```python\n(.*?)```", files["README.md"].decode(), re.DOTALL)
        (code,) = (code for code in codes if 'custom_pipeline="pipeline_restoration' in code)
        outs.append(tmp_path / name / "out")
        outs[-1].mkdir()
        (outs[-1] / "card.py").write_text(code)
    (tmp_path / "site").mkdir()
    site = link_packages(tmp_path / "site", "torch", "diffusers")
    run_stock_python(site, READER, *outs, cwd=tmp_path, variables=at_hub.environment(tmp_path / "reader"))
    for out, model in zip(outs, models.values(), strict=True):
        assert (out / "image.png").stat().st_size > 0
        assert np.abs(np.load(out / "images.npy") - repaired_here(model)).max() < 1e-4
    assert type(load("ada/classes")) is PixelDiffusionPipeline  # of the files that repair nothing is read


def repaired_here(model: PixelDiffusionPipeline) -> Any:
    """What READER asks for."""
    pipe = RestorationPipeline(model.unet, model.scheduler)
    pipe.set_progress_bar_config(disable=True)  # type: ignore[no-untyped-call]
    operator = pipe.operators.Mask(torch.arange(64).reshape(1, 8, 8) % 3 > 0, noise_std=0.05)
    measurement = operator.measure(torch.linspace(0, 1, 64).reshape(1, 1, 8, 8), 1)
    out = pipe(measurement, operator, num_samples=2, num_inference_steps=4, generator=5, output_type="np")
    assert not isinstance(out, tuple)
    return out.images
