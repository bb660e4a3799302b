"""The command line: its help, and what it refuses; what the commands do is tested beside what they call."""

from __future__ import annotations

import dataclasses
import importlib
import os
import re
import resource
import subprocess
import sys
import time
import typing
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from commands import Finished, without_boxes
from PIL import Image

import logsnr as package
import logsnr.commands.cli as cli
from logsnr.commands.inspect import SUBJECTS
from logsnr.settings.run import HIDDEN

Run = Callable[..., Finished]


def modules() -> dict[str, ModuleType]:
    """The words of each command, and its module."""
    names = sorted(path.stem for path in Path(cli.__file__).parent.glob("[a-z]*.py"))
    found = {name.replace("_", " "): importlib.import_module(f"logsnr.commands.{name}") for name in names}
    return {words: module for words, module in found.items() if hasattr(module, "main")}


MODULES = modules()
BEFORE_OPTIONS = {"train": ["smoke"], "compare": ["smoke"]}
"""What must come before the options of a command; of distill a run, in tests/objectives/test_consistency.py."""


def flags(cls: type[Any], prefix: str = "") -> list[str]:
    """The options that a dataclass of arguments gives rise to."""
    found = []
    for field in dataclasses.fields(cls):
        name = prefix + field.name.replace("_", "-")
        required = typing.get_type_hints(cls)[field.name]
        kind = field.default_factory if field.default_factory is not dataclasses.MISSING else required
        if dataclasses.is_dataclass(kind):
            found += flags(kind, "" if name == "options" else f"{name}.")  # type: ignore[arg-type]
        elif "Positional" not in str(field.type) and name.replace("-", "_") not in HIDDEN:
            found.append(name)
    return found


# Help


def test_help_answers_at_once_and_imports_one_command() -> None:
    """torch and diffusers take seconds; a fresh process that only prints help doesn't load them."""
    for argv in (["--help"], ["train", "--help"], ["train", "smoke", "--help"], *([w, "--help"] for w in cli.COMMANDS)):
        code = (
            "import sys; from logsnr.__main__ import main; sys.argv[0] = 'logsnr'\n"
            "try: status = main()\n"
            "except SystemExit as end: status = end.code\n"
            "assert not status, status\n"
            "assert not {'torch', 'diffusers', 'accelerate', 'datasets'} & set(sys.modules)\n"
            "loaded = [name for name in sys.modules if name.startswith('logsnr.commands.')]\n"
            "chosen = [name for name in loaded if hasattr(sys.modules[name], 'main')]\n"
            "assert chosen == [f'logsnr.commands.{name}' for name in sys.argv[1:2] if name != '--help'], chosen"
        )
        start = time.monotonic()
        subprocess.run([sys.executable, "-c", code, *argv], check=True, capture_output=True)
        assert time.monotonic() - start < 5


def test_the_tables_have_every_command() -> None:
    assert sorted(MODULES) == sorted([*cli.COMMANDS, *(f"inspect {s}" for s in SUBJECTS), "compare guidance"])


def test_usage_names_every_command(logsnr: Run) -> None:
    end = logsnr("--help")
    assert end.status == 0
    assert logsnr("-h").output == end.output
    for name, text in cli.COMMANDS.items():
        assert f"  {name} " in end.output
        assert text in end.output
    assert logsnr().status == 2
    assert logsnr().output == end.output


@pytest.mark.parametrize("command", MODULES)
def test_every_command_answers_help(command: str, logsnr: Run) -> None:
    for flag in ("-h", "--help"):
        end = logsnr(*command.split(), flag)
        assert end.status == 0, end.output
        assert end.output.startswith(f"usage: logsnr {command} ")


@pytest.mark.parametrize("command", [command for command in MODULES if command not in ("inspect", "distill")])
def test_help_of_each_command_names_every_option(command: str, logsnr: Run) -> None:
    here = [
        cls for cls in vars(MODULES[command]).values() if getattr(cls, "__module__", "") == MODULES[command].__name__
    ]
    (arguments,) = (cls for cls in here if dataclasses.is_dataclass(cls))
    end = logsnr(*command.split(), *BEFORE_OPTIONS.get(command, []), "--help")
    assert end.status == 0
    text = without_boxes(end.output)
    names = flags(arguments)  # type: ignore[arg-type]
    assert names
    for flag in names:
        assert f"--{flag}" in text, flag


