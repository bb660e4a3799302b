"""Nothing that we load without `trust_remote_code` runs code of the repo, or reads a pickle.

`bait` is a model of ours in which somebody has planted what he could: pickles under every name that weights have had,
code under every name that code has had, and configs that name classes and modules of his choice. Each piece leaves a
mark when it is run, and the first tests run it, to know that it bites.
"""

from __future__ import annotations

import importlib
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import Finished
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from loopback_hub import LoopbackHub
from tiny_unet import tiny_unet

from logsnr.base.errors import ModelError
from logsnr.pipelines.pipeline_pixel import PixelDiffusionPipeline
from logsnr.schedulers.scheduling_beta import CosineBetaScheduler
from logsnr.tasks.load import load

WEIGHTS = "unet/diffusion_pytorch_model.safetensors"
PICKLES = [
    *("unet/diffusion_pytorch_model.bin", "unet/pytorch_model.bin", "unet/model.pt", "unet/model.ckpt", "model.pkl"),
    *("scheduler/scheduler.pt", "scheduler/scheduler_config.pkl", "pytorch_model.bin", "training_args.bin"),
]
CODE = [
    *("pipeline.py", "evil.py", "__init__.py", "unet/evil.py", "unet/__init__.py", "scheduler/evil.py"),
    *("scheduler/__init__.py", "my_schedules.py", "sitecustomize.py", "torchsde.py", "bitsandbytes.py"),
]
PLANTED = """
from pathlib import Path

from diffusers import DDPMScheduler, DiffusionPipeline, UNet2DModel

Path({mark!r}).write_text(__file__)


class Evil(DiffusionPipeline):
    def __init__(self, unet, scheduler):
        self.register_modules(unet=unet, scheduler=scheduler)


class EvilScheduler(DDPMScheduler):
    pass
"""


class Bomb:
    """Unpickled, it leaves the mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.write_text, (self.mark, "unpickled")


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    return tmp_path / "mark"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    PixelDiffusionPipeline(tiny_unet(), CosineBetaScheduler()).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def bait(model: Path, mark: Path) -> Path:
    for name in PICKLES:
        torch.save(Bomb(mark), model / name)
    for name in CODE:
        (model / name).write_text(PLANTED.format(mark=str(mark)))
    return model


def change(file: Path, **values: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def test_the_bait_bites(bait: Path, mark: Path) -> None:
    torch.load(bait / PICKLES[0], weights_only=False)
    assert mark.read_text() == "unpickled"
    mark.unlink()
    change(bait / "model_index.json", _class_name=["evil", "Evil"])
    assert type(DiffusionPipeline.from_pretrained(bait, trust_remote_code=True)).__name__ == "Evil"
    assert mark.read_text().endswith("evil.py")


# -- what is loaded where all is well but for the bait ----------------------------------------------------------------


def test_what_is_planted_beside_a_model_is_not_touched(bait: Path, mark: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load(bait)(num_inference_steps=2, generator=0).images
    DiffusionPipeline.from_pretrained(bait)
    monkeypatch.chdir(bait)  # whoever cloned it and looks at it where it lies
    before = list(sys.path)
    load(".").swap_scheduler("DPMSolverMultistep")(num_inference_steps=2, generator=0)
    assert sys.path == before
    assert not mark.exists()


def test_from_the_hub_only_what_makes_the_model_is_fetched(at_hub: LoopbackHub, bait: Path, mark: Path) -> None:
    at_hub.add("ada/bait", bait)
    assert load("ada/bait")(num_inference_steps=2, generator=0).images
    fetched = {request.path.split("/resolve/")[1].partition("/")[2] for request in at_hub.asked("GET", "/resolve/")}
    assert fetched == {"model_index.json", "scheduler/scheduler_config.json", "unet/config.json", WEIGHTS}
    assert type(DiffusionPipeline.from_pretrained("ada/bait")).__name__ == "DDPMPipeline"
    assert not mark.exists()


def test_the_commands_run_nothing(
    hub: LoopbackHub, bait: Path, mark: Path, tiny: list[str], logsnr_at_hub: Callable[..., Finished]
) -> None:
    hub.add("ada/bait", bait)
    for source in (bait, "ada/bait"):
        assert logsnr_at_hub("sample", source, "--num", 1, "--steps", 2, "--out", "x.png").status == 0
        plan = ("--condition.name", "none", "--out", "run", "--dry-run")  # which loads the weights too
        assert logsnr_at_hub("train", *tiny, *plan, "--init-from", source).status == 0
    assert not mark.exists()


# -- what is refused --------------------------------------------------------------------------------------------------


def only_pickles(model: Path) -> None:
    (model / WEIGHTS).unlink()


def a_pickle_by_the_name_of_safetensors(model: Path) -> None:
    shutil.copy(model / PICKLES[0], model / WEIGHTS)


def an_index_that_leads_to_a_pickle(model: Path) -> None:
    index = {"metadata": {"total_size": 1}, "weight_map": {"conv_in.weight": "diffusion_pytorch_model.bin"}}
    (model / f"{WEIGHTS}.index.json").write_text(json.dumps(index))
    (model / WEIGHTS).unlink()


def a_quantizer(model: Path) -> None:
    change(model / "unet" / "config.json", quantization_config={"quant_method": "bitsandbytes_4bit"})


@pytest.mark.parametrize(
    "plant", [only_pickles, a_pickle_by_the_name_of_safetensors, an_index_that_leads_to_a_pickle, a_quantizer]
)
def test_weights_are_safetensors_or_nothing(plant: Any, bait: Path, mark: Path) -> None:
    plant(bait)
    with pytest.raises(ModelError, match="its network can't be loaded"):
        load(bait)
    with pytest.raises(Exception):  # noqa: B017, PT011  # stock's own words, whichever
        DiffusionPipeline.from_pretrained(bait)
    assert not mark.exists()


@pytest.mark.parametrize(
    "values",
    [
        {"unet": ["evil", "Evil"]},
        {"unet": ["my_schedules", "Evil"]},
        {"scheduler": ["evil", "EvilScheduler"]},
        {"scheduler": [None, "EvilScheduler"]},
        {"evil": ["evil", "Evil"]},
    ],
    ids=str,
)
def test_a_model_index_that_names_foreign_code(values: dict[str, Any], bait: Path, mark: Path) -> None:
    """We ask it for the pipeline's kind and the names of the image classes and nothing else."""
    change(bait / "model_index.json", **values)
    assert type(load(bait)) is PixelDiffusionPipeline
    stock_runs_nothing(bait)
    assert not mark.exists()


