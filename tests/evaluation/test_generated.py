"""The images that a model is judged by: labels, seeds, and that a drawing goes on where it was."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_unet import tiny_unet

from logsnr.base.errors import ModelError
from logsnr.data.arrays import ArrayExamples
from logsnr.data.seeded import SeededData
from logsnr.evaluation import generated
from logsnr.evaluation.generated import asked_like_the_data, generate
from logsnr.pipelines.pipeline_pixel import PixelDiffusionPipeline
from logsnr.sampling.sample import Request
from logsnr.schedulers.scheduling_beta import CosineBetaScheduler
from logsnr.settings.options import EvaluateOptions
from logsnr.tasks.image import IMAGES


def pipeline(classes: int | None = None) -> PixelDiffusionPipeline:
    made = PixelDiffusionPipeline(tiny_unet(classes), CosineBetaScheduler(prediction_type="v_prediction"))
    made.set_progress_bar_config(disable=True)  # type: ignore[no-untyped-call]
    return made


def data(counts: list[int] | None = None, bits: int = 8) -> SeededData[ArrayExamples]:
    """As many examples of each class; of none without counts. All are trained on."""
    labels = np.repeat(np.arange(len(counts or [])), counts or [])
    conditions = {} if counts is None else {"class_labels": np.random.default_rng(0).permutation(labels)}
    clean = np.zeros((len(labels) or 4, 1, 8, 8), np.float32)
    return SeededData(ArrayExamples(clean, conditions, bits=bits), held_out_fraction=0.0)


def asked(data: SeededData[ArrayExamples], num: int) -> Mapping[str, list[Any]]:
    return asked_like_the_data(IMAGES, data, "train", num)


def test_labels_come_in_the_proportions_of_the_data() -> None:
    counts = [500, 300, 0, 150, 50]
    of_a_thousand = data(counts)
    for num in (40, 400, 4000):
        drawn = np.bincount(asked(of_a_thousand, num)["class_labels"], minlength=5)
        assert drawn[2] == 0
        assert np.abs(drawn - np.array(counts) / 1000 * num).max() < 3
    few, many = (asked(of_a_thousand, num)["class_labels"] for num in (400, 4000))
    assert many[:400] == few
    assert asked(data(), 3) == {}


def test_images_are_those_of_the_pipeline_and_their_seeds(tmp_path: Path) -> None:
    options, unequal = EvaluateOptions(steps=3, seed=7, batch_size=4, guidance_scale=2.0, eta=0.5), data([10, 30])
    found = generate(pipeline(2), tmp_path, "model", unequal, options, 9)
    labels = [int(label) for label in asked(unequal, 9)["class_labels"]]
    for k in (0, 5, 8):
        given: dict[str, Any] = {"num_inference_steps": 3, "guidance_scale": 2.0, "eta": 0.5, "output_type": "pt"}
        image = pipeline(2)(class_labels=[labels[k]], generator=7 + k, **given)
        assert (image.images[0] - found[k]).abs().max() < 0.6 / 255
    assert torch.equal(found.mul(255).round() / 255, found)


def test_a_drawing_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generated, "_SHARD", 4)
    drawn: list[range] = []
    draw = generated.draw

    def watched(pipe: PixelDiffusionPipeline, request: Request, seeds: range, *rest: Any) -> torch.Tensor:
        drawn.append(seeds)
        return draw(pipe, request, seeds, *rest)

    monkeypatch.setattr(generated, "draw", watched)
    options = EvaluateOptions(steps=2, batch_size=3)
    first = generate(pipeline(), tmp_path, "model", data(), options, 10)
    assert drawn == [range(4), range(4, 8), range(8, 10)]
    (folder,) = tmp_path.iterdir()
    assert [path.name for path in sorted(folder.iterdir())] == [f"{k:05}.safetensors" for k in (0, 4, 8)]

    drawn.clear()
    assert torch.equal(generate(pipeline(), tmp_path, "model", data(), options, 10), first)
    assert torch.equal(generate(pipeline(), tmp_path, "model", data(), options, 6), first[:6])
    assert drawn == []
    (folder / "00004.safetensors").unlink()  # as where it was killed
    more = generate(pipeline(), tmp_path, "model", data(), EvaluateOptions(steps=2, batch_size=64), 12)
    assert drawn == [range(4, 8), range(8, 12)]
    assert (more[:10] - first).abs().max() < 1.1 / 255  # another batch size: up to rounding

    for other in (EvaluateOptions(steps=3), EvaluateOptions(steps=2, seed=1), EvaluateOptions(steps=2, eta=1.0)):
        drawn.clear()
        generate(pipeline(), tmp_path, "model", data(), other, 2)
        assert drawn == [range(other.seed, other.seed + 2)]
    generate(pipeline(), tmp_path, "another model", data(), options, 2)
    assert len(drawn) == 2


def test_images_of_sixteen_bits(tmp_path: Path) -> None:
    options = EvaluateOptions(steps=2)
    deep, flat = (generate(pipeline(), tmp_path, "model", data(bits=bits), options, 3) for bits in (16, 8))
    assert torch.equal(deep.mul(65535).round() / 65535, deep)
    assert 0 < (deep - flat).abs().max() < 0.6 / 255
    assert torch.equal(generate(pipeline(), tmp_path, "model", data(bits=16), options, 3), deep)


def test_what_cannot_be_drawn_is_said(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="needs a class-conditional model"):
        generate(pipeline(), tmp_path, "model", data(), EvaluateOptions(guidance_scale=2.0), 2)
    with pytest.raises(ModelError, match="is no scheduler"):
        generate(pipeline(), tmp_path, "model", data(), EvaluateOptions(scheduler="Eular"), 2)
