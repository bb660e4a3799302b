"""What several tests share: a folder of tiny images, and the settings of a training that takes a second."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile

# Before torch is imported. Tiny networks gain nothing from threads, and several tests run at once.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Networks and features are cached for this run of the tests alone, also by the commands it starts.
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp()

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from commands import Command, Finished
from loopback_hub import LoopbackHub, enter, entered
from PIL import Image
from points_package import PACKAGE as POINTS_PACKAGE

from logsnr.settings.registry import known


@pytest.fixture(scope="session", autouse=True)
def cleared_cache() -> Iterator[None]:
    """The cache is removed in the end."""
    yield
    shutil.rmtree(os.environ["XDG_CACHE_HOME"])


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 gray images of 8x8 pixels in two classes, "dark" and "light", each nearly constant."""
    path = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for name, level in [("dark", 60), ("light", 195)]:
        (path / name).mkdir()
        for i in range(20):
            pixels = (level + rng.normal(0, 8, (8, 8))).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(path / name / f"{i:02}.png")
    return path


@pytest.fixture(scope="session")
def tiny(folder: Path) -> list[str]:
    """Arguments of `logsnr train` but for --out: 12 steps of a tiny network, checkpoints at 4, 8 and 12."""
    return [
        *("smoke", "--data.source", str(folder), "--data.resolution", "8", "--model.block-out-channels", "8"),
        *("--train.batch-size", "4", "--train.num-steps", "12", "--train.checkpoint-every", "4"),
        *("--train.mixed-precision", "no", "--train.tracker", "none", "--train.log-every", "1"),
        *("--train.held-out-every", "0", "--train.sample-every", "0"),
    ]


@pytest.fixture
def logsnr(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Finished]:
    """`logsnr("train", …)` runs that command in a process of its own, to its end."""
    monkeypatch.chdir(tmp_path)

    def run(*argv: object, before: Callable[[], None] | None = None) -> Finished:
        return Command(tmp_path / "log.txt", [str(a) for a in argv], before).wait()

    return run


@pytest.fixture
def started(tmp_path: Path) -> Callable[..., Command]:
    """`started("train", …)` begins that command in a process of its own."""
    return lambda *argv: Command(tmp_path / "log.txt", [str(a) for a in argv])


@pytest.fixture
def diffusers_log() -> Iterator[list[str]]:
    """What diffusers logs as a warning or worse."""
    lines: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("diffusers").addHandler(handler)
    yield lines
    logging.getLogger("diffusers").removeHandler(handler)


@pytest.fixture
def hub() -> Iterator[LoopbackHub]:
    """A Hub of this test's own."""
    with LoopbackHub() as running:
        yield running
        assert running.errors == []


@pytest.fixture
def at_hub(hub: LoopbackHub, tmp_path: Path) -> Iterator[LoopbackHub]:
    """The same, and this very process uses it, as ada."""
    with entered(hub.environment(tmp_path / "home")):
        yield hub


@pytest.fixture
def logsnr_at_hub(hub: LoopbackHub, logsnr: Callable[..., Finished], tmp_path: Path) -> Callable[..., Finished]:
    """`logsnr_at_hub("sample", "ada/digits", …)` runs that command in a process of its own that uses `hub`, as ada.

    Keywords are environment variables for it: `HF_TOKEN=""` is nobody, `HF_HUB_OFFLINE="1"` stays off the network.
    """

    def run(*argv: object, **variables: str) -> Finished:
        return logsnr(*argv, before=partial(enter, hub.environment(tmp_path / "home") | variables))

    return run


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The package of points, as if it were installed, for one test."""
    monkeypatch.syspath_prepend(POINTS_PACKAGE)
    known.cache_clear()
    yield
    known.cache_clear()
