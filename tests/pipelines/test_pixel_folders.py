"""Folders that the pixel pipeline saves: stock where they can be, and loaded where there is no logsnr."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers.models.unets.unet_2d import UNet2DModel
from diffusers.pipelines.ddpm.pipeline_ddpm import DDPMPipeline
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from pixel_parts import NAMES, pipeline, unet_2d
from rounding import assert_same_images

from logsnr.pipelines.pipeline_pixel import PixelDiffusionPipeline
from logsnr.schedulers.scheduling_beta import CosineBetaScheduler, LinearBetaScheduler


def model_index(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "model_index.json").read_text()))


def assert_no_path(folder: Path, *paths: Path) -> None:
    for file in folder.rglob("*.json"):
        for path in (*paths, folder):
            assert str(path) not in file.read_text(), file


def test_unconditional_folder_is_stock(tmp_path: Path, diffusers_log: list[str]) -> None:
    own = CosineBetaScheduler(prediction_type="v_prediction")
    pipe = pipeline(unet_2d(), own)
    pipe.save_pretrained(tmp_path / "a")
    index = model_index(tmp_path / "a")
    assert set(index) == {"_class_name", "_diffusers_version", "unet", "scheduler"}
    assert (index["_class_name"], index["scheduler"]) == ("DDPMPipeline", ["diffusers", "DDPMScheduler"])
    stock = diffusers.DiffusionPipeline.from_pretrained(tmp_path / "a")
    assert type(stock) is DDPMPipeline
    assert torch.equal(stock.scheduler.betas, own.betas)
    assert stock.scheduler.config["_logsnr"] == own.config["_logsnr"]

    again = PixelDiffusionPipeline.from_pretrained(tmp_path / "a").swap_scheduler(CosineBetaScheduler)
    assert torch.equal(again.scheduler.betas, own.betas)
    again.set_progress_bar_config(disable=True)
    images = [p(num_inference_steps=3, generator=0, output_type="pt").images for p in (pipe, again)]
    assert_same_images(*images, evaluations=3)
    again.save_pretrained(tmp_path / "b")
    assert_no_path(tmp_path, tmp_path / "a", tmp_path / "b")
    assert diffusers_log == []


@pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")  # stock's numpy 1 habits
def test_stock_solvers_that_the_stock_pipeline_cannot_run_are_saved_as_ddpm(tmp_path: Path) -> None:
    pipe = pipeline(unet_2d(), DDPMScheduler()).swap_scheduler("EulerDiscrete")
    with pytest.warns(UserWarning, match="EulerDiscreteScheduler is saved as DDPMScheduler"):
        pipe.save_pretrained(tmp_path)
    assert model_index(tmp_path)["scheduler"] == ["diffusers", "DDPMScheduler"]
    assert torch.equal(DDPMPipeline.from_pretrained(tmp_path).scheduler.betas, pipe.scheduler.betas)
    pipe.swap_scheduler("DDIM").save_pretrained(tmp_path)
    assert model_index(tmp_path)["scheduler"] == ["diffusers", "DDIMScheduler"]


def test_save_config_alone_is_not_pushed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="push_to_hub"):
        pipeline(unet_2d()).save_config(tmp_path, push_to_hub=True)


OTHERS_SCHEDULER = """
import torch
from logsnr.schedulers.scheduling_beta import BetaScheduler


class SquareBetaScheduler(BetaScheduler):
    @staticmethod
    def make_betas(num_train_timesteps, *, end=0.03):
        return torch.linspace(0.01, end**0.5, num_train_timesteps) ** 2
"""


def test_a_scheduler_of_the_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_schedules.py").write_text(OTHERS_SCHEDULER)
    monkeypatch.syspath_prepend(tmp_path)
    from my_schedules import SquareBetaScheduler  # type: ignore[import-not-found]

    own = SquareBetaScheduler()
    with pytest.warns(UserWarning, match="saved as DDPMScheduler"):
        pipeline(unet_2d(3), own).save_pretrained(tmp_path / "a")
    assert model_index(tmp_path / "a")["scheduler"] == ["diffusers", "DDPMScheduler"]
    assert torch.equal(DDPMScheduler.from_pretrained(tmp_path / "a" / "scheduler").betas, own.betas)
    with pytest.raises(ValueError, match=r"doesn't stand alone.*x0_minus_noise"):
        pipeline(unet_2d(), SquareBetaScheduler(prediction_type="x0_minus_noise")).save_pretrained(tmp_path / "b")


LOAD = """
import json, os, sys


class NoLogsnr:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "logsnr":
            raise ModuleNotFoundError(f"no {name} here", name=name)


sys.meta_path.insert(0, NoLogsnr())
import numpy as np
from diffusers import DDPMPipeline, DiffusionPipeline

root, stem = sys.argv[1:]
arguments = {"num_inference_steps": 3, "generator": 0, "output_type": "np"}


def run(name, folder, resave=None, labels=None, **how):
    pipe = DiffusionPipeline.from_pretrained(os.path.join(root, folder), **how)
    pipe.set_progress_bar_config(disable=True)
    if resave:
        pipe.save_pretrained(os.path.join(root, resave))
    if type(pipe) is DDPMPipeline:
        return
    np.save(os.path.join(root, name), pipe(class_labels=labels, **arguments).images)


