"""What can't be trained stops with a message that says what to do, and what can't in part is told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from commands import Finished

import logsnr.training.train
from logsnr.settings.run import RunConfig, TrainConfig

Run = Callable[..., Finished]


def test_a_loss_that_is_not_finite(tiny: list[str], tmp_path: Path, logsnr: Run) -> None:
    run = tmp_path / "run"
    wild = ("--train.learning-rate", 1e12, "--train.max-grad-norm", 1e12, "--train.lr-warmup-steps", 0)
    message = logsnr("train", *tiny, *wild, "--train.checkpoint-every", 1, "--out", run).message
    assert "At step 2 the loss is nan" in message
    assert f"The last good checkpoint is {run / 'checkpoints' / 'step-00000001'}. Try a lower" in message
    assert "train.learning_rate" in message
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step-00000001"]
    assert len(message.splitlines()) == 1
    message = logsnr("train", *tiny, *wild, "--train.log-every", 100, "--out", tmp_path / "no").message
    assert "At step 2 the loss is nan" in message  # the step where it began, not the one where it was noticed
    assert "There is no checkpoint yet." in message


def test_before_reading_the_data(tiny: list[str], tmp_path: Path, logsnr: Run) -> None:
    nowhere = ("--data.source", "/nowhere", "--out", tmp_path / "run")
    sizes = ("--data.resolution", 45, "--model.block-out-channels", 8, 8, 8)
    message = logsnr("train", *tiny, *nowhere, *sizes).message
    assert "data.resolution must be a multiple of 4 for the 3 levels" in message
    assert "and is 45. Use 44 or 48, or fewer levels." in message
    for dry in ((), ("--dry-run",)):
        message = logsnr("train", *tiny, *nowhere, "--train.tracker", "wandb", *dry, before=hide_wandb).message
        assert message == "error: train.tracker wandb needs the package: pip install logsnr[wandb].\n"
    assert list(tmp_path.iterdir()) == [tmp_path / "log.txt"]


def hide_wandb() -> None:
    import importlib.util

    find_spec = importlib.util.find_spec
    importlib.util.find_spec = lambda name, *more: None if name == "wandb" else find_spec(name, *more)


def test_schedules_that_cannot_be(tiny: list[str], tmp_path: Path, logsnr: Run) -> None:
    out = ("--out", tmp_path / "run")
    assert (
        "'cosin' is unknown. Did you mean cosine?" in logsnr("train", *tiny, *out, "--schedule.name", "cosin").message
    )
    message = logsnr("train", *tiny, *out, "--schedule.options", "beta_end", 0.5).message
    assert "'beta_end', which is no option of cosine" in message
    end = logsnr("train", *tiny, *out, "--schedule.zero-terminal-snr", "--schedule.prediction-type", "epsilon")
    assert end.status != 0
    assert "Traceback" not in end.output
    words = " ".join(end.output.split())
    assert "needs another schedule.prediction_type than epsilon" in words
    assert "Use v_prediction." in words
    assert not (tmp_path / "run").exists()


def test_a_schedule_that_does_not_do_its_job_says_so_and_trains(tiny: list[str], tmp_path: Path, logsnr: Run) -> None:
    end = logsnr(
        "train", *tiny, "--schedule.name", "constant", "--schedule.options", "beta_min", 1e-4, "--out", tmp_path / "run"
    )
    assert end.status == 0
    assert "warning: ConstantBetaScheduler: terminal SNR is 8388, above 0.002." in end.output


def test_the_target_without_a_stock_form(tiny: list[str], tmp_path: Path, logsnr: Run) -> None:
    run = tmp_path / "run"
    end = logsnr("train", *tiny, "--schedule.prediction-type", "x0_minus_noise", "--out", run)
    assert end.status == 0
    assert "The target x0_minus_noise has no stock form" in end.output
    assert (run / "model").is_dir()
    assert not (run / "stock").exists()
    assert "no stock form" in logsnr("export", run, "--class-label", "dark", "--out", tmp_path / "dark").message
    assert logsnr("sample", run, "--num", 2, "--steps", 2, "--out", tmp_path / "x.png").status == 0
    message = logsnr("sample", run, "--num", 2, "--steps", 2, "--scheduler", "DDIMScheduler").message
    assert "x0_minus_noise" in message


@pytest.mark.parametrize(
    ("batch", "accumulation", "advice"),
    [
        (64, 1, ("--train.batch-size 32", "--train.gradient-accumulation-steps 2,")),
        (9, 2, ("--train.batch-size 3", "--train.gradient-accumulation-steps 6,")),
        (5, 1, ("--train.batch-size 1", "--train.gradient-accumulation-steps 5,")),
        (1, 4, ("Use a smaller model, or smaller samples",)),
    ],
)
def test_out_of_memory(batch: int, accumulation: int, advice: tuple[str, ...]) -> None:
    config = RunConfig(train=TrainConfig(batch_size=batch, gradient_accumulation_steps=accumulation))
    message = logsnr.training.train._out_of_memory(config, "memory")
    assert all(words in message for words in advice), message
