"""A model goes to the Hub and comes back in each of the three ways, again and again, and is the same model.

The reader is a process with torch and diffusers alone (`stock_python.py`). It loads what we pushed, samples it, pushes
what it loaded, and loads that. What it pushed is loaded here, with logsnr.
"""

from __future__ import annotations

import importlib
import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import HfApi
from loopback_hub import LoopbackHub, entered
from rounding import assert_same_images
from stock_python import link_packages, run_stock_python
from tiny_unet import tiny_unet

from logsnr.pipelines.pipeline_pixel import PixelDiffusionPipeline
from logsnr.schedulers.scheduling_beta import CosineBetaScheduler
from logsnr.tasks.load import load

ROOT = Path(__file__).parents[2]
READER = """
import json, sys
from pathlib import Path

import numpy as np
import torch
from diffusers import DiffusionPipeline
from huggingface_hub import HfApi

out, second_commit, stem = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
told = {}


def load(name, repo, **how):
    pipe = DiffusionPipeline.from_pretrained(repo, **how)
    pipe.set_progress_bar_config(disable=True)
    labels = {} if type(pipe).__name__ == "DDPMPipeline" or not pipe.num_classes else {"class_labels": ["dog", 2]}
    labels |= {"guidance_scale": 2.0} if labels else {"batch_size": 2}
    told[name] = [type(pipe).__name__, type(pipe.scheduler).__name__, getattr(pipe, "edition", "first")]
    told[name] += [getattr(pipe.scheduler, "edition", "first")]
    noise = torch.Generator().manual_seed(5)
    np.save(out / name, pipe(num_inference_steps=3, generator=noise, output_type="np", **labels).images)
    return pipe


def refused(repo, **how):
    try:
        DiffusionPipeline.from_pretrained(repo, **how)
    except ValueError as error:
        assert "trust_remote_code" in str(error), error
    else:
        raise AssertionError(f"{repo} ran its code unasked")


trust = {"trust_remote_code": True}
for repo in ("ada/plain", "ada/plain-by-logsnr"):
    name = repo.removeprefix("ada/")
    stock = load(f"{name}.stock", repo)
    own = load(f"{name}.own", repo, custom_pipeline=stem, **trust)
    load(f"{name}.trusted", repo, **trust)  # there is nothing to trust
stock.push_to_hub("ada/plain-by-stock")
own.push_to_hub("ada/plain-by-own")
load("plain-by-stock.stock", "ada/plain-by-stock")
load("plain-by-own.stock", "ada/plain-by-own")
load("plain-by-own.own", "ada/plain-by-own", custom_pipeline=stem, **trust)

for repo in ("ada/classes", "ada/classes-by-logsnr"):
    name = repo.removeprefix("ada/")
    refused(repo)
    stock = load(f"{name}.stock", repo, revision="stock")
    own = load(f"{name}.own", repo, **trust)
own.push_to_hub("ada/classes-by-own")
stock.push_to_hub("ada/classes-by-stock")
own.to_stock().save_pretrained(out / "stock")
HfApi().create_branch("ada/classes-by-own", branch="stock")
HfApi().upload_folder(repo_id="ada/classes-by-own", folder_path=out / "stock", revision="stock")
refused("ada/classes-by-own")
load("classes-by-own.own", "ada/classes-by-own", **trust)
load("classes-by-own.stock", "ada/classes-by-own", revision="stock")
load("classes-by-stock.stock", "ada/classes-by-stock")

second = load("edition-second.own", "ada/edition", revision=second_commit, **trust)
first = load("edition-first.own", "ada/edition", **trust)
load("edition-second-again.own", "ada/edition", revision=second_commit, **trust)
second.push_to_hub("ada/edition-second")
load("edition-second-by-own.own", "ada/edition-second", **trust)
load("classes-again.own", "ada/classes", **trust)

(out / "told.json").write_text(json.dumps(told))
assert not any(name.split(".")[0] == "logsnr" for name in sys.modules)
"""