run("a_stock", "plain")
run("a_own", "plain", custom_pipeline=stem, trust_remote_code=True, resave="plain2")
run("b", "classes", labels="dog", trust_remote_code=True, resave="classes2")
run("b2", "classes2", labels=["dog"], trust_remote_code=True)
run("c", "ours_only", trust_remote_code=True)
try:
    run("d", "classes")
except ValueError as error:
    assert "trust_remote_code" in str(error)
else:
    raise AssertionError("ran remote code unasked")
assert not any(m.split(".")[0] == "logsnr" for m in sys.modules)
"""


def test_folders_load_where_logsnr_is_not_installed(tmp_path: Path) -> None:
    own = CosineBetaScheduler(prediction_type="v_prediction")
    plain, classes = pipeline(unet_2d(), own), pipeline(unet_2d(3), own, id2label=NAMES)
    ours_only = pipeline(unet_2d(), LinearBetaScheduler(prediction_type="x0_minus_noise"))
    plain.save_pretrained(tmp_path / "plain")
    classes.save_pretrained(tmp_path / "classes")
    ours_only.save_pretrained(tmp_path / "ours_only")
    index = model_index(tmp_path / "classes")
    stem, cls = index["_class_name"]
    assert cls == "PixelDiffusionPipeline"
    assert (tmp_path / "classes" / f"{stem}.py").is_file()
    assert index["id2label"] == {"0": "cat", "1": "dog", "2": "seven"}
    assert (tmp_path / "classes" / "scheduler" / f"{index['scheduler'][0]}.py").is_file()

    cache = {"HF_HOME": str(tmp_path / "hf"), "HF_MODULES_CACHE": str(tmp_path / "modules"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(tmp_path), stem],
        env={**os.environ, **cache},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "were not found in your environment" not in done.stderr, done.stderr
    assert "are not expected" not in done.stderr, done.stderr
    assert "Expected types" not in done.stderr, done.stderr

    arguments = {"num_inference_steps": 3, "generator": 0, "output_type": "np"}
    saved = {name: np.load(tmp_path / f"{name}.npy") for name in ("a_own", "b", "b2", "c")}
    ddpm = pipeline(plain.unet, DDPMScheduler.from_config(own.config))
    assert_same_images(saved["a_own"], ddpm(**arguments).images, evaluations=3)
    assert_same_images(saved["b"], classes(class_labels=1, **arguments).images, evaluations=3)
    assert_same_images(saved["b2"], saved["b"], evaluations=3)
    assert_same_images(saved["c"], ours_only(**arguments).images, evaluations=3)
    for name in ("plain", "classes"):  # saved again by the remote code: the same files
        assert model_index(tmp_path / name) == model_index(tmp_path / f"{name}2")
        files = [
            sorted(p.relative_to(f).as_posix() for p in f.rglob("*.*"))
            for f in (tmp_path / name, tmp_path / f"{name}2")
        ]
        assert files[0] == files[1]
        assert_no_path(tmp_path / f"{name}2", tmp_path)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("label", [None, 1, "seven"])
def test_to_stock_is_the_same_network(label: Any, dtype: torch.dtype) -> None:
    pipe = pipeline(unet_2d(3).to(dtype), id2label=NAMES)
    stock = pipe.to_stock(label)
    x, t = torch.randn(2, 1, 8, 8, dtype=dtype), torch.tensor(300)
    index = 3 if label is None else pipe.get_label_ids(label)[0]
    with torch.no_grad():
        ours = pipe.unet(x, t, class_labels=torch.full((2,), index)).sample
        its = stock.unet(x, t).sample
    torch.testing.assert_close(
        its, ours, **({"atol": 1e-10, "rtol": 0} if dtype == torch.float64 else {"atol": 1e-5, "rtol": 1e-4})
    )
    assert (type(stock), type(stock.unet), type(stock.scheduler)) == (DDPMPipeline, UNet2DModel, DDPMScheduler)
    assert stock.unet.config["num_class_embeds"] is None
    assert set(stock.unet.config) - {"_use_default_values"} <= set(pipe.unet.config)
    assert torch.equal(stock.scheduler.betas, pipe.scheduler.betas)


def test_to_stock_copies_an_unconditional_model_and_refuses_what_has_no_stock_form(tmp_path: Path) -> None:
    pipe = pipeline(unet_2d())
    stock = pipe.to_stock()
    for name, weight in pipe.unet.state_dict().items():
        assert torch.equal(weight, stock.unet.state_dict()[name])
        assert weight.data_ptr() != stock.unet.state_dict()[name].data_ptr()
    stock.save_pretrained(tmp_path)
    assert torch.equal(DDPMPipeline.from_pretrained(tmp_path).scheduler.betas, pipe.scheduler.betas)
    with pytest.raises(ValueError, match="class-conditional"):
        pipe.to_stock(1)
    with pytest.raises(ValueError, match="no stock form"):
        pipeline(unet_2d(), CosineBetaScheduler(prediction_type="x0_minus_noise")).to_stock()
