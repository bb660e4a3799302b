"""`logsnr sample --image`: a picture in a file, changed by a model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import Finished
from PIL import Image
from tiny_prompted import tiny_prompted_unet, tiny_text_encoder, tiny_tokenizer
from tiny_unet import tiny_unet

from logsnr.base.errors import DataError, ModelError
from logsnr.pipelines.pipeline_pixel import PixelDiffusionPipeline
from logsnr.pipelines.pipeline_text_to_image import TextToImagePipeline
from logsnr.sampling.sample import prepare, sample
from logsnr.schedulers.scheduling_beta import CosineBetaScheduler
from logsnr.settings.options import SampleOptions


def by_prompt() -> Any:
    scheduler = CosineBetaScheduler(prediction_type="v_prediction")
    return TextToImagePipeline(tiny_prompted_unet(3), scheduler, tiny_tokenizer(), tiny_text_encoder(), ["a fox"])


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """A picture of 24×16 pixels, four of a colour, and a mask that is white at the left of its middle."""
    blocks = np.random.default_rng(0).integers(0, 256, (8, 12, 3), np.uint8)
    white = np.zeros((16, 24), np.uint8)
    white[:, 4:12] = 255
    picture, mask = tmp_path / "photo.png", tmp_path / "mask.png"
    Image.fromarray(blocks.repeat(2, 0).repeat(2, 1)).save(picture)
    Image.fromarray(white).save(mask)
    return picture, mask


def test_the_middle_of_a_picture_is_changed_where_the_mask_is_white(files: tuple[Path, Path]) -> None:
    picture, mask = files
    options = SampleOptions(num=3, steps=4, batch_size=2, image=picture, mask_image=mask)
    images = sample(by_prompt(), options)
    with Image.open(picture) as opened:
        expected = opened.resize((8, 8), Image.Resampling.BICUBIC, (4, 0, 20, 16))
    clean = torch.from_numpy(np.asarray(expected) / 255).movedim(-1, 0)
    assert images.shape == (3, 3, 8, 8)
    torch.testing.assert_close(images[..., 4:].double(), clean[None, ..., 4:].expand(3, -1, -1, -1), atol=1e-6, rtol=0)
    assert (images[..., :4] - clean[..., :4]).abs().mean() > 0.1
    assert len(torch.unique(images, dim=0)) == 3


def test_strength_is_that_of_the_pipeline_and_a_model_without_words_edits_too(files: tuple[Path, Path]) -> None:
    picture, _ = files
    pipe: Any = PixelDiffusionPipeline(tiny_unet(channels=1), CosineBetaScheduler(prediction_type="v_prediction"))
    near, usual, far = (
        sample(pipe, SampleOptions(num=2, steps=10, image=picture, strength=strength)) for strength in (0.2, None, 0.9)
    )
    torch.testing.assert_close(usual, sample(pipe, SampleOptions(num=2, steps=10, image=picture, strength=0.7)))
    assert near.shape == (2, 1, 8, 8)
    spread = [float(images.std(0).mean()) for images in (near, usual, far)]
    assert spread == sorted(spread)


def test_says_what_is_wrong_with_the_files(files: tuple[Path, Path], tmp_path: Path) -> None:
    picture, _ = files
    pipe = by_prompt()
    (tmp_path / "words.png").write_text("no picture")
    Image.new("L", (8, 8)).save(tmp_path / "small.png")
    Image.new("L", (24, 16)).save(tmp_path / "black.png")
    for options, words in (
        ({"image": tmp_path / "nowhere.png"}, "nowhere.png"),
        ({"image": tmp_path / "words.png"}, r"words.png can't be read: not an image"),
        ({"mask_image": tmp_path / "small.png"}, r"^mask_image must have the size of image, 24×16, and .* is 8×8"),
    ):
        with pytest.raises(DataError, match=words):
            prepare(pipe, SampleOptions(**{"image": picture} | options))  # type: ignore[arg-type]
    for options, words in (
        ({"mask_image": tmp_path / "black.png"}, "mask_image must be white where"),
        ({"strength": 0.01}, "strength must leave one or more of the 20 steps"),
    ):
        with pytest.raises(ModelError, match=words):
            sample(pipe, SampleOptions(num=1, **{"image": picture} | options))  # type: ignore[arg-type]


def test_on_the_command_line(files: tuple[Path, Path], logsnr: Callable[..., Finished], tmp_path: Path) -> None:
    picture, mask = files
    by_prompt().save_pretrained(tmp_path / "model")
    asked = ("--image", picture, "--prompts", "a red fox", "--num", 2, "--steps", 4, "--out", tmp_path / "out")
    end = logsnr("sample", tmp_path / "model", *asked, "--mask-image", mask)
    assert end.status == 0, end.output
    kept = [np.asarray(Image.open(path))[:, 4:] for path in sorted((tmp_path / "out").iterdir())]
    assert len(kept) == 2
    np.testing.assert_array_equal(*kept)
