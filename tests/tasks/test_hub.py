"""A trained model as others get it: loaded by us and by stock diffusers, and sampled from the command line."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import Finished, run
from diffusers.models.unets.unet_2d import UNet2DModel
from diffusers.pipelines.ddpm.pipeline_ddpm import DDPMPipeline
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from PIL import Image
from safetensors.torch import load_file
from tiny_unet import tiny_unet

import logsnr as package
from logsnr.base.errors import ModelError
from logsnr.pipelines.pipeline_pixel import PixelDiffusionPipeline
from logsnr.schedulers.scheduling_beta import CosineBetaScheduler
from logsnr.tasks.load import load

Run = Callable[..., Finished]


@pytest.fixture(scope="module")
def trained(tiny: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("trained")
    assert run(path / "log.txt", "train", *tiny, "--out", path / "run").status == 0
    return path / "run"


@pytest.fixture(scope="module")
def unconditional(tiny: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("unconditional")
    assert run(path / "log.txt", "train", *tiny, "--condition.name", "none", "--out", path / "run").status == 0
    return path / "run"


def images(folder: Path) -> dict[str, bytes]:
    return {path.name: Image.open(path).tobytes() for path in sorted(folder.iterdir())}


# load


def test_load_takes_a_run_and_its_folders(trained: Path) -> None:
    weights = load_file(trained / "model" / "unet" / "diffusion_pytorch_model.safetensors")
    for source in (trained, trained / "model", str(trained)):
        pipeline = package.load(source)
        assert type(pipeline) is PixelDiffusionPipeline
        assert type(pipeline.scheduler) is CosineBetaScheduler
        assert pipeline.id2label == {0: "dark", 1: "light"}
        assert pipeline.scheduler.prediction_type == "v_prediction"
        for name, value in pipeline.unet.state_dict().items():
            assert torch.equal(value, weights[name])
    stock = load(trained / "stock")
    assert stock.num_classes is None
    assert stock.id2label is None
    null = load(trained)(batch_size=2, num_inference_steps=3, generator=0, output_type="np").images
    again = stock(batch_size=2, num_inference_steps=3, generator=0, output_type="np").images
    assert np.abs(null - again).max() < 1e-3


def test_stock_diffusers_loads_what_was_trained(trained: Path, unconditional: Path) -> None:
    pipeline = DiffusionPipeline.from_pretrained(trained / "stock")
    assert type(pipeline) is DDPMPipeline
    assert type(pipeline.unet) is UNet2DModel
    assert pipeline.scheduler.config.trained_betas == pytest.approx(load(trained).scheduler.betas.tolist())
    assert not (unconditional / "stock").exists()
    assert type(DiffusionPipeline.from_pretrained(unconditional / "model")) is DDPMPipeline


def test_load_says_what_is_wrong(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"There is no folder \./nowhere"):
        load("./nowhere")
    with pytest.raises(ModelError, match=r"holds no model: there is no model_index\.json in it"):
        load(tmp_path)
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    with pytest.raises(ModelError, match=r"Training isn't finished; `logsnr export .*run` makes a model of the last"):
        load(tmp_path / "run")
    copy = tmp_path / "model"
    for damage, words in [
        (lambda: (copy / "model_index.json").write_text("{"), "model_index.json can't be read"),
        (lambda: (copy / "scheduler" / "scheduler_config.json").unlink(), "scheduler_config.json can't be read"),
        (lambda: (copy / "unet" / "diffusion_pytorch_model.safetensors").unlink(), "its network can't be loaded"),
        (lambda: rename_schedule(copy), "made with the schedule NoSuchScheduler, which isn't known here"),
    ]:
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(trained / "model", copy)
        damage()
        with pytest.raises(ModelError, match=words):
            load(copy)


def rename_schedule(model: Path) -> None:
    path = model / "scheduler" / "scheduler_config.json"
    path.write_text(path.read_text().replace("CosineBetaScheduler", "NoSuchScheduler"))


def test_a_truncated_model_is_refused(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained / "model", tmp_path / "model")
    path = tmp_path / "model" / "unet" / "diffusion_pytorch_model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(ModelError, match="its network can't be loaded"):
        load(tmp_path / "model")


def test_a_stock_model_of_others_can_be_loaded(tmp_path: Path) -> None:
    DDPMPipeline(tiny_unet(), DDIMScheduler()).save_pretrained(tmp_path / "stock")
    pipeline = load(tmp_path / "stock")
    assert type(pipeline.scheduler) is DDIMScheduler
    assert pipeline(num_inference_steps=2, generator=0).images[0].size == (8, 8)


# logsnr sample


def test_an_image_is_the_same_in_any_batch(trained: Path, tmp_path: Path, logsnr: Run) -> None:
    common = ("sample", trained, "--num", 7, "--steps", 4, "--seed", 11, "--eta", 0.5)
    for size in (1, 3, 64):
        end = logsnr(*common, "--batch-size", size, "--out", tmp_path / str(size))
        assert end.status == 0
        assert f"7 images in the folder {tmp_path / str(size)}" in end.output
    assert list(images(tmp_path / "64")) == [f"seed-{k:06d}.png" for k in range(11, 18)]
    one, three, all_of_them = (images(tmp_path / size) for size in ("1", "3", "64"))
    for name, pixels in all_of_them.items():
        for other in (one, three):  # round-off may move a value over the edge of rounding
            a, b = (np.frombuffer(p, np.uint8).astype(int) for p in (pixels, other[name]))
            assert abs(a - b).max() <= 1
    # a seed names an image, whatever else is made
    assert (
        logsnr(
            *common[:3],
            1,
            *common[4:6],
            "--seed",
            13,
            "--eta",
            0.5,
            "--class-labels",
            "dark",
            "--out",
            tmp_path / "alone",
        ).status
        == 0
    )
    a, b = (
        np.frombuffer(p, np.uint8).astype(int)
        for p in (images(tmp_path / "alone")["seed-000013.png"], all_of_them["seed-000013.png"])
    )
    assert abs(a - b).max() <= 1


def test_labels_by_name_and_by_number(trained: Path, tmp_path: Path, logsnr: Run) -> None:
    for name, labels in {"names": ("light", "dark"), "numbers": (1, 0), "other": (0, 1)}.items():
        end = logsnr("sample", trained, "--num", 3, "--steps", 3, "--class-labels", *labels, "--out", tmp_path / name)
        assert end.status == 0
    assert images(tmp_path / "names") == images(tmp_path / "numbers")
    assert images(tmp_path / "names") != images(tmp_path / "other")
    end = logsnr("sample", trained, "--num", 3, "--steps", 3, "--out", tmp_path / "default")
    assert end.output.startswith("Classes, in turn: dark, light (or give --class-labels)\n")
    assert images(tmp_path / "default") == images(tmp_path / "other")  # all classes in turn


def test_guidance_and_scheduler(trained: Path, tmp_path: Path, logsnr: Run) -> None:
    made = {}
    for name, options in {
        "default": (),
        "two": ("--guidance-scale", 2),
        "one": ("--guidance-scale", 1),
        "dpm": ("--scheduler", "DPMSolverMultistepScheduler"),
        "short": ("--scheduler", "DPMSolverMultistep"),
        "ddpm": ("--eta", 1.0),
    }.items():
        assert logsnr("sample", trained, "--num", 2, "--steps", 4, *options, "--out", tmp_path / name).status == 0
        made[name] = images(tmp_path / name)
    assert made["default"] == made["two"]
    assert made["dpm"] == made["short"]
    assert len({str(made[name]) for name in ("one", "two", "dpm", "ddpm")}) == 4


def test_a_grid_or_a_folder(trained: Path, unconditional: Path, tmp_path: Path, logsnr: Run) -> None:
    for source in (trained, unconditional):
        end = logsnr("sample", source, "--num", 5, "--steps", 2, "--out", tmp_path / "new" / "grid.PNG")
        assert end.status == 0
        assert f"5 images in {tmp_path / 'new' / 'grid.PNG'}" in end.output
        assert Image.open(tmp_path / "new" / "grid.PNG").size[0] > 16
    assert logsnr("sample", trained / "stock", "--num", 2, "--steps", 2, "--out", tmp_path / "stock").status == 0
    assert Image.open(tmp_path / "stock" / "seed-000000.png").size == (8, 8)
    more = ("sample", trained / "stock", "--num", 1, "--steps", 2, "--out", tmp_path / "stock")
    assert logsnr(*more, "--seed", 2).status == 0
    assert [path.name for path in sorted((tmp_path / "stock").iterdir())] == [f"seed-{k:06d}.png" for k in range(3)]
    (tmp_path / "stock" / "cat.png").write_bytes(b"")
    assert "it holds cat.png. Name another --out." in logsnr(*more, "--seed", 3).message
    assert not (tmp_path / "stock" / "seed-000003.png").exists()


def test_dry_run_of_sample(trained: Path, tmp_path: Path, logsnr: Run) -> None:
    end = logsnr("sample", trained, "--num", 5, "--seed", 3, "--dry-run", "--out", tmp_path / "grid.png")
    assert end.status == 0
    assert "8x8 gray, 2 classes (dark, light), predicts v_prediction, " in end.output
    assert "Classes, in turn: dark, light (or give --class-labels)\n" in end.output
    assert "in 20 steps of DPMSolverMultistepScheduler (sde-dpmsolver++)." in end.output
    assert f"Would make 5 images of seeds from 3 in {tmp_path / 'grid.png'}" in end.output
    assert "Classes, in turn: dark (or" in logsnr("sample", trained, "--num", 1, "--dry-run").output
    assert "in turn" not in logsnr("sample", trained, "--class-labels", "light", "--dry-run").output
    assert "in turn" not in logsnr("sample", trained / "stock", "--dry-run").output
    assert "no class" in logsnr("sample", trained, "--class-labels", "grey", "--dry-run").message
    assert not (tmp_path / "grid.png").exists()


def test_what_cannot_be_sampled(trained: Path, unconditional: Path, tmp_path: Path, logsnr: Run) -> None:
    few = ("--num", 2, "--steps", 2, "--out", tmp_path / "x.png")
    for source, options, words in [
        (trained, ("--class-labels", "drak"), "'drak', which is no class. Did you mean 'dark'? Classes: dark, light."),
        (trained, ("--class-labels", 2), "--class-labels must be in 0..1, and has 2."),
        (unconditional, ("--class-labels", 0), "--class-labels needs a class-conditional model"),
        (unconditional, ("--guidance-scale", 2), "--guidance-scale 2.0 needs a class-conditional model"),
        (trained, ("--scheduler", "DPMSolverMultistp"), "error: --scheduler 'DPMSolverMultistp' is no scheduler."),
        (trained, ("--scheduler", "EDMEulerScheduler"), "EDMEuler"),
        (trained, ("--steps", 1001), "--steps must be at most 1000, the length of the model's chain, and is 1001."),
        (trained, ("--steps", 1001, "--dry-run"), "--steps must be at most 1000"),
        (trained, ("--eta", 1.5), "eta must be in [0, 1]"),
        (trained, ("--scheduler", "DPMSolverMultistep", "--eta", 0.5), "eta can't be given to"),
        ("./nowhere", (), "There is no folder ./nowhere."),
    ]:
        message = logsnr("sample", source, *few, *options).message
        assert words in message
        assert len(message.splitlines()) == 1
    assert not (tmp_path / "x.png").exists()
    message = logsnr("sample", trained, *few, "--out", tmp_path / "log.txt" / "x.png").message
    assert f"{tmp_path / 'log.txt' / 'x.png'} can't be written" in message


# logsnr export


def test_export_of_an_unfinished_run(tiny: list[str], tmp_path: Path, logsnr: Run) -> None:
    unfinished = tmp_path / "run"
    none = logsnr(
        "train",
        *tiny,
        "--train.learning-rate",
        1e12,
        "--train.max-grad-norm",
        1e12,
        "--train.lr-warmup-steps",
        0,
        "--train.checkpoint-every",
        5,
        "--out",
        unfinished,
    )
    assert none.status == 1
    message = logsnr("export", unfinished).message
    assert f"{unfinished} has no checkpoint yet; the first is written at step 5." in message
    shutil.rmtree(unfinished)

    assert logsnr("train", *tiny, "--out", unfinished).status == 0
    for name in ("model", "stock", "checkpoints/step-00000012"):
        shutil.rmtree(unfinished / name)
    message = logsnr("sample", unfinished, "--num", 2, "--steps", 2).message
    assert f"`logsnr export {unfinished}` makes a model of the last checkpoint." in message
    end = logsnr("export", unfinished)
    assert end.status == 0
    assert end.output == f"{unfinished / 'model'} is done.\n{unfinished / 'stock'} is done.\n"
    assert logsnr("sample", unfinished, "--num", 2, "--steps", 2, "--out", tmp_path / "x.png").status == 0
    ema = load_file(unfinished / "checkpoints" / "step-00000008" / "ema.safetensors")
    exported = load_file(unfinished / "model" / "unet" / "diffusion_pytorch_model.safetensors")
    assert all(torch.equal(ema[name], value) for name, value in exported.items())

    assert logsnr("export", unfinished, "--out", tmp_path / "elsewhere").status == 0
    assert load(tmp_path / "elsewhere").id2label == {0: "dark", 1: "light"}
    assert "There is no folder" in logsnr("export", tmp_path / "nothing").message


def test_export_of_one_class(trained: Path, unconditional: Path, tmp_path: Path, logsnr: Run) -> None:
    for name, label in [("by name", "light"), ("by number", 1)]:
        assert logsnr("export", trained, "--class-label", label, "--out", tmp_path / name).status == 0
        pipeline = DiffusionPipeline.from_pretrained(tmp_path / name)
        assert type(pipeline) is DDPMPipeline
        sampled = load(tmp_path / name)(batch_size=2, num_inference_steps=3, generator=4, output_type="np").images
        wanted = load(trained)(class_labels=["light"] * 2, num_inference_steps=3, generator=4, output_type="np").images
        assert np.abs(sampled - wanted).max() < 1e-3
    assert logsnr("export", trained, "--class-label", 0, "--out", tmp_path / "by name").status == 0  # anew

    for source, options, words in [
        (trained, ("--class-label", "grey", "--out", tmp_path / "x"), "--class-label has 'grey', which is no class"),
        (trained, ("--class-label", 7, "--out", tmp_path / "x"), "--class-label must be in 0..1, and has 7"),
        (trained, ("--class-label", 1), "--class-label needs --out, the folder that becomes the model"),
        (unconditional, ("--class-label", 1, "--out", tmp_path / "x"), "this model has no classes."),
        (unconditional, ("--class-label", 1), "this model has no classes."),
    ]:
        assert words in logsnr("export", source, *options).message
    assert not (tmp_path / "x").exists()


def test_export_does_not_replace_a_folder_that_is_no_model(trained: Path, tmp_path: Path, logsnr: Run) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "holiday.png").write_bytes(b"dear")
    for out in (tmp_path / "pictures", "."):
        message = logsnr("export", trained, "--class-label", 1, "--out", out).message
        assert f"{out} exists and is no model" in message
    (tmp_path / "pictures").rename(tmp_path / "model")
    assert f"{tmp_path / 'model'} exists and is no model" in logsnr("export", trained, "--out", tmp_path).message
    (tmp_path / "model").rename(tmp_path / "pictures")
    assert (tmp_path / "pictures" / "holiday.png").read_bytes() == b"dear"


def test_loading_says_nothing_in_normal_use(trained: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(trained)(class_labels=["dark"], num_inference_steps=2, generator=0)