@dataclass(frozen=True)
class Journey:
    """What was pushed, and what the reader got: images by name, and classes and editions."""

    hub: LoopbackHub
    plain: PixelDiffusionPipeline
    classes: PixelDiffusionPipeline
    out: Path
    told: dict[str, list[str]]
    printed: str

    def images(self, name: str) -> Any:
        return np.load(self.out / f"{name}.npy")


def push_stock(pipe: PixelDiffusionPipeline, repo: str, folder: Path) -> None:
    pipe.to_stock().save_pretrained(folder)
    HfApi().create_branch(repo, branch="stock")
    HfApi().upload_folder(repo_id=repo, folder_path=folder, revision="stock")


def second_edition(folder: Path, patch: pytest.MonkeyPatch) -> list[ModuleType]:
    """The pipeline's and the schedulers' file as another version of ours could have them."""
    package = ModuleType("second")
    package.__path__ = [str(folder)]
    patch.setitem(sys.modules, "second", package)
    for name in ("call_arguments", "guidance", "picture_editing", "pixel_sampling", "travelling_folder"):
        shutil.copyfile(ROOT / "pipelines" / f"{name}.py", folder / f"{name}.py")
    modules = []
    for path, head in [
        ("pipelines/pipeline_pixel.py", "class PixelDiffusionPipeline(PixelSampling, OwnCard, DiffusionPipeline):\n"),
        ("schedulers/scheduling_beta.py", "class CosineBetaScheduler(BetaScheduler):\n"),
    ]:
        text = (ROOT / path).read_text()
        assert head in text
        copy = folder / Path(path).name
        copy.write_text(text.replace(head, f'{head}    edition = "second"\n'))
        modules.append(importlib.import_module(f"second.{copy.stem}"))
    return modules


@pytest.fixture(scope="module")
def journey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Journey]:
    tmp = tmp_path_factory.mktemp("journey")
    scheduler = CosineBetaScheduler(prediction_type="v_prediction")
    plain = PixelDiffusionPipeline(tiny_unet(), scheduler)
    classes = PixelDiffusionPipeline(tiny_unet(3), scheduler, id2label={0: "cat", 1: "dog", 2: "seven"})
    with (
        LoopbackHub() as hub,
        entered(hub.environment(tmp / "home")),
        pytest.MonkeyPatch.context() as patch,
    ):
        plain.push_to_hub("ada/plain")
        classes.push_to_hub("ada/classes")
        push_stock(classes, "ada/classes", tmp / "stock")
        load("ada/plain").push_to_hub("ada/plain-by-logsnr")
        load("ada/classes").push_to_hub("ada/classes-by-logsnr")
        push_stock(load("ada/classes"), "ada/classes-by-logsnr", tmp / "stock-again")

        pipeline_file, schedulers_file = second_edition(tmp, patch)
        second = pipeline_file.PixelDiffusionPipeline(
            classes.unet,
            schedulers_file.CosineBetaScheduler.from_config(scheduler.config),
            id2label=classes.id2label,
        )
        second.push_to_hub("ada/edition")
        second_commit = HfApi().repo_info("ada/edition").sha
        classes.push_to_hub("ada/edition")

        (stem,) = (Path(path).stem for path in hub.repo("ada/plain").files() if path.startswith("pipeline_"))
        (tmp / "out").mkdir()
        (tmp / "site").mkdir()
        printed = run_stock_python(
            link_packages(tmp / "site", "torch", "diffusers"),
            READER,
            *(tmp / "out", second_commit, stem),
            cwd=tmp,
            variables=hub.environment(tmp / "reader"),
        )
        told = json.loads((tmp / "out" / "told.json").read_text())
        yield Journey(hub, plain, classes, tmp / "out", told, printed)
        assert hub.errors == []


def sampled(pipe: Any) -> Any:
    pipe.set_progress_bar_config(disable=True)
    with_classes = isinstance(pipe, PixelDiffusionPipeline) and pipe.num_classes is not None
    labels = {"class_labels": ["dog", 2], "guidance_scale": 2.0} if with_classes else {"batch_size": 2}
    noise = torch.Generator().manual_seed(5)
    return pipe(num_inference_steps=3, generator=noise, output_type="np", **labels).images


