"""The same command again goes on, exactly: whatever ended it, the weights are those of a run that nothing ended."""

from __future__ import annotations

import json
import os
import random
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import Command, Finished
from commands import run as run_command

VARIANTS = {
    "float32": [],
    "bfloat16": ["--train.mixed-precision", "bf16"],
    "everything random": [
        *("--model.dropout", "0.3", "--data.horizontal-flip", "--train.gradient-accumulation-steps", "2"),
        *("--train.held-out-every", "45", "--train.sample-every", "45", "--train.tracker", "tensorboard"),
        *("--model.attention-levels", "0", "--model.attention-head-dim", "4", "--data.held-out-fraction", "0.4"),
    ],
    "importance": [  # in use from sample 100 on, which is step 25
        *("--objective.name", "vlb", "--schedule.variance-type", "learned_range"),
        *("--schedule.num-train-timesteps", "10"),
    ],
    "muon": ["--train.optimizer", "muon"],
    "learned schedule": [
        *("--schedule.name", "learned", "--objective.weighting.name", "sigmoid"),
        *("--train.held-out-every", "30", "--data.held-out-fraction", "0.4", "--schedule.teacher", "variance"),
    ],
}
STEPS = 60


def weights(run: Path) -> bytes:
    return (run / "model" / "unet" / "diffusion_pytorch_model.safetensors").read_bytes()


def last_checkpoint(run: Path) -> dict[str, bytes]:
    (folder,) = (run / "checkpoints").glob(f"step-{STEPS:08d}")
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def same_end(a: Path, b: Path) -> bool:
    return weights(a) == weights(b) and last_checkpoint(a) == last_checkpoint(b)


def logged_steps(run: Path) -> list[int]:
    path = run / "logs" / "train.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line)["step"] for line in lines if line.endswith("}") and '"loss"' in line]


def last_step(run: Path) -> int:
    return max(logged_steps(run), default=0)


@pytest.fixture(scope="module")
def longer(tiny: list[str]) -> list[str]:
    return [*tiny, "--train.num-steps", str(STEPS), "--train.checkpoint-every", "10", "--train.lr-warmup-steps", "9"]


