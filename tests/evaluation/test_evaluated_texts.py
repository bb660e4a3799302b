"""`logsnr evaluate` of a model of texts: what it says, writes, reuses and refuses."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import Finished, run

from logsnr.data.texts import open_texts
from logsnr.evaluation.text_bits import characters
from logsnr.settings.text import TextDataConfig

Run = Callable[..., Finished]
WORDS = ("ant", "bee", "cow", "doe", "elk", "fox", "gnu", "hen", "ibis", "jay")
OPTIONS = ("--num", "20", "--steps", "4", "--elbo-images", "6", "--elbo-timesteps", "3")


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 documents of 40 words, of ten different ones."""
    folder, rng = tmp_path_factory.mktemp("texts"), np.random.default_rng(0)
    for k in range(30):
        (folder / f"{k:02}.txt").write_text(" ".join(rng.choice(WORDS, 40)))
    return folder


def trained(texts: Path, folder: Path, *more: str) -> Path:
    tiny = [
        *("text-128", "--data.source", str(texts), "--data.length", "32", "--data.held-out-fraction", "0.2"),
        *("--condition.name", "none", "--model.hidden-size", "16", "--model.num-hidden-layers", "1"),
        *("--model.num-attention-heads", "2", "--model.intermediate-size", "16", "--train.num-steps", "4"),
        *("--train.batch-size", "4", "--train.checkpoint-every", "4", "--train.mixed-precision", "no"),
        *("--train.tracker", "none", "--train.held-out-every", "0", "--train.sample-every", "0"),
    ]
    end = run(folder / "log.txt", "train", *tiny, *more, "--out", folder / "run")
    assert end.status == 0, end.output
    return folder / "run"


