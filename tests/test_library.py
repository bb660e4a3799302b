"""`import logsnr`: what it offers, and what it doesn't wait for."""

from __future__ import annotations

import ast
import inspect
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDPMScheduler

import logsnr
from logsnr.base.errors import ConfigError
from logsnr.objectives.hybrid import HybridObjective
from logsnr.objectives.learned_schedule import LearnedScheduleObjective
from logsnr.objectives.vlb import VlbObjective
from logsnr.objectives.weighted import WeightedObjective
from logsnr.schedulers.scheduling_beta import CosineBetaScheduler, LinearBetaScheduler
from logsnr.settings.objective import MinSnrWeighting, SigmoidWeighting, WeightedConfig

DRAWS = {"matplotlib", "tensorboard", "torchmetrics", "datasets"}
"""Packages that only those need who draw a figure, log, evaluate, or open a data set."""


def imported_by(program: str) -> set[str]:
    """The packages that a new process has imported after running `program`."""
    program = f"import json, sys\n{program}\nprint(json.dumps(sorted({{name.split('.')[0] for name in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=240, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("name", logsnr.__all__)
def test_every_name_is_there_and_says_what_it_is(name: str) -> None:
    found = getattr(logsnr, name)
    assert name in dir(logsnr)
    assert found.__module__.startswith("logsnr.")
    own = vars(found).get("__doc__") if inspect.isclass(found) else found.__doc__
    assert own is not None
    assert not own.startswith(f"{name}(")  # what dataclasses and named tuples write of themselves
    assert len(own.split()) >= 4
    assert own.split("\n\n")[0].rstrip().endswith(".")


def test_what_is_listed_is_what_is_offered() -> None:
    assert dir(logsnr) == sorted([*logsnr.__all__, "__version__"])


@pytest.mark.parametrize("name", [name for name in logsnr.__all__ if name.endswith("Objective")])
def test_the_methods_of_a_loss_say_what_they_do(name: str) -> None:
    cls = getattr(logsnr, name)
    for method in ("loss", "errors", "after_step", "finish", "state", "restore"):
        assert len((getattr(cls, method).__doc__ or "").split()) >= 4, method


def test_type_checkers_see_what_is_there() -> None:
    tree = ast.parse(Path(inspect.getfile(logsnr)).read_text())
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level == 0]
    seen = {alias.asname: node.module for node in imports for alias in node.names if alias.asname is not None}
    assert seen == logsnr._MODULES


def test_another_name_is_an_error() -> None:
    with pytest.raises(AttributeError, match="module 'logsnr' has no attribute 'nonsense'"):
        _ = logsnr.nonsense  # type: ignore[attr-defined]


def test_importing_it_waits_for_nobody() -> None:
    heavy = {"torch", "diffusers", "numpy", "PIL", "tyro", *DRAWS}
    assert not imported_by("import logsnr; dir(logsnr); logsnr.ConfigError") & heavy


def test_settings_wait_for_no_torch() -> None:
    imported = imported_by("import logsnr; logsnr.presets(); logsnr.RunConfig(); logsnr.SampleOptions()")
    assert not imported & {"torch", "diffusers", "numpy", *DRAWS}


def test_help_waits_for_no_torch() -> None:
    program = "from logsnr.__main__ import main; sys.argv = ['logsnr', '--help']; main()"
    assert not imported_by(program) & {"torch", "diffusers", "numpy", *DRAWS}


@pytest.mark.parametrize("name", ["train", "sample", "load", "WeightedObjective"])
def test_what_trains_and_samples_imports_little_beside_diffusers(name: str) -> None:
    ours = {"logsnr", "tyro", "docstring_parser", "PIL", "tqdm"}
    stock = imported_by("from diffusers import DDPMPipeline")
    # the standard library has more of its own: what counts are packages that are installed
    more = imported_by(f"from logsnr import {name}") - stock - set(sys.stdlib_module_names)
    assert {package for package in more if not package.startswith("_")} <= ours


def test_evaluate_is_the_function_whatever_was_imported_before() -> None:
    imported_by("import logsnr.evaluation.bits; from logsnr import evaluate; assert callable(evaluate)")
    imported_by("from logsnr import evaluate, train; import logsnr; assert logsnr.evaluate is evaluate")


