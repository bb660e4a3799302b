"""The table of ways to draw texts: its figures, and that it is printed for a run."""

from __future__ import annotations

import math
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest
import torch
from commands import run
from travelling import load_alone

from logsnr.media.text import character_codec

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def measuring(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return load_alone(BENCHMARKS / "text_sampling.py")


def test_entropy_is_that_of_the_frequencies_and_its_error_that_of_many_draws(measuring: ModuleType) -> None:
    chance = torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    tables = torch.multinomial(chance, 200 * 40 * 10, replacement=True, generator=generator).reshape(200, 40, 10)
    found = [measuring.entropy(table, 9) for table in tables]
    counts = Counter(tables[0].flatten().tolist())
    assert found[0][0] == pytest.approx(-sum(n / 400 * math.log2(n / 400) for n in counts.values()))
    spread = torch.tensor([value for value, _ in found]).std()
    assert float(torch.tensor([error for _, error in found]).mean()) == pytest.approx(float(spread), rel=0.15)


def test_different_words_and_letters_of_known_texts(measuring: ModuleType) -> None:
    codec = character_codec(" abcd")
    texts = ["ab ab cd ab ab", "cd cd ab cd cd"] * 16
    sequences = torch.stack([torch.tensor(codec.encode(text)) for text in texts])
    examples = type("Examples", (), {"codec": codec})
    share, entropy, grams, different = measuring.figures(sequences, examples, frozenset({"ab"}))
    assert share[0] == pytest.approx(0.5)  # of "ab cd ab" and "cd ab cd"
    assert entropy[0] == pytest.approx(-(8 / 28 * math.log2(8 / 28) + 20 / 28 * math.log2(5 / 28)))
    assert different == (pytest.approx(2 / 48), 0)
    assert 0 < grams[0] < 0.1


def test_it_prints_a_table_of_a_run(tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    for k in range(24):
        (tmp_path / "texts" / f"{k}.txt").write_text(f"{'ab' * (k % 3 + 1)} cd ".strip() * 30)
    (tmp_path / "words").write_text("ab cd")
    few = ("--train.num-steps", "2", "--train.batch-size", "4", "--train.tracker", "none", "--train.sample-every", "0")
    small = ("--model.hidden-size", "16", "--model.num-hidden-layers", "1", "--model.num-attention-heads", "2")
    data = ("--data.source", str(tmp_path / "texts"), "--data.length", "12", "--data.held-out-fraction", "0.5")
    end = run(tmp_path / "log.txt", "train", "text-128", *data, *small, *few, "--out", tmp_path / "run")
    assert end.status == 0, end.output
    command = [sys.executable, str(BENCHMARKS / "text_sampling.py"), str(tmp_path / "run"), "--num", "32"]
    command += ["--words", str(tmp_path / "words"), "--steps", "2", "3"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]
    lines = done.stdout.splitlines()
    assert len(lines) == 3 + 2 * 8
    assert lines[2].startswith("|  | held-out text |  |  | ")
    assert lines[3].startswith("| 2 | random | 0 | 1 | ")
    assert lines[-1].startswith("| 3 | random | 0 | 0.8 | ")
    assert {line.count("|") for line in lines} == {9}