@pytest.mark.parametrize("name", [["evil", "Evil"], ["pipeline", "Evil"], "Evil", "evil", "../evil", None, []], ids=str)
def test_a_pipeline_that_no_installed_package_has(name: Any, bait: Path, mark: Path) -> None:
    change(bait / "model_index.json", _class_name=name)
    with pytest.raises(ModelError, match="is a pipeline that no installed kind of data knows"):
        load(bait)
    stock_runs_nothing(bait)
    assert not mark.exists()


def stock_runs_nothing(bait: Path) -> None:
    """Stock asks for trust, or knows no such class."""
    try:
        stock = DiffusionPipeline.from_pretrained(bait)
    except Exception:  # a ValueError on trust, an ImportError, or one by accident
        stock = None
    assert stock is None or type(stock).__module__.startswith("diffusers.")


@pytest.mark.parametrize(
    "schedule",
    [
        *("os:system", "evil:EvilScheduler", "my_schedules:EvilScheduler", ":EvilScheduler", "evil", "EvilScheduler"),
        *("logsnr.schedulers.scheduling_beta:CosineBetaScheduler", "../evil", "", ["evil", "EvilScheduler"], 1, {}),
    ],
    ids=str,
)
def test_a_scheduler_config_that_names_a_foreign_module(
    schedule: Any, bait: Path, mark: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = bait / "scheduler" / "scheduler_config.json"
    logsnr = json.loads(config.read_text())["_logsnr"]
    imported, real = [], importlib.import_module
    monkeypatch.setattr(importlib, "import_module", lambda name, *rest: imported.append(name) or real(name, *rest))
    monkeypatch.chdir(bait)
    change(config, _class_name="EvilScheduler", _logsnr={**logsnr, "schedule": schedule})
    with pytest.raises(ModelError, match=r"its scheduler can't be used: The model was made with the schedule .* isn't"):
        load(bait)
    change(config, _class_name="DDPMScheduler")
    with pytest.warns(UserWarning, match="isn't known here, .* loaded as DDPMScheduler, with the same betas"):
        assert type(load(bait).scheduler).__name__ == "DDPMScheduler"
    assert {name for name in imported if name.startswith(("evil", "my_", "os", "."))} == set()
    assert not mark.exists()


@pytest.mark.parametrize(
    "values",
    [
        {"_class_name": ["evil", "EvilScheduler"]},
        {"_class_name": "DiffusionPipeline"},
        {"_class_name": "AutoModel"},
        {"_class_name": "logging"},
        {"_class_name": "SchedulerMixin"},
        {"_class_name": None},
        {"_logsnr": "os:system"},
        {"_logsnr": ["os", "system"]},
        {"_logsnr": {"schedule": "CosineBetaScheduler"}},
        {"trained_betas": "evil"},
        {"trained_betas": [2.0] * 1000},
        {"num_train_timesteps": -1},
    ],
    ids=lambda values: str(values)[:60],
)
def test_a_scheduler_config_that_makes_no_sense(values: dict[str, Any], bait: Path, mark: Path) -> None:
    config = bait / "scheduler" / "scheduler_config.json"
    if "_class_name" in values:
        config.write_text(json.dumps({k: v for k, v in json.loads(config.read_text()).items() if k != "_logsnr"}))
    change(config, **values)
    with pytest.raises(ModelError, match="its scheduler can't be used"):
        load(bait)
    assert not mark.exists()


@pytest.mark.parametrize(
    ("file", "text", "words"),
    [
        ("model_index.json", "[]", "isn't a JSON object"),
        (
            "model_index.json",
            '{"_class_name": "DDPMPipeline", "id2label": {"x": "y"}}',
            "its model_index.json can't be used",
        ),
        (
            "model_index.json",
            '{"_class_name": "DDPMPipeline", "id2label": {"0": "y"}}',
            "needs a class-conditional unet",
        ),
        ("scheduler/scheduler_config.json", "null", "isn't a JSON object"),
        ("unet/config.json", "[]", "its network can't be loaded"),
        ("unet/config.json", '{"down_block_types": ["os:system"]}', "its network can't be loaded"),
        ("unet/config.json", '{"in_channels": "many"}', "its network can't be loaded"),
    ],
)
def test_files_of_a_wrong_form(file: str, text: str, words: str, bait: Path) -> None:
    (bait / file).write_text(text)
    with pytest.raises(ModelError, match=words):
        load(bait)
