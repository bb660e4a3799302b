"""Threads beside other processes: what is asked of OpenMP, what is seen of others, what is said and noted. No times."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import Finished

from logsnr.base.threads import Pace, Usage, spin_shortly

on_linux = pytest.mark.skipif(not Usage.known(), reason="the system doesn't say how busy it is")
LOOP = "while True: pass"


@pytest.mark.parametrize("said", [{"GOMP_SPINCOUNT": "7"}, {"OMP_WAIT_POLICY": "active"}])
def test_a_short_spin_is_asked_for_where_the_user_said_nothing(said: dict[str, str]) -> None:
    nothing, before = dict[str, str](), dict(said)
    spin_shortly(nothing)
    spin_shortly(said)
    assert nothing == {"GOMP_SPINCOUNT": "10000"}
    assert said == before


@on_linux
def test_others_are_seen_and_this_process_is_not_one_of_them() -> None:
    def seen() -> float:
        usage, start = Usage(), time.process_time()
        while time.process_time() - start < 0.5:  # this process is busy meanwhile
            pass
        return usage.of_others()

    alone = seen()
    neighbours = [subprocess.Popen([sys.executable, "-c", LOOP]) for _ in range(2)]
    try:
        beside = seen()
    finally:
        for neighbour in neighbours:
            neighbour.kill()
            neighbour.wait()
    assert 0 <= alone <= Usage().cores
    assert 0.3 < beside <= Usage().cores  # what is left of two cores, and each gets its share of one


SHARING = """
import sys, threading, time
import torch
from logsnr.base import threads

torch.set_num_threads(2)
loads = iter(float(word) for word in sys.argv[1:])
seen = threading.Event()


class Told:
    cores = 2

    @staticmethod
    def known():
        return True

    def of_others(self):
        print(sum(thread.name == "idle team" for thread in threading.enumerate()))
        load = next(loads, None)
        if load is None:
            seen.set()
        return load or 0.0


threads.Usage, threads._LOOK_EVERY = Told, 0.05
with threads.sharing_cores():
    seen.wait()
time.sleep(0.05)
print(sum(thread.name == "idle team" for thread in threading.enumerate()))
"""


def test_waits_are_short_from_the_first_sight_of_others_to_the_last() -> None:
    """An idle team of threads stands for short waits; between the two thresholds all stays as it is."""
    loads = ["0.1", "0.9", "0.2", "0.9", "0.05", "0.2", "0.3"]
    done = subprocess.run([sys.executable, "-c", SHARING, *loads], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["0", "0", "1", "1", "1", "0", "0", "1", "0"]


def test_slow_steps_are_spoken_of_once() -> None:
    pace = Pace("cpu", 1000)
    assert [pace.took(s) for s in (9.0, 0.2, 0.3, 0.9, 0.9, 0.9, 0.9, 0.2, 0.9, 0.9, 0.9, 0.9)] == [None] * 12
    said = pace.took(0.9)
    assert said is not None
    assert said.startswith("A step takes 0.9 s, and took 0.2 s before. Likely cause: ")
    assert [pace.took(5.0) for _ in range(9)] == [None] * 9


def test_a_gpu_s_steps_are_not_watched() -> None:
    pace = Pace("cuda", 1000)
    for _ in range(20):
        pace.begin()
        assert pace.end() is None


def test_a_run_keeps_its_threads_and_warns_on_another_processor(
    tiny: list[str], tmp_path: Path, logsnr: Callable[..., Finished]
) -> None:
    run = tmp_path / "run"
    assert logsnr("train", *tiny, "--out", run).status == 0
    path = run / "config.json"
    record = json.loads(path.read_text())
    noted = record["machine"]
    assert set(noted) == {"processor", "threads"}
    assert noted["threads"] == 1

    path.write_text(json.dumps(record | {"machine": noted | {"threads": 3}}))
    output = logsnr("train", *tiny, "--out", run).output
    assert "Computing with 3 threads as this run began, not with 1." in output
    assert "another processor" not in output

    path.write_text(json.dumps(record | {"machine": {"processor": "Z80", "threads": 3}}))
    end = logsnr("train", *tiny, "--out", run)
    assert end.status == 0
    assert f"warning: this run began on another processor (Z80; here {noted['processor']})." in end.output
    assert "Computing with" not in end.output


def test_a_long_run_is_told_once_its_pace_is_known() -> None:
    assert Pace.forecast(3600) is None
    assert "takes 250 hours more" in (Pace.forecast(900_000) or "")
    pace = Pace("cpu", 10**12)
    said = []
    for _ in range(40):
        pace.begin()
        said.append(pace.end())
    assert [k for k, line in enumerate(said) if line is not None and "hours more" in line] == [11]
