"""The command line: its help, what it refuses, and that a dry run leaves nothing behind."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import Command, Finished

import logsnr.commands.cli as cli
from logsnr.settings.options import EvaluateOptions, SampleOptions
from logsnr.settings.presets import presets
from logsnr.settings.run import RunConfig, flat, from_json

Run = Callable[..., Finished]


def flags(cls: type[Any], prefix: str = "") -> list[str]:
    """The options that a dataclass of arguments gives rise to."""
    found = []
    for field in dataclasses.fields(cls):
        name = prefix + field.name.replace("_", "-")
        kind = field.default_factory if field.default_factory is not dataclasses.MISSING else None
        if dataclasses.is_dataclass(kind):
            inner = "" if kind in (SampleOptions, EvaluateOptions) and field.name == "options" else f"{name}."
            found += flags(kind, inner)  # type: ignore[arg-type]
        elif "Positional" not in str(field.type):
            found.append(name)
    return found


def without_boxes(text: str) -> str:
    """Help in words: wrapped in boxes by tyro, which break it at any blank."""
    return " ".join(text.translate(str.maketrans("│╭╮╰╯─", "      ")).split())


# Help


def test_help_answers_at_once() -> None:
    """torch and diffusers take seconds; a fresh process that only prints help doesn't load them."""
    for argv in (["--help"], ["train", "--help"], ["train", "smoke", "--help"], ["sample", "--help"]):
        code = (
            "import sys; from logsnr.__main__ import main; sys.argv[0] = 'logsnr'\n"
            "try: status = main()\n"
            "except SystemExit as end: status = end.code\n"
            "assert not status, status\n"
            "assert not {'torch', 'diffusers', 'accelerate', 'datasets'} & set(sys.modules)"
        )
        start = time.monotonic()
        subprocess.run([sys.executable, "-c", code, *argv], check=True, capture_output=True)
        assert time.monotonic() - start < 5


def test_usage_names_every_command(logsnr: Run) -> None:
    end = logsnr("--help")
    assert end.status == 0
    assert logsnr("-h").output == end.output
    for name, (_, text) in cli.COMMANDS.items():
        assert f"  {name} " in end.output
        assert text in end.output
    assert logsnr().status == 2
    assert logsnr().output == end.output


@pytest.mark.parametrize("preset", presets())
def test_help_of_train_names_every_setting_and_its_value(preset: str, logsnr: Run) -> None:
    end = logsnr("train", preset, "--help")
    assert end.status == 0
    text = without_boxes(end.output)
    for name in flat(presets()[preset].config):
        if name == "kind":  # the preset's
            continue
        flag = name.replace("_", "-")
        assert f"--{flag} " in text or f"--{flag}," in text, flag
    assert f"(default: {presets()[preset].config.train.num_steps})" in text


def test_help_of_train_names_every_preset(logsnr: Run) -> None:
    text = without_boxes(logsnr("train", "--help").output)
    for name, preset in presets().items():
        assert name in text
        assert preset.text in text


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        (["sample"], cli.SampleArguments),
        (["export"], cli.ExportArguments),
        (["evaluate"], cli.EvaluateArguments),
        (["publish"], cli.PublishArguments),
        (["inspect", "schedule"], cli.InspectScheduleArguments),
        (["inspect", "data"], cli.InspectDataArguments),
        (["inspect", "run"], cli.InspectRunArguments),
        (["compare", "smoke"], cli.CompareArguments),
    ],
)
def test_help_of_each_command_names_every_option(command: list[str], arguments: type[Any], logsnr: Run) -> None:
    end = logsnr(*command, "--help")
    assert end.status == 0
    text = without_boxes(end.output)
    names = flags(arguments)
    assert names
    for flag in names:
        assert f"--{flag}" in text, flag


# What is refused


def test_unknown_command(logsnr: Run) -> None:
    end = logsnr("trian", "smoke")
    assert end.status == 2
    assert end.output.startswith("logsnr: there is no command 'trian'. Did you mean train?\n\nusage: logsnr COMMAND")


