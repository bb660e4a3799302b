"""Texts go all the way: words on the terminal, given parts that stay, other kernels, and what can't be done."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from commands import Finished, run
from stock_python import link_packages, run_stock_python
from tiny_kinds import KINDS

from logsnr.base.errors import ConfigError, ModelError
from logsnr.folders.model_folder import model_digest, save_model
from logsnr.models.schedules import make_transition_scheduler
from logsnr.pipelines.pipeline_text import TextPipeline
from logsnr.sampling.sample import sample
from logsnr.schedulers.scheduling_transition import TransitionScheduler
from logsnr.settings.guidance import GuidanceOptions
from logsnr.settings.options import SampleOptions
from logsnr.settings.schedule import TransitionConfig
from logsnr.tasks.load import load

Run = Callable[..., Finished]
TEXT = KINDS["text"]
FEW = ("--steps", "3", "--num", "2")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("texts")
    TEXT.make(path)
    return path


@pytest.fixture(scope="module")
def train(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    def trained(*more: str) -> Path:
        path = tmp_path_factory.mktemp("run")
        few = ("--train.num-steps", "4", "--train.checkpoint-every", "4", "--train.held-out-every", "4")
        end = run(
            *(path / "log.txt", "train", TEXT.preset, *TEXT.arguments, *few),
            *("--data.source", str(data), *more, "--out", path / "run"),
        )
        assert end.status == 0, end.output
        return path / "run"

    return trained


@pytest.fixture(scope="module")
def trained(train: Callable[..., Path]) -> Path:
    return train("--train.sample-every", "4", "--train.mixed-precision", "bf16")


def test_a_run_shows_its_texts_and_its_bits(trained: Path) -> None:
    lines = [json.loads(line) for line in (trained / "logs" / "train.jsonl").read_text().splitlines()]
    (bits,) = [line["held_out/loss"] for line in lines if "held_out/loss" in line]
    assert 0 < bits < 8  # of 4 steps: about log2 of the number of characters
    assert (trained / "samples" / "step-00000004.png").is_file()
    assert (trained / "samples" / "step-00000004.txt").read_text().count("-- ") >= 16


def test_texts_are_printed_or_written(trained: Path, tmp_path: Path, logsnr: Run) -> None:
    printed = logsnr("sample", trained, *FEW)
    assert printed.status == 0, printed.output
    assert "-- 0 ---" in printed.output
    assert "-- 1 ---" in printed.output
    end = logsnr("sample", trained, *FEW, "--out", tmp_path / "all.txt")
    assert f"2 texts in {tmp_path / 'all.txt'}" in end.output
    assert (tmp_path / "all.txt").read_text().startswith("-- 0 ---")
    assert "all.txt is a file already" in logsnr("sample", trained, *FEW, "--out", tmp_path / "all.txt").message
    assert logsnr("sample", trained, *FEW, "--out", tmp_path / "each").status == 0
    assert sorted(path.name for path in (tmp_path / "each").iterdir()) == ["seed-000000.txt", "seed-000001.txt"]


def test_what_is_given_stays(trained: Path) -> None:
    pipe = load(trained)
    decode = pipe.tokenizer.decode
    begun = sample(pipe, SampleOptions(num=2, steps=3, prompts=["ant ", "EMU "], class_labels=["low", "high"]))
    assert begun.dtype == torch.int64
    assert [decode(row[:4]) for row in begun] == ["ant ", "EMU "]
    filled = sample(pipe, SampleOptions(num=2, steps=3, infill=["ant [blank:3] ant"], temperature=0.5))
    assert [decode(row[:4]) + decode(row[7:]) for row in filled] == ["ant  ant", "ant  ant"]
    one = sample(pipe, SampleOptions(num=1, steps=3, seed=1, class_labels=["high"], prompts=["EMU "]))
    assert torch.equal(one[0], begun[1])  # a seed belongs to a text


def test_the_end_of_a_document_may_be_drawn(trained: Path) -> None:
    """It fills sequences up too, but isn't a mark that no text has: its logit isn't taken away in the folder."""
    pipe = load(trained)
    bias, tokenizer = pipe.model.get_output_embeddings().bias.detach(), pipe.tokenizer
    assert tokenizer.pad_token_id == tokenizer.eos_token_id
    assert float(bias[tokenizer.eos_token_id]) > -1
    assert float(bias[tokenizer.mask_token_id]) == -1e4


@pytest.mark.parametrize(
    ("kernel", "more"), [("uniform", ()), ("mask_and_replace", ("--objective.name", "transition_bound"))]
)
def test_other_kernels_need_code_and_are_resumed_and_loaded(
    kernel: str, more: tuple[str, ...], train: Callable[..., Path], tmp_path: Path, logsnr: Run
) -> None:
    trained = train("--schedule.kernel", kernel, "--schedule.name", "cosine", *more)
    pipe = load(trained)
    assert type(pipe.scheduler) is TransitionScheduler
    assert pipe.scheduler.kernel == kernel
    assert float(pipe.scheduler.alphas_cumprod[-1]) == 0
    assert logsnr("export", trained, "--out", tmp_path / "exported").status == 0
    assert model_digest(tmp_path / "exported" / "model") == model_digest(trained / "model")
    assert sample(pipe, SampleOptions(num=2, steps=3)).shape == (2, 12)
    end = logsnr("publish", trained, "ada/tiny", "--stage", tmp_path / "staged")
    assert end.status == 0, end.output


def test_a_file_by_bytes_without_classes_and_its_place_is_not_published(
    train: Callable[..., Path], tmp_path: Path, logsnr: Run
) -> None:
    (tmp_path / "mine.txt").write_text(
        "\n\n".join(f"{word} and {word}s" for word in ("ant", "bee", "cow", "doe", "élan"))
    )
    trained = train("--data.source", str(tmp_path / "mine.txt"), "--data.tokens", "bytes")
    assert load(trained).num_classes is None
    end = logsnr("publish", trained, "ada/tiny", "--stage", tmp_path / "staged")
    assert end.status == 0, end.output
    config = json.loads((tmp_path / "staged" / "main" / "run" / "config.json").read_text())["config"]
    assert config["data"]["source"] == "path/to/texts"
    assert config["data"]["tokens"] == "bytes"


def test_a_folder_is_the_same_loaded_and_saved(trained: Path, tmp_path: Path) -> None:
    pipe = load(trained)
    assert type(pipe) is TextPipeline
    save_model(pipe, tmp_path / "again")
    assert model_digest(tmp_path / "again") == model_digest(trained / "model")
    ours, theirs = (sample(load(each), SampleOptions(num=2, steps=3)) for each in (trained, tmp_path / "again"))
    assert torch.equal(ours, theirs)


def test_stock_writes_with_it_by_the_card(trained: Path, tmp_path: Path, logsnr: Run) -> None:
    """The first program of the card, where there is torch, diffusers and transformers alone."""
    end = logsnr("publish", trained, "ada/tiny", "--stage", tmp_path / "staged")
    assert end.status == 0, end.output
    main = tmp_path / "staged" / "main"
    card = (main / "README.md").read_text()
    assert "writes texts of 12 tokens" in card
    program = card.split("```python\n")[1].split("```")[0].replace("ada/tiny", str(main))
    (tmp_path / "site").mkdir()
    link_packages(tmp_path / "site", "torch", "diffusers", "transformers")
    variables = {"HF_HUB_OFFLINE": "1", "DIFFUSERS_DISABLE_REMOTE_CODE": "1"}
    printed = run_stock_python(tmp_path / "site", program, cwd=tmp_path, variables=variables)
    assert "<|mask|>" not in printed


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (SampleOptions(eta=0.5), r"eta is noise added to numbers"),
        (SampleOptions(guidance=GuidanceOptions(projected=True)), r"guidance of texts knows the scale alone"),
        (SampleOptions(image=Path("a.png")), r"image is for models of pictures"),
        (SampleOptions(scheduler="sde"), r"is no scheduler of states"),
        (SampleOptions(scheduler="DiscreteDDIM"), r"takes away uniform noise, and the model's is absorbing"),
        (SampleOptions(class_labels=["middle"]), r"class_labels must be in 0\.\.1 or one of high, low"),
        (SampleOptions(prompts=["ünt"]), r"prompt must be of what the tokenizer knows"),
        (SampleOptions(steps=21), r"steps must be at most 20"),
    ],
)
def test_what_a_text_cannot_be_drawn_by_is_said(trained: Path, options: SampleOptions, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        sample(load(trained), options)


def test_guidance_of_texts_is_not_compared(trained: Path, logsnr: Run) -> None:
    assert "logsnr compare guidance is for samples of numbers" in logsnr("compare", "guidance", trained).message


def test_a_run_is_inspected(trained: Path, tmp_path: Path, logsnr: Run) -> None:
    end = logsnr("inspect", "run", trained, "--out", tmp_path / "seen", "--elbo-images", "4", "--elbo-timesteps", "8")
    assert end.status == 0, end.output
    assert sorted(path.name for path in (tmp_path / "seen").iterdir()) == ["bits.png", "film.png", "loss.png"]
    kept = json.loads(next((trained / "evaluation").glob("elbo-*.json")).read_text())["bits_per_dim"]
    said = f"texts: {kept['total']:.4f} ± {kept['standard_error']:.4f} bits a character, half of it between log-SNR"
    assert said in end.output


def test_schedules_of_states() -> None:
    """Survival is a line, or what the name says; what would leave some of the data is refused."""
    even = make_transition_scheduler(TransitionConfig(num_train_timesteps=50), 5, 4)
    line = TransitionScheduler("absorbing", 5, 50, mask_token_id=4)
    torch.testing.assert_close(even.alphas_cumprod, line.alphas_cumprod, rtol=0, atol=1e-6)
    uniform = make_transition_scheduler(TransitionConfig("cosine", kernel="uniform"), 5, 4)
    assert uniform.mask_token_id is None
    assert float(uniform.alphas_cumprod[499]) == pytest.approx(math.cos(math.pi / 4) ** 2, abs=0.01)
    some = make_transition_scheduler(TransitionConfig(kernel="mask_and_replace"), 5, 4)
    assert some.config["replace_share"] == 0.1
    with pytest.raises(ConfigError, match=r"must leave at most 0\.002 of the data at its end, and leaves 0\.\d+"):
        make_transition_scheduler(TransitionConfig("linear", shift=5.0), 5, 4)
    with pytest.raises(ConfigError, match=r"schedule\.name 'evn' is unknown\. Did you mean even"):
        make_transition_scheduler(TransitionConfig("evn"), 5, 4)