@pytest.fixture(scope="module")
def absorbing(texts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(texts, tmp_path_factory.mktemp("absorbing"))


def test_all_figures_of_texts(absorbing: Path, tmp_path: Path, logsnr: Run) -> None:
    (tmp_path / "list").write_text("\n".join(WORDS[:5]))
    end = logsnr("evaluate", absorbing, *OPTIONS, "--words", "list")
    assert end.status == 0, end.output
    metrics = json.loads((absorbing / "metrics.json").read_text())
    elbo = metrics["elbo"]
    bits = elbo["bits_per_dim"]
    assert sum(bits["by_log_snr"]) == pytest.approx(bits["total"])
    assert elbo["value"] == bits["total"] > 1
    assert elbo["limit"]["total"] == pytest.approx(bits["total"], abs=0.02)
    assert (elbo["num_images"], elbo["train"]["num_images"], elbo["draws"], elbo["dim"]) == (6, 6, 3, "character")
    assert "bits_per_character" not in elbo
    assert f"ELBO of 6 held-out sequences: {bits['total']:.4f} ± " in end.output
    words = metrics["words"]
    assert words["held_out"] == pytest.approx(0.5, abs=0.2)
    assert words["value"] < 0.2  # it has learned next to nothing
    assert (words["list"], words["list_words"]) == ("list", 5)
    assert re.search(r"^share of words in list +\d\.\d{4} ± \d\.\d{4} +0\.\d{4} ± 0", end.output, re.MULTILINE)
    entropy = metrics["unigram_entropy"]
    assert 0 < entropy["held_out"] < np.log2(27)
    assert list(metrics["distinct"]["by_order"]) == ["1", "2", "3", "4"]
    runs = metrics["passages"]
    assert runs["held_out"] > runs["value"]
    assert runs["copying"] < 0.5
    passages = (absorbing / "evaluation" / "nearest_passages.txt").read_text().splitlines()
    assert len(passages) == 20
    assert passages[0].split()[:2] == [str(runs["longest"]), "characters,"]
    assert "too few held-out sequences to tell whether it copies" in end.output
    filled = metrics["infilling"]["by"]
    assert 0 < filled["model"]["drawn"]["value"] < filled["bigrams"]["likeliest"]["value"] < 1
    assert (metrics["infilling"]["span"], metrics["infilling"]["share"]) == (4, 0.25)
    assert set(metrics["protocol"]) == {"sequences", "guidance_scale", "scheduler", "seeds", "model_hash"}

    files = {path: path.stat().st_mtime_ns for path in (absorbing / "evaluation").rglob("*.*") if path.suffix != ".txt"}
    assert len(files) == 4  # samples, two bounds, what was judged
    again = logsnr("evaluate", absorbing, *OPTIONS, "--words", "list")
    assert "They replace those of before" in again.output
    assert json.loads((absorbing / "metrics.json").read_text()) == metrics
    assert {path: path.stat().st_mtime_ns for path in files} == files


def test_how_it_writes_can_be_said(absorbing: Path, logsnr: Run) -> None:
    """At temperature 0 the likeliest character is taken, again and again."""
    few = ("--num", "20", "--steps", "4", "--elbo-images", "0")
    end = logsnr("evaluate", absorbing, *few, "--temperature", "0", "--order", "confidence", "--remask", "0.5")
    assert end.status == 0, end.output
    metrics = json.loads((absorbing / "metrics.json").read_text())
    how = "TransitionScheduler, temperature 0.0, order confidence, remask 0.5, 4 steps"
    assert metrics["protocol"]["scheduler"] == how
    assert metrics["unigram_entropy"]["value"] < 0.7 * metrics["unigram_entropy"]["held_out"]
    assert "elbo" not in metrics
    for options, message in (
        (["--remask", "2"], "--remask must be in [0, 1], and is 2"),
        (["--temperature", "-1"], "--temperature must be 0 or more, and is -1"),
    ):
        assert message in logsnr("evaluate", absorbing, *options).output


def test_another_kernel_and_other_tokens(texts: Path, tmp_path: Path, logsnr: Run) -> None:
    """Word pieces: bits a character stand beside. Without masks no gaps."""
    path = trained(texts, tmp_path, "--schedule.kernel", "uniform", "--data.tokens", "word-pieces")
    end = logsnr("evaluate", path, *OPTIONS)
    assert end.status == 0, end.output
    metrics = json.loads((path / "metrics.json").read_text())
    elbo = metrics["elbo"]
    assert elbo["bits_per_character"]["total"] < elbo["bits_per_dim"]["total"]
    both = (elbo["limit"], elbo["bits_per_dim"])
    assert both[0]["total"] == pytest.approx(both[1]["total"], abs=4 * math.hypot(*(b["standard_error"] for b in both)))
    assert metrics["words"]["held_out"] == 1  # of the words of training documents
    assert "infilling" not in metrics
    assert "Infilling isn't measured: under the kernel uniform nothing tells the network what is missing." in end.output


def test_dry_run_and_what_is_refused(absorbing: Path, logsnr: Run) -> None:
    before = {path: path.stat().st_mtime_ns for path in absorbing.rglob("*")}
    end = logsnr("evaluate", absorbing, "--dry-run")
    assert end.status == 0, end.output
    assert re.search(r"Would draw \d+ sequences \(\d[\d,]* evaluations of the network\) with Transition", end.output)
    assert "in 64 steps, look up their words in the training documents, and compare them with held-out" in end.output
    assert {path: path.stat().st_mtime_ns for path in absorbing.rglob("*")} == before
    for options, message in (
        (
            ["--features", "inception"],
            "--features is inception, and is for images, which aren't what is measured here.",
        ),
        (["--restore", "missing 0.5"], "--restore is missing 0.5, and is for images"),
        (["--words", "nowhere"], "--words is nowhere, and there is no such file"),
        (["--guidance-scale", "2"], "--guidance-scale is 2, and needs classes"),
    ):
        for dry in ([], ["--dry-run"]):
            end = logsnr("evaluate", absorbing, *options, *dry)
            assert end.status == 1
            assert message in end.message
            assert len(end.output.splitlines()) == 1  # it refuses before it says anything


def test_characters_of_sequences(texts: Path) -> None:
    """An end of a document is one; what fills up counts nowhere."""
    config = TextDataConfig(str(texts), tokens="word-pieces", length=400, packing="padded")
    data = open_texts(config, labelled=False)
    batch = next(iter(data.in_order("train", 3)))
    documents = {len(path.read_text()) + 1 for path in texts.iterdir()}
    assert set(characters(data.examples, batch.clean).tolist()) <= documents
    packed = open_texts(TextDataConfig(str(texts), length=100), labelled=False)
    clean = next(iter(packed.in_order("train", 3))).clean
    assert torch.equal(characters(packed.examples, clean), torch.tensor([100, 100, 100]))
