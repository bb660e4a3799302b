"""Model folders: one hash of a model, the same wherever it lies, and another for whatever draws otherwise."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from loopback_hub import LoopbackHub
from safetensors.torch import load_file, save_file
from tiny_unet import tiny_unet

from logsnr.base.errors import ModelError
from logsnr.folders.model_folder import (
    FEW_STEP_FOLDER,
    NETWORK,
    SCHEDULER_CONFIG,
    code_files,
    components,
    data_files,
    find_model,
    model_digest,
)
from logsnr.models.locate import locate
from logsnr.pipelines.pipeline_pixel import PixelDiffusionPipeline
from logsnr.schedulers.scheduling_beta import CosineBetaScheduler
from logsnr.schedulers.scheduling_consistency import ConsistencyScheduler
from logsnr.schedulers.scheduling_few_step import FewStepScheduler
from logsnr.tasks.load import load

WEIGHTS = f"{NETWORK}/diffusion_pytorch_model.safetensors"
FORMS = ("stock", "classes", "distilled")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Run folders: with a model that is stock, one with classes and so with code, and a distilled one."""
    folder, schedule, made = tmp_path_factory.mktemp("runs"), CosineBetaScheduler(), {}
    for name in FORMS:
        unet = tiny_unet(None if name == "stock" else 2)
        of_distilled = ConsistencyScheduler.from_config(schedule.config, distilled_steps=2, contrasts=[1.0, 1.1])
        pipeline = PixelDiffusionPipeline(unet, of_distilled if name == "distilled" else schedule)
        pipeline.save_pretrained(folder / name / "model")
        made[name] = folder / name
    return made


@pytest.mark.parametrize("name", FORMS)
def test_the_digest_is_the_same_wherever_the_model_lies(
    name: str, runs: dict[str, Path], at_hub: LoopbackHub, tmp_path: Path
) -> None:
    model = find_model(runs[name])
    digest = model_digest(model)
    assert len(digest) == 16
    made = tmp_path / "made"
    shutil.copytree(model, made / "copied")
    at_hub.add("ada/model", model)
    load(model).save_pretrained(made / "saved")
    load("ada/model").save_pretrained(made / "saved from the Hub")
    by_stock = DiffusionPipeline.from_pretrained(model, trust_remote_code=True)
    by_stock.save_pretrained(made / "saved by stock")
    by_stock.save_pretrained(made / "in shards", max_shard_size="2KB")
    assert len(list((made / "in shards" / NETWORK).glob("*.safetensors"))) > 1
    for folder in (locate("ada/model"), *made.iterdir()):
        assert model_digest(folder) == digest, folder


def test_tables_for_few_steps_and_other_versions_change_nothing(runs: dict[str, Path], tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(runs["classes"] / "model", model)
    digest = model_digest(model)
    table = {"3": {"timesteps": [900, 500, 100], "coefficients": [[1.0] * 4] * 3}}
    scheduler = FewStepScheduler.from_config(CosineBetaScheduler().config)
    scheduler.register_to_config(_few_step=table)
    scheduler.save_pretrained(model / FEW_STEP_FOLDER)
    assert model_digest(model) == digest
    pipeline = load(model)
    assert pipeline.scheduler.config["_few_step"] == table
    pipeline.save_pretrained(tmp_path / "saved")
    edit(model / SCHEDULER_CONFIG, _diffusers_version="0.50.0")
    edit(model / NETWORK / "config.json", _diffusers_version="0.50.0", _name_or_path="/somewhere/else")
    assert model_digest(model) == model_digest(tmp_path / "saved") == digest


def edit(path: Path, **values: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def nudge(model: Path) -> None:
    weights = load_file(model / WEIGHTS)
    weights["conv_out.bias"] = weights["conv_out.bias"].nextafter(torch.tensor(9.0))
    save_file(weights, model / WEIGHTS)


def rename(model: Path) -> None:
    weights = load_file(model / WEIGHTS)
    weights["conv_in.bias"], weights["conv_norm_out.bias"] = weights["conv_norm_out.bias"] + 1, weights["conv_in.bias"]
    save_file(weights, model / WEIGHTS)


@pytest.mark.parametrize(
    "change",
    [
        nudge,
        rename,
        lambda model: edit(model / SCHEDULER_CONFIG, trained_betas=[0.1] * 1000),
        lambda model: edit(model / SCHEDULER_CONFIG, prediction_type="v_prediction"),
        lambda model: edit(model / SCHEDULER_CONFIG, _class_name="DDIMScheduler"),
        lambda model: edit(model / SCHEDULER_CONFIG, _consistency_contrasts=[1.0, 1.2]),
        lambda model: edit(model / NETWORK / "config.json", act_fn="gelu"),
    ],
)
def test_whatever_draws_otherwise_has_another(
    change: Callable[[Path], None], runs: dict[str, Path], tmp_path: Path
) -> None:
    model = tmp_path / "model"
    shutil.copytree(runs["distilled"] / "model", model)
    digest = model_digest(model)
    change(model)
    assert model_digest(model) != digest


def test_what_is_no_model_is_said(runs: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"model_index\.json can't be read"):
        model_digest(tmp_path)
    shutil.copytree(runs["stock"] / "model", tmp_path / "model")
    (tmp_path / "model" / WEIGHTS).write_bytes(b"not tensors")
    with pytest.raises(ModelError, match=r"safetensors can't be read"):
        model_digest(tmp_path / "model")


def test_the_files_of_a_model_are_all_that_was_saved_and_no_more(runs: dict[str, Path], tmp_path: Path) -> None:
    for name in FORMS:
        model = tmp_path / name
        shutil.copytree(runs[name] / "model", model)
        saved = {path for path in model.rglob("*") if path.is_file()}
        (model / NETWORK / "notes.json").write_text("{}")
        (model / "mine.py").write_text("")
        edit(model / "model_index.json", **{"../elsewhere": ["diffusers", "UNet2DModel"], "absent": [None, None]})
        assert components(model) == ["scheduler", "unet"]
        assert {*data_files(model), *code_files(model)} == saved