@pytest.fixture(scope="module")
def undisturbed(longer: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("undisturbed")
    assert run_command(path / "log.txt", "train", *longer, "--out", path / "run").status == 0
    return path / "run"


@pytest.mark.parametrize("name", VARIANTS)
def test_killed_three_times_it_ends_as_if_never_killed(
    name: str,
    longer: list[str],
    tmp_path: Path,
    logsnr: Callable[..., Finished],
    started: Callable[..., Command],
) -> None:
    arguments = [*longer, *VARIANTS[name]]
    assert logsnr("train", *arguments, "--out", tmp_path / "undisturbed").status == 0
    run, rng = tmp_path / "killed", random.Random(name)
    # one before the first checkpoint, two after it, each at some moment within a step
    for moment in (rng.randrange(1, 9), rng.randrange(11, 35), rng.randrange(36, 50)):
        command = started("train", *arguments, "--out", run)
        command.wait_until(lambda at=moment: last_step(run) >= at)
        time.sleep(rng.random() * 0.02)
        assert command.kill().status == -signal.SIGKILL
        assert not (run / "model").exists()
    end = logsnr("train", *arguments, "--out", run)
    assert end.status == 0
    assert "Going on from step " in end.output
    assert same_end(tmp_path / "undisturbed", run)
    assert logged_steps(run) == logged_steps(tmp_path / "undisturbed") == list(range(1, STEPS + 1))
    # counted at the end, as a kill between the newest checkpoint's arrival and the oldest one's removal leaves three
    assert len(list((run / "checkpoints").glob("step-*"))) == 2

    assert logsnr("train", *arguments, "--out", run).status == 0  # and once more, when all is done
    assert same_end(tmp_path / "undisturbed", run)


def test_killed_while_a_checkpoint_is_written(
    longer: list[str],
    undisturbed: Path,
    tmp_path: Path,
    logsnr: Callable[..., Finished],
    started: Callable[..., Command],
) -> None:
    arguments = [*longer, "--train.checkpoint-every", "4"]
    run = tmp_path / "killed"
    for _ in range(3):
        command = started("train", *arguments, "--out", run)
        before = last_step(run)
        command.wait_until(lambda at=before: last_step(run) > at and any(run.glob("checkpoints/.step-*.partial")))
        command.kill()
    assert logsnr("train", *arguments, "--out", run).status == 0
    assert same_end(undisturbed, run)
    assert not list(run.glob("checkpoints/.*"))


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_stopped_by_a_signal_it_saves_first(
    number: signal.Signals,
    status: int,
    longer: list[str],
    undisturbed: Path,
    tmp_path: Path,
    logsnr: Callable[..., Finished],
    started: Callable[..., Command],
) -> None:
    run = tmp_path / "stopped"
    command = started("train", *longer, "--out", run)
    command.wait_until(lambda: last_step(run) >= 15)
    command.send(number)
    end = command.wait()
    assert end.status == status
    step = last_step(run)
    assert 15 <= step < STEPS
    assert "Stopping after this step" in end.output
    assert f"Stopped after step {step}, which is saved. The same command goes on from there." in end.output
    assert "Traceback" not in end.output
    assert (run / "checkpoints" / f"step-{step:08d}").is_dir()
    assert not (run / "model").exists()
    end = logsnr("train", *longer, "--out", run)
    assert end.status == 0
    assert f"Going on from step {step} of {STEPS}." in end.output
    assert same_end(undisturbed, run)


def test_a_damaged_newest_checkpoint_costs_only_time(
    longer: list[str],
    undisturbed: Path,
    tmp_path: Path,
    logsnr: Callable[..., Finished],
    started: Callable[..., Command],
) -> None:
    run = tmp_path / "damaged"
    command = started("train", *longer, "--out", run)
    command.wait_until(lambda: (run / "checkpoints" / "step-00000030").exists())
    command.kill()
    newest = max((run / "checkpoints").glob("step-*"))
    (newest / "ema.safetensors").write_bytes((newest / "ema.safetensors").read_bytes()[:-100])
    end = logsnr("train", *longer, "--out", run)
    assert end.status == 0
    assert f"{newest} is damaged (ema.safetensors isn't what was written); it is passed over." in end.output
    assert f"Going on from step {int(newest.name[-8:]) - 10} of {STEPS}." in end.output
    assert same_end(undisturbed, run)

    for folder in (run / "checkpoints").glob("step-*"):
        (folder / "state.json").unlink()
    assert "No whole checkpoint is left. Delete" in logsnr("train", *longer, "--out", run).message


def stream() -> None:
    """Make each set too large for memory and cache."""
    import logsnr.data.scan

    os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(dir=os.environ["XDG_CACHE_HOME"])
    logsnr.data.scan.KEPT_LIMIT = 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stream_in_worker_processes_is_resumed_and_stopped_like_a_set_in_memory(
    number: signal.Signals, tiny: list[str], tmp_path: Path, logsnr: Callable[..., Finished]
) -> None:
    """The signal reaches the workers that decode images too: they are needed until the step at hand is done."""
    arguments = [*tiny, "--data.num-workers", "2", "--train.gradient-accumulation-steps", "8"]
    assert logsnr("train", *arguments, "--out", tmp_path / "memory").status == 0
    run = tmp_path / "stream"
    command = Command(tmp_path / "log.txt", ["train", *arguments, "--out", str(run)], stream)
    command.wait_until(lambda: last_step(run) >= 3)
    command.send(number)
    end = command.wait()
    assert "Traceback" not in end.output, end.output
    assert end.status == 128 + number
    end = logsnr("train", *arguments, "--out", run, before=stream)
    assert end.status == 0
    assert "read from disk in every epoch" in end.output
    assert weights(tmp_path / "memory") == weights(run)


def test_two_trainings_do_not_share_a_folder(
    longer: list[str], tmp_path: Path, logsnr: Callable[..., Finished], started: Callable[..., Command]
) -> None:
    run = tmp_path / "run"
    first = started("train", *longer, "--out", run, "--train.num-steps", "100000")
    first.wait_until(lambda: last_step(run) >= 3)
    second = Command(tmp_path / "second.txt", ["train", *longer, "--out", str(run), "--train.num-steps", "100000"])
    assert f"{run} is being trained by another process. Wait for it, or take another --out." in second.wait().message
    first.kill()