def test_a_wrong_preset_is_answered_by_the_presets(logsnr: Run) -> None:
    for argv, problem in [
        (("images64", "--out", "x"), "there is no preset 'images64'. Did you mean images-64 or images-32?"),
        (("--out", "x", "smoke"), "the preset comes first, before --out."),
    ]:
        end = logsnr("train", *argv)
        assert end.status == 2
        assert end.output.startswith(f"logsnr train: {problem}\n\nusage: logsnr train PRESET --out DIR")
        for name, preset in presets().items():
            assert re.search(rf"(?m)^  {name} +{re.escape(preset.text)}$", end.output)
        assert len(end.output.splitlines()) < 20
    assert logsnr("train").status == 2
    assert logsnr("train").output == logsnr("train", "--help").output


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["train", "smoke"], "--out PATH"),
        (["train", "smoke", "--out", "x", "--train.num-step", "3"], "--train.num-steps"),
        (["train", "smoke", "--out", "x", "--train.num-steps", "many"], "many"),
        (["train", "smoke", "--out", "x", "--data.channels", "2"], "Expected one of ('1', '3', '4')"),
        (["sample"], "MODEL A run folder, a model folder"),
        (["sample", "x", "--nun", "3"], "--num INT"),
        (["export"], "RUN The run folder."),
        (["inspect", "schedule", "--dry-run", "--shift"], "--shift"),
        (["inspect", "schedul"], "there is no subject 'schedul'. Did you mean schedule?"),
    ],
)
def test_wrong_arguments(argv: list[str], words: str, logsnr: Run, tmp_path: Path) -> None:
    end = logsnr(*argv)
    assert end.status == 2
    assert "Traceback" not in end.output
    assert words in without_boxes(end.output), end.output
    assert len(end.output.splitlines()) < 12
    helps = re.findall(r"logsnr [a-z ]*--help", without_boxes(end.output))
    assert helps
    assert all(logsnr(*command.split()[1:]).status == 0 for command in helps)
    assert [path.name for path in tmp_path.iterdir()] == ["log.txt"]


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["train", "smoke", "--out", "x", "--train.num-steps", "0"], "train.num_steps must be at least 1, and is 0."),
        (["train", "smoke", "--out", "x", "--data.resolution", "17"], "data.resolution must be a multiple of 2"),
        (["sample", "x", "--num", "0"], "--num must be at least 1, and is 0."),
        (["sample", "x", "--out", "grid.jpg"], "Images are written as PNG: take grid.png."),
        (["sample", "x", "--out", "log.txt"], "--out log.txt is a file already."),
        (["inspect", "schedule"], "needs the name of at least one schedule, such as cosine."),
    ],
)
def test_a_rule_that_is_broken_is_said_in_one_line(argv: list[str], words: str, logsnr: Run, tmp_path: Path) -> None:
    message = logsnr(*argv).message
    assert words in message
    assert len(message.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["log.txt"]


def test_interrupted_before_training_it_just_ends(tiny: list[str], tmp_path: Path) -> None:
    command = Command(tmp_path / "log.txt", ["train", *tiny, "--out", str(tmp_path / "run")], read_slowly)
    command.wait_until(lambda: (tmp_path / "log.txt").exists() and "slowly" in (tmp_path / "log.txt").read_text())
    command.send(signal.SIGINT)
    end = command.wait()
    assert end.status == 130
    assert "Traceback" not in end.output


def read_slowly() -> None:
    import logsnr.data.scan

    os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(dir=os.environ["XDG_CACHE_HOME"])  # nothing was read before
    fit = logsnr.data.scan.fit

    def slow(*arguments: Any) -> Any:
        print("slowly", flush=True)
        time.sleep(0.1)
        return fit(*arguments)

    logsnr.data.scan.fit = slow


# Dry runs


def test_dry_run_of_train_shows_everything_and_writes_nothing(tiny: list[str], tmp_path: Path, logsnr: Run) -> None:
    end = logsnr("train", *tiny, "--out", tmp_path / "run", "--dry-run")
    assert end.status == 0
    assert [path.name for path in tmp_path.iterdir()] == ["log.txt"]
    shown, brace, rest = end.output.rpartition("\n}\n")
    config = from_json(shown + brace)
    assert isinstance(config, RunConfig)
    assert config.train.num_steps == 12
    assert "38 training and 2 held-out images, 8x8, gray, 8 bit, 2 classes" in rest
    assert "12 steps of 4 images a process: 1.3 times through the data" in rest
    assert f"The command begins a run in {tmp_path / 'run'}; nothing was written." in rest

    assert logsnr("train", *tiny, "--out", tmp_path / "run").status == 0
    assert json.loads((tmp_path / "run" / "config.json").read_text())["config"] == json.loads(shown + brace)["config"]
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")}
    end = logsnr("train", *tiny, "--out", tmp_path / "run", "--dry-run")
    assert f"The command goes on with the run in {tmp_path / 'run'}; nothing was written." in end.output
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")} == before


def test_dry_run_finds_what_would_be_refused(tiny: list[str], tmp_path: Path, logsnr: Run) -> None:
    arguments = ("train", *tiny, "--out", tmp_path / "run", "--dry-run")
    for option, value, words in [
        ("--data.source", "/nowhere", "/nowhere"),
        ("--schedule.name", "cosin", "Did you mean cosine?"),
        ("--init-from", "./nowhere", "There is no folder ./nowhere"),
    ]:
        assert words in logsnr(*arguments, option, value).message


# inspect


def test_inspect_schedule(tmp_path: Path, logsnr: Run) -> None:
    end = logsnr("inspect", "schedule", "linear", "cosine", "--out", tmp_path / "two.png")
    assert end.status == 0
    assert f"The curves are in {tmp_path / 'two.png'}." in end.output
    assert (tmp_path / "two.png").stat().st_size > 10_000
    end = logsnr("inspect", "schedule", "linear", "--dry-run", "--out", tmp_path / "none.png")
    assert end.status == 0
    assert "terminal SNR" in end.output
    assert not (tmp_path / "none.png").exists()
    assert "'nosuch' is unknown" in logsnr("inspect", "schedule", "nosuch").message
    message = logsnr("inspect", "schedule", "linear", "--out", tmp_path / "log.txt" / "x.png").message
    assert "can't be written" in message


def test_a_schedule_of_ones_own(tiny: list[str], tmp_path: Path, logsnr: Run) -> None:
    (tmp_path / "my_schedules.py").write_text(
        "import torch\n"
        "from logsnr.schedulers.scheduling_beta import BetaScheduler\n"
        "class SquareBetaScheduler(BetaScheduler):\n"
        "    @staticmethod\n"
        "    def make_betas(num_train_timesteps, *, end=0.03):\n"
        "        return torch.linspace(0.01, end**0.5, num_train_timesteps) ** 2\n"
    )
    own = ("--schedule.name", "my_schedules:SquareBetaScheduler", "--schedule.options", "end", 0.04)
    assert logsnr("train", *tiny, *own, "--out", tmp_path / "run").status == 0
    for source in (tmp_path / "run", tmp_path / "run" / "stock"):
        few = ("sample", source, "--num", 2, "--steps", 2, "--out", "x.png")
        end = logsnr(*few)
        assert end.status == 0, end.output
        assert "warning: The schedule SquareBetaScheduler isn't known here" in end.output
        assert "loaded as DDPMScheduler, with the same betas. What is lost is" in end.output
        (cure,) = re.findall(r"`logsnr sample (--scheduler) your_module(:SquareBetaScheduler)`", end.output)
        end = logsnr(*few, cure[0], f"my_schedules{cure[1]}", "--dry-run")
        assert end.status == 0, end.output
        assert "warning" not in end.output
        assert "SquareBetaScheduler, predicts" in end.output
    own_steps = ("sample", tmp_path / "run", "--scheduler", "my_schedules:SquareBetaScheduler", "--eta", 0.5)
    assert logsnr(*own_steps, "--num", 2, "--steps", 2, "--out", "x.png").status == 0
    assert "no module 'nowhere'" in logsnr("sample", tmp_path / "run", "--scheduler", "nowhere:X").message
    wrong = ("--schedule.name", "my_schedules:SquareBeta", "--out", tmp_path / "no")
    assert "has no 'SquareBeta'. Did you mean SquareBetaScheduler?" in logsnr("train", *tiny, *wrong).message


# The command itself


def test_python_m_logsnr_is_the_command(tmp_path: Path) -> None:
    """In processes begun anew, as users begin them: what is printed, the exit status, and no noise of libraries."""
    script = Path(sys.executable).with_name("logsnr")
    environment = {key: value for key, value in os.environ.items() if "VERBOSITY" not in key}
    for command in ([sys.executable, "-m", "logsnr"], [str(script)]):
        done = subprocess.run([*command, "nonsense"], capture_output=True, text=True, env=environment)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("logsnr: there is no command 'nonsense'.")
    done = subprocess.run(
        [str(script), "sample", "./no"], capture_output=True, text=True, env=environment, cwd=tmp_path
    )
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "error: There is no folder ./no.\n")