def test_a_loss_refuses_a_schedule_that_it_cannot_train() -> None:
    learned = CosineBetaScheduler(variance_type="learned_range")
    with pytest.raises(ConfigError, match=r"learned_range needs objective.name hybrid or vlb"):
        WeightedObjective(learned)
    with pytest.raises(ConfigError, match=r"hybrid trains a learned variance, and schedule.variance_type is fixed_sm"):
        HybridObjective(CosineBetaScheduler())
    with pytest.raises(ConfigError, match=r"needs objective.name weighted with objective.weighting.name elbo, sigmoid"):
        LearnedScheduleObjective(CosineBetaScheduler(), WeightedConfig())


LOSSES = [WeightedObjective, VlbObjective]


@pytest.mark.parametrize("loss", LOSSES)
def test_a_loss_refuses_a_scheduler_without_log_snr(loss: Any) -> None:
    for wrong, name in ((DDPMScheduler(), "a DDPMScheduler"), (CosineBetaScheduler, "the class CosineBetaScheduler")):
        with pytest.raises(TypeError, match=f"schedule must be one of logsnr's, .* and is {name}"):
            loss(wrong)
    for stock, ours in (("linear", LinearBetaScheduler), ("squaredcos_cap_v2", CosineBetaScheduler)):
        stranger = DDPMScheduler(beta_schedule=stock)
        schedule = ours.from_config(stranger.config)  # the cure that the message names
        assert torch.equal(schedule.betas, stranger.betas)
        assert loss(schedule).schedule is schedule


def test_a_weighting_alone_is_no_loss() -> None:
    cure = r"must be of class WeightedConfig, and is SigmoidWeighting.* WeightedConfig\(SigmoidWeighting\(\.\.\.\)\)"
    with pytest.raises(ConfigError, match=cure):
        WeightedObjective(CosineBetaScheduler(), SigmoidWeighting())  # type: ignore[arg-type]
    cure = r"must be of class ObjectiveConfig, and is MinSnrWeighting.* WeightedConfig\(MinSnrWeighting\(\.\.\.\)\)"
    with pytest.raises(ConfigError, match=cure):
        logsnr.RunConfig(objective=MinSnrWeighting())  # type: ignore[arg-type]
    for wrong in ("min_snr", MinSnrWeighting):
        with pytest.raises(ConfigError, match=r"objective.weighting must be a weighting with its settings, such as"):
            WeightedConfig(wrong)  # type: ignore[arg-type]


def test_what_stands_for_a_configuration_is_refused_with_its_cure(tmp_path: Path) -> None:
    for given, cure in [
        ("images-32", r"logsnr.presets\(\)\['images-32'\].config"),
        ("nonsense", r"presets\(\)\[NAME\].config"),
        (logsnr.presets()["smoke"], "give the preset's .config"),
    ]:
        with pytest.raises(TypeError, match=f"train takes a RunConfig, and was given a .*{cure}"):
            logsnr.train(given, tmp_path)  # type: ignore[arg-type]
    assert "logsnr.presets()" in (logsnr.train.__doc__ or "")


def test_what_stands_for_a_model_is_refused_with_its_cure() -> None:
    for given in ("runs/q", Path("runs/q")):
        with pytest.raises(TypeError, match=r"takes a loaded model, and was given 'runs/q': logsnr.load gives one"):
            logsnr.sample(given)


def test_options_have_defaults() -> None:
    for function, options in ((logsnr.sample, logsnr.SampleOptions()), (logsnr.evaluate, logsnr.EvaluateOptions())):
        assert inspect.signature(function).parameters["options"].default == options
    assert logsnr.SampleOptions(class_labels=[0, "dark"]).class_labels == (0, "dark")


def test_a_warning_is_about_the_line_that_called(tmp_path: Path) -> None:
    """However deep inside it is noticed; a caller's file is what is shown."""
    program = (
        "from logsnr.base.warn import warn_caller\n"
        "exec(compile('def inner(): warn(\"said\")', 'inside', 'exec'), space := "
        "{'__name__': 'logsnr.inside', 'warn': warn_caller})\n"
        "space['inner']()\n"
    )
    (tmp_path / "mine.py").write_text(program)
    done = subprocess.run([sys.executable, tmp_path / "mine.py"], capture_output=True, text=True, check=True)
    assert done.stderr.startswith(f"{tmp_path / 'mine.py'}:3: UserWarning: said\n")


@pytest.mark.parametrize("room", ["src/logsnr", "schedulers", "pipelines", "space"])
def test_no_file_needs_a_module_that_only_unix_has(room: str) -> None:
    only_unix = {"fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog", "termios", "tty"}
    files = sorted((Path(__file__).parents[1] / room).rglob("*.py"))
    assert files
    found = []
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            found += [(file.name, name) for name in names if name.split(".")[0] in only_unix]
    assert found == []
