"""Several processes train the same model as one process with as many times the batch (on the CPU, over gloo)."""

from __future__ import annotations

import functools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from commands import Command, Finished
from safetensors.torch import load_file

from logsnr.training import heartbeat
from logsnr.training.heartbeat import GONE


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def join(rank: int, port: int) -> None:
    """What a launcher tells each of two processes."""
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", LOCAL_WORLD_SIZE="2")
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))


def two(log: Path, *argv: object, join: Callable[[int, int], None] = join) -> list[Command]:
    port = free_port()
    words = [str(a) for a in argv]
    return [Command(log.with_suffix(f".{rank}"), words, functools.partial(join, rank, port)) for rank in range(2)]


def losses(run: Path) -> list[float]:
    records = [json.loads(line) for line in (run / "logs" / "train.jsonl").read_text().splitlines()]
    return [record["loss"] for record in records if "loss" in record]


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model" / "unet" / "diffusion_pytorch_model.safetensors")


IMPORTANCE = ["--objective.name", "vlb", "--schedule.variance-type", "learned_range"]
IMPORTANCE += ["--schedule.num-train-timesteps", "4", "--train.learning-rate", "1e-4"]
MUON = ["--train.optimizer", "muon"]
LEARNED = ["--schedule.name", "learned", "--objective.weighting.name", "sigmoid", "--schedule.teacher", "losses"]


@pytest.mark.parametrize(
    ("accumulation", "more"), [("1", []), ("3", []), ("3", MUON), ("3", IMPORTANCE), ("3", LEARNED)]
)
def test_two_processes_are_one_with_twice_the_batch(
    accumulation: str, more: list[str], tiny: list[str], tmp_path: Path, logsnr: Callable[..., Finished]
) -> None:
    arguments = [*tiny, "--train.gradient-accumulation-steps", accumulation, "--data.horizontal-flip", *more]
    assert logsnr("train", *arguments, "--train.batch-size", 8, "--out", tmp_path / "one").status == 0
    ends = [c.wait() for c in two(tmp_path / "log", "train", *arguments, "--out", tmp_path / "two")]
    assert [end.status for end in ends] == [0, 0], ends
    assert "2 processes on CPU, float32" in ends[0].output
    assert f"{tmp_path / 'two' / 'model'} is done." in ends[0].output
    assert ends[1].output == ""  # one speaks, and one writes

    assert len(losses(tmp_path / "one")) == 12
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), abs=1e-4, rel=1e-4)
    one, other = weights(tmp_path / "one"), weights(tmp_path / "two")
    for name, value in one.items():
        torch.testing.assert_close(other[name], value, rtol=1e-2, atol=2e-4)

    for path in (tmp_path / "one" / "checkpoints").glob("step-*/objective.safetensors"):
        mine, its = load_file(path), load_file(tmp_path / "two" / path.relative_to(tmp_path / "one"))
        for name, value in mine.items():
            torch.testing.assert_close(its[name], value, rtol=1e-3, atol=1e-4)
        if "importance.seen" in mine:
            assert int(mine["importance.seen"].min()) > 10  # it is in use

    steps = [path.name for path in sorted((tmp_path / "two" / "checkpoints").iterdir())]
    assert steps == ["step-00000008", "step-00000012"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--data.source", "/nothing"), "data.source is /nothing"),  # the first process is the first to see it
        (("--schedule.name", "cosin"), "'cosin' is unknown"),  # all see it
        (("--out", "/proc/run"), "/proc/run can't be made"),  # the first alone sees it
    ],
)
def test_a_refusal_ends_both(options: tuple[str, str], words: str, tiny: list[str], tmp_path: Path) -> None:
    start = time.monotonic()
    first, second = [c.wait() for c in two(tmp_path / "log", "train", *tiny, "--out", tmp_path / "run", *options)]
    assert words in first.message
    assert (second.status, second.output) == (1, "")
    assert time.monotonic() - start < 30
    assert not (tmp_path / "run").exists()


def test_a_process_that_is_gone_is_named_in_one_line(tiny: list[str], tmp_path: Path) -> None:
    arguments = [*tiny, "--train.num-steps", "100000", "--train.log-every", "1", "--out", str(tmp_path / "run")]
    first, second = two(tmp_path / "log", "train", *arguments)
    first.wait_until(lambda: (tmp_path / "run" / "logs" / "train.jsonl").exists() and bool(losses(tmp_path / "run")))
    second.kill()
    assert first.wait().message == f"error: {GONE}\n"


def join_with_a_quick_heartbeat(rank: int, port: int) -> None:
    heartbeat.BEAT = 0.5  # a minute would be long for a test
    join(rank, port)


def test_a_process_that_is_silent_is_noticed(tiny: list[str], tmp_path: Path) -> None:
    """Its connections are open, as those of one that was killed can be for gloo, whose exchanges then never end."""
    arguments = [*tiny, "--train.num-steps", "100000", "--train.log-every", "1", "--out", str(tmp_path / "run")]
    first, second = two(tmp_path / "log", "train", *arguments, join=join_with_a_quick_heartbeat)
    first.wait_until(lambda: (tmp_path / "run" / "logs" / "train.jsonl").exists() and bool(losses(tmp_path / "run")))
    second.send(signal.SIGSTOP)
    try:
        assert first.wait().message == f"error: {GONE}\n"
    finally:
        second.kill()


def test_a_loss_that_is_not_finite_ends_both(tiny: list[str], tmp_path: Path) -> None:
    wild = ("--train.learning-rate", 1e12, "--train.max-grad-norm", 1e12, "--train.lr-warmup-steps", 0)
    for command in two(tmp_path / "log", "train", *tiny, *wild, "--out", tmp_path / "run"):
        assert "At step 2 the loss is nan" in command.wait().message


def test_accelerate_launch_stops_and_goes_on(tiny: list[str], tmp_path: Path, logsnr: Callable[..., Finished]) -> None:
    """A real launcher. It passes on the signal that the processes it started have had already, and that is no
    "stop at once"."""
    run = tmp_path / "run"
    arguments = [*tiny, "--train.num-steps", "200", "--train.checkpoint-every", "150", "--out", str(run)]
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    command += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    command += ["--main_process_port", str(free_port()), "-m", "logsnr", "train", *arguments]
    environment = os.environ | {"ACCELERATE_USE_CPU": "true"}  # not --cpu, which starts one process only
    with (tmp_path / "launch.txt").open("w") as output:
        launcher = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        )
        try:
            end = time.monotonic() + 90
            while not (run / "logs" / "train.jsonl").exists() or len(losses(run)) < 5:
                assert launcher.poll() is None, (tmp_path / "launch.txt").read_text()
                assert time.monotonic() < end, (tmp_path / "launch.txt").read_text()
                time.sleep(0.01)
            os.killpg(launcher.pid, signal.SIGTERM)
            assert launcher.wait(30) != 0
        finally:
            if launcher.poll() is None:
                os.killpg(launcher.pid, signal.SIGKILL)
    said = (tmp_path / "launch.txt").read_text()
    step = len(losses(run))
    assert step < 150, said
    assert f"Stopped after step {step}, which is saved." in said
    assert [path.name for path in (run / "checkpoints").iterdir()] == [f"step-{step:08d}"]

    ends = [c.wait() for c in two(tmp_path / "log", "train", *arguments)]
    assert [end.status for end in ends] == [0, 0], ends
    assert f"Going on from step {step} of 200." in ends[0].output
    assert len(losses(run)) == 200