def test_an_unconditional_model_is_the_same_in_every_way(journey: Journey) -> None:
    stock, ours = sampled(journey.plain.to_stock()), sampled(journey.plain)
    for repo in ("plain", "plain-by-logsnr", "plain-by-own", "plain-by-stock"):
        assert_same_images(journey.images(f"{repo}.stock"), stock, evaluations=3)
        again = load(f"ada/{repo}")
        assert type(again) is PixelDiffusionPipeline
        assert type(again.scheduler) is CosineBetaScheduler
        assert_same_images(sampled(again), ours, evaluations=3)
    for repo in ("plain", "plain-by-logsnr", "plain-by-own"):
        assert journey.told[f"{repo}.own"][:2] == ["PixelDiffusionPipeline", "DDPMScheduler"]
        assert_same_images(journey.images(f"{repo}.own"), stock, evaluations=3)
    for repo in ("plain", "plain-by-logsnr"):
        assert journey.told[f"{repo}.trusted"][:2] == ["DDPMPipeline", "DDPMScheduler"]
        assert_same_images(journey.images(f"{repo}.trusted"), stock, evaluations=3)


def test_a_class_conditional_model_is_the_same_in_every_way(journey: Journey) -> None:
    stock, ours = sampled(journey.classes.to_stock()), sampled(journey.classes)
    for repo in ("classes", "classes-by-logsnr", "classes-by-own"):
        assert journey.told[f"{repo}.stock"][:2] == ["DDPMPipeline", "DDPMScheduler"]
        assert_same_images(journey.images(f"{repo}.stock"), stock, evaluations=3)
        assert journey.told[f"{repo}.own"][:2] == ["PixelDiffusionPipeline", "CosineBetaScheduler"]
        assert_same_images(journey.images(f"{repo}.own"), ours, evaluations=3)
        again = load(f"ada/{repo}")
        assert again.id2label == journey.classes.id2label
        assert_same_images(sampled(again), ours, evaluations=3)
        assert load(f"ada/{repo}", revision="stock").num_classes is None
    assert_same_images(journey.images("classes-by-stock.stock"), stock, evaluations=3)
    assert load("ada/classes-by-stock").num_classes is None


def test_versions_of_ours_keep_to_their_own_code_in_one_process(journey: Journey) -> None:
    assert journey.told["edition-first.own"][2:] == ["first", "first"]
    for name in ("edition-second", "edition-second-again", "edition-second-by-own"):
        assert journey.told[f"{name}.own"][2:] == ["second", "second"]
    assert journey.told["classes-again.own"][2:] == ["first", "first"]
    for name in ("edition-first", "edition-second", "edition-second-by-own", "classes-again"):
        assert_same_images(journey.images(f"{name}.own"), sampled(journey.classes), evaluations=3)


def test_a_repo_holds_what_its_reader_needs_and_nothing_of_the_author_s_machine(journey: Journey) -> None:
    for repo in journey.hub.repos.values():
        if repo.id.endswith("-by-stock"):  # stock writes the place that a network was loaded from into its config
            continue
        for revision in repo.refs:
            files = repo.files(revision)
            assert {Path(path).suffix for path in files} <= {"", ".md", ".json", ".safetensors", ".py"}
            for path, content in files.items():
                for private in (str(Path.home()), str(journey.out.parent), journey.hub.token, "/tmp/"):
                    assert private.encode() not in content, (repo.id, path)
    files = set(journey.hub.repo("ada/classes-by-own").files())
    assert files == set(journey.hub.repo("ada/classes").files())
    assert set(journey.hub.repo("ada/plain-by-own").files()) == set(journey.hub.repo("ada/plain").files())


def test_the_reader_is_told_nothing_of_concern(journey: Journey) -> None:
    for words in ("were not found in your environment", "are not expected", "Expected types", "Traceback"):
        assert words not in journey.printed