# What is refused


def test_version(logsnr: Run) -> None:
    assert logsnr("--version") == Finished(0, f"logsnr {package.__version__}\n")


def test_unknown_command(logsnr: Run) -> None:
    end = logsnr("trian", "smoke")
    assert end.status == 2
    assert end.output.startswith("logsnr: there is no command 'trian'. Did you mean train?\n\nusage: logsnr COMMAND")


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
        (
            ["sample", "x", "--out", "."],
            "--out . exists and is no folder of drawn samples, which are called",
        ),
        (["sample", "x", "--guidance-scale", "-1"], "--guidance-scale must be 0 or more, and is -1.0."),
        (["sample", "x", "--seed", "-1"], "--seed must be 0 or more, and less than 2^63, and is -1."),
        (["sample", "x", "--class-labels"], "--class-labels must be a list of names or numbers, at least one"),
        (["evaluate", "x", "--num", "8"], "--num must be at least 20, and is 8."),
        (["tune", "x", "--steps", "1"], "--steps must be whole numbers from 2 to 20"),
        (["inspect", "run", "x", "--elbo-images", "1"], "--elbo-images must be 0 or at least 2, and is 1."),
        (["train", "smoke", "--out", "x", "--condition.dropout", "1.0"], "condition.dropout must be in [0, 1)"),
        (["train", "smoke", "--out", "x", "--data.held-out-fraction", "0.99"], "data.held_out_fraction must be in"),
        (
            ["train", "smoke", "--out", "x", "--objective.name", "hybird"],
            "Did you mean hybrid? `logsnr train` knows: hybrid, vlb, weighted.",
        ),
        (["train", "images-32", "--out", "x"], "data.source is images, and there is no such folder in"),
        (["inspect", "data", "photoes"], "Name one that is there with --data.source FOLDER, or a data set of the Hub"),
        (["train", "smoke", "--out", "log.txt"], "--out log.txt is a file, and must be a folder."),
        (["train", "smoke", "--out", "log.txt", "--dry-run"], "--out log.txt is a file, and must be a folder."),
        *[([*words, "x"], "There is no folder x.") for words in (["evaluate"], ["export"], ["inspect", "run"])],
        (["distill", "x", "--out", "y"], "There is no folder x."),
        (["publish", "x", "name"], "REPO_ID must be owner/name"),
        (["inspect", "schedule"], "needs the name of at least one schedule, such as cosine."),
    ],
)
def test_a_rule_that_is_broken_is_said_in_one_line(argv: list[str], words: str, logsnr: Run, tmp_path: Path) -> None:
    message = logsnr(*argv).message
    assert words in message
    assert len(message.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["log.txt"]


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


def test_what_a_terminal_cannot_show_is_written_in_its_letters(tmp_path: Path) -> None:
    for name in ("猫", "é"):
        (tmp_path / "set" / name).mkdir(parents=True)
        for k in range(3):
            Image.linear_gradient("L").rotate(90 * k).save(tmp_path / "set" / name / f"{k}.png")
    argv = [sys.executable, "-m", "logsnr", "inspect", "data", "set", "--dry-run"]
    (tmp_path / "set" / "猫" / "broken é.png").write_bytes(b"no image")
    ascii_alone = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(argv, cwd=tmp_path, env=ascii_alone, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert b"\\u732b/broken \\xe9.png" in done.stdout


def test_too_little_memory_is_a_message(tmp_path: Path, logsnr: Run) -> None:
    """Of 2 GiB, which torch alone takes half of, a network of 4 GiB is made."""
    wide = ("--model.block-out-channels", 16384, 16384, "--model.norm-num-groups", 8)
    end = logsnr("train", "smoke", *wide, "--out", tmp_path / "run", before=little_memory)
    assert "there isn't enough memory" in end.message


def little_memory() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))


def test_a_reader_that_has_seen_enough_ends_it_quietly(tmp_path: Path) -> None:
    line = f"{sys.executable} -m logsnr train smoke --help | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", line], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1] in ("0", "141")
