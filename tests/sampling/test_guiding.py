"""Options of guidance, from the command line to what is drawn."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import Finished
from diffusers.guiders.classifier_free_guidance import ClassifierFreeGuidance
from PIL import Image
from safetensors.torch import load_file
from tiny_unet import tiny_unet

from logsnr.base.errors import ConfigError, ModelError
from logsnr.pipelines.pipeline_pixel import PixelDiffusionPipeline
from logsnr.sampling.sample import sample
from logsnr.schedulers.scheduling_beta import CosineBetaScheduler
from logsnr.settings.guidance import GuidanceOptions
from logsnr.settings.options import EvaluateOptions, SampleOptions

Run = Callable[..., Finished]


def pipeline() -> PixelDiffusionPipeline:
    return PixelDiffusionPipeline(tiny_unet(2), CosineBetaScheduler(prediction_type="v_prediction"))


def test_options_become_a_guider_of_diffusers() -> None:
    how = GuidanceOptions(interval=(0.25, 0.75), rescale=0.5)
    options = SampleOptions(num=2, steps=8, eta=0.0, guidance_scale=3.0, guidance=how)
    drawn = sample(pipeline(), options)
    by_hand = pipeline()(
        class_labels=[0, 1],
        num_inference_steps=8,
        generator=[0, 1],
        eta=0.0,
        output_type="pt",
        guider=ClassifierFreeGuidance(guidance_scale=3.0, guidance_rescale=0.5, start=0.25, stop=0.75),
    ).images
    assert torch.equal(drawn, by_hand)
    others = (GuidanceOptions(), GuidanceOptions(rescale=0.5), GuidanceOptions(projected=True))
    drawings = [sample(pipeline(), SampleOptions(**vars(options) | {"guidance": other})) for other in others]
    for one, another in itertools.combinations([drawn, *drawings], 2):
        assert not torch.equal(one, another)


def test_a_run_is_guided_away_from_what_it_was_early(tiny: list[str], tmp_path: Path, logsnr: Run) -> None:
    """RUN/guide holds the average of an early step; it guides a model without classes too."""
    run = tmp_path / "run"
    steps = ("--train.num-steps", 10, "--train.checkpoint-every", 2, "--train.keep-checkpoints", 9)
    end = logsnr("train", *tiny, "--out", run, *steps, "--train.keep-guide", 0.35, "--condition.name", "none")
    assert end.status == 0, end.output
    guide = load_file(run / "guide" / "unet" / "diffusion_pytorch_model.safetensors")
    (early,) = (run / "checkpoints" / "step-00000004").glob("*ema*")
    assert guide.keys() == (kept := load_file(early)).keys()
    assert all(torch.equal(guide[name], kept[name]) for name in guide)

    pictures = {}
    for name, more in {"plain": (), "led": ("--guidance.guide", run / "guide")}.items():
        out = tmp_path / f"{name}.png"
        end = logsnr("sample", run, "--num", 4, "--steps", 3, "--out", out, *more)
        assert end.status == 0, end.output
        pictures[name] = np.asarray(Image.open(out), float)
    assert np.abs(pictures["led"] - pictures["plain"]).max() > 0

    end = logsnr("evaluate", run, "--guidance.guide", run / "guide", "--guidance-scale", 2, "--dry-run")
    assert end.status == 0, end.output
    for wrong, message in ((tmp_path, "holds no model"), ("nobody/nothing", "guidance.guide: There is no folder")):
        end = logsnr("sample", run, "--guidance.guide", wrong)
        assert end.status == 1
        assert message in end.message


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"interval": (0.8, 0.2)}, "guidance.interval must be two shares of the steps, from 0 to 1, the smaller first"),
        ({"interval": (0.0, 1.2)}, "guidance.interval must be two shares"),
        ({"rescale": 1.5}, "guidance.rescale must be in"),
    ],
)
def test_a_wrong_option_is_refused(how: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        GuidanceOptions(**how)


def test_options_that_would_do_nothing_are_refused() -> None:
    how = GuidanceOptions(rescale=0.5)
    with pytest.raises(ConfigError, match="guidance_scale is 1, at which nothing is guided"):
        EvaluateOptions(guidance=how)
    unconditional = PixelDiffusionPipeline(tiny_unet(), CosineBetaScheduler())
    with pytest.raises(ModelError, match="needs a class-conditional model, or a guide"):
        sample(unconditional, SampleOptions(num=1, steps=2, guidance_scale=2.0, guidance=how))
    with pytest.raises(ModelError, match="needs a class-conditional model, or a guide"):
        sample(unconditional, SampleOptions(num=1, steps=2, guidance=how))
