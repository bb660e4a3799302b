"""`logsnr.load` and `logsnr sample` of a repo: from the Hub, from the cache, and what is said where neither has it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import Finished
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from loopback_hub import LoopbackHub
from tiny_unet import tiny_unet

import logsnr
from logsnr.base.errors import ModelError
from logsnr.pipelines.pipeline_pixel import PixelDiffusionPipeline
from logsnr.schedulers.scheduling_beta import CosineBetaScheduler

REPO = "ada/digits"
Run = Callable[..., Finished]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "digits"
    pipeline = PixelDiffusionPipeline(tiny_unet(2), CosineBetaScheduler(), id2label={0: "zero", 1: "one"})
    pipeline.save_pretrained(path)
    return path


def test_sample_from_a_repo_and_from_the_cache(
    hub: LoopbackHub, model: Path, logsnr_at_hub: Run, tmp_path: Path
) -> None:
    hub.add(REPO, model)
    few = ("--num", 2, "--steps", 2)
    assert logsnr_at_hub("sample", REPO, *few, "--out", "repo.png").status == 0
    assert logsnr_at_hub("sample", REPO, *few, "--out", "offline.png", HF_HUB_OFFLINE="1").status == 0
    hub.stop()
    assert logsnr_at_hub("sample", REPO, *few, "--out", "gone.png").status == 0
    for name in ("offline", "gone"):
        assert (tmp_path / f"{name}.png").read_bytes() == (tmp_path / "repo.png").read_bytes()

    for variables, words in [
        ({}, "the Hub isn't reached ([Errno 111] Connection refused), and the cache has no whole copy."),
        ({"HF_HUB_OFFLINE": "1"}, "no whole copy of a repo of that name in the cache, and HF_HUB_OFFLINE is set."),
    ]:
        message = logsnr_at_hub("sample", "ada/other", *few, **variables).message
        assert f"error: There is no folder ada/other, and {'a repo' * (not variables)}" in message
        assert words in message
        assert len(message.splitlines()) == 1


def test_a_later_commit_is_seen_and_an_earlier_one_stays(at_hub: LoopbackHub, model: Path) -> None:
    repo = at_hub.add(REPO, model)
    first = repo.resolve("main")
    assert logsnr.load(REPO).id2label == {0: "zero", 1: "one"}
    index = (model / "model_index.json").read_bytes()
    repo.add({"model_index.json": index.replace(b"zero", b"none")})
    repo.create_branch("old", first)
    assert logsnr.load(REPO).id2label == {0: "none", 1: "one"}
    for revision in (first, "old"):
        assert logsnr.load(REPO, revision=revision).id2label == {0: "zero", 1: "one"}
    at_hub.stop()
    assert logsnr.load(REPO).id2label == {0: "none", 1: "one"}


def test_what_stock_diffusers_has_in_the_cache_is_enough(at_hub: LoopbackHub, model: Path) -> None:
    at_hub.add(REPO, model).add({"metrics.json": b"{}", "figures/loss.png": b"\0", "figures/loss.json": b"{}"})
    DiffusionPipeline.from_pretrained(REPO, trust_remote_code=True)
    at_hub.stop()
    assert type(logsnr.load(REPO)) is PixelDiffusionPipeline


def test_what_is_said_of_a_repo_that_can_not_be_had(
    at_hub: LoopbackHub, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_hub.add(REPO, model)
    at_hub.add("ada/secret", model, private=True)
    at_hub.add("ada/gated", model).gated = True
    at_hub.add("ada/notes", model / "scheduler")
    nobody, unknown = "no repo of that name on the Hub that you may read", "the Hub doesn't know your token"
    for token, repo, words in [
        (at_hub.token, "ada/nothing", nobody),
        ("", "ada/nothing", nobody),
        ("", "ada/secret", "If it is private, log in (`hf auth login`) or set HF_TOKEN."),
        (at_hub.other_token, "ada/secret", nobody),
        (at_hub.other_token, "ada/gated", "open to those only who asked for access"),
        ("hf_wrong", REPO, unknown),
        (at_hub.token, "ada/two words", "a repo can't have that name"),
        (at_hub.token, "photos", nobody),
        (at_hub.token, "ada/notes", "The repo ada/notes holds no model: there is no model_index.json in it."),
    ]:
        monkeypatch.setenv("HF_TOKEN", token)
        with pytest.raises(ModelError) as error:
            logsnr.load(repo)
        assert words in str(error.value)
        assert repo in str(error.value)
        assert len(str(error.value).splitlines()) == 1
    monkeypatch.setenv("HF_TOKEN", at_hub.token)
    with pytest.raises(ModelError, match="the repo of that name has no branch, tag or commit stock"):
        logsnr.load(REPO, revision="stock")
    for repo in (REPO, "ada/secret", "ada/gated"):
        assert logsnr.load(repo).id2label == {0: "zero", 1: "one"}


@pytest.mark.parametrize(
    ("path", "how"),
    [
        ("/revision/main", 429),
        ("/revision/main", 500),
        ("/revision/main", "cut request"),
        ("/revision/main", "cut answer"),
        (r"/resolve/.*\.safetensors", 500),
    ],
)
def test_a_failure_on_the_way_is_told_and_the_same_call_succeeds_later(
    path: str, how: Any, at_hub: LoopbackHub, model: Path
) -> None:
    at_hub.add(REPO, model)
    at_hub.fail("GET", path, how)
    with pytest.raises(ModelError, match=rf"There is no folder {REPO}, and .*[Tt]ry again") as error:
        logsnr.load(REPO)
    assert len(str(error.value).splitlines()) == 1
    assert logsnr.load(REPO).id2label == {0: "zero", 1: "one"}


def test_a_download_that_is_cut_off_goes_on(at_hub: LoopbackHub, model: Path) -> None:
    at_hub.add(REPO, model)
    at_hub.fail("GET", r"/resolve/.*\.safetensors", "cut answer")
    assert logsnr.load(REPO).id2label == {0: "zero", 1: "one"}  # the client tries again by itself
