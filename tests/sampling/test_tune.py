"""Tuning on a tiny model: what it finds, where it goes on, and what reads the tables."""

import dataclasses
import json
import math
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from loopback_hub import LoopbackHub
from tiny_unet import tiny_unet

from logsnr.base.errors import ConfigError, ModelError
from logsnr.commands.cli import run as command_line
from logsnr.folders.model_folder import FEW_STEP_FOLDER
from logsnr.pipelines.pipeline_pixel import PixelDiffusionPipeline
from logsnr.publishing.stage import stage
from logsnr.sampling import refinement, trajectories
from logsnr.sampling import tune as module
from logsnr.sampling.few_evaluations import FILE, SAMPLERS, STOCK, TUNED, UNTUNED, Curve, read_curve, stock_schedulers
from logsnr.sampling.refinement import _derivatives, _free, best_path, first_guess, refined
from logsnr.sampling.sample import sample
from logsnr.sampling.trajectories import Paths
from logsnr.sampling.tune import Tuned, curve, plan, tune
from logsnr.schedulers.scheduling_beta import CosineBetaScheduler
from logsnr.schedulers.scheduling_few_step import HISTORY, FewStepScheduler, adams_table, ddim_table, dpm_solver_table
from logsnr.settings.options import SampleOptions, TuneOptions
from logsnr.tasks.load import load

OPTIONS = TuneOptions(steps=(3, 4))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder of a network with random weights, large enough for its ODE to be curved."""
    unet = tiny_unet(2)
    with torch.no_grad():
        unet.conv_out.weight.mul_(6)
    pipe = PixelDiffusionPipeline(unet, CosineBetaScheduler(num_train_timesteps=200, prediction_type="v_prediction"))
    folder = tmp_path_factory.mktemp("run")
    pipe.save_pretrained(folder / "model")
    return folder


@pytest.fixture(scope="module")
def small() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("TRAIN", 12), ("HELD_OUT", 8)):
            patch.setattr(module, name, value)
        patch.setattr(trajectories, "GRID", 16)
        patch.setattr(refinement, "ROUNDS", 10)
        yield


@pytest.fixture(scope="module")
def results(run: Path, small: None) -> list[Tuned]:
    return tune(run, OPTIONS)


def test_tables_beat_the_default_on_held_out_noise(run: Path, results: list[Tuned]) -> None:
    assert [t.steps for t in results] == [3, 4]
    assert all(t.kept for t in results), results
    paths = Paths(load(run), 2.0)
    with torch.inference_mode():
        held_out = paths.teacher(8, 1, "")
        for t in results:
            assert paths.errors(t.timesteps, t.coefficients, held_out) == pytest.approx(t.tuned, rel=1e-4)


def test_each_stage_does_better(run: Path, small: None) -> None:
    """Least squares beats the default, and the refinement least squares, on the noise that they learn from."""
    paths = Paths(load(run), 2.0)
    with torch.inference_mode():
        teacher = paths.teacher(12, 0, "")
        path = best_path(teacher, 4)
        assert path[0] == 0
        assert path == sorted(set(path))
        timesteps, table = first_guess(paths, teacher, 4)
        assert timesteps[0] >= teacher.timesteps[path[1] - 1]
        assert timesteps[1:] == [teacher.timesteps[i] for i in path[1:]]
        assert all(len(row) == 2 + HISTORY for row in table)
        default = paths.scheduler.default_timesteps(4)
        losses = [
            math.hypot(*paths.errors(*found, teacher))
            for found in (
                (default, adams_table(paths.scheduler.angles[default].tolist())),
                (timesteps, table),
                refined(paths, teacher, timesteps, table),
            )
        ]
    assert losses == sorted(losses, reverse=True)


def test_derivatives_are_those_of_the_distance(run: Path, small: None) -> None:
    """Against finite differences, and J^T J by its action on the gradient of many draws."""
    paths = Paths(load(run), 2.0)
    with torch.inference_mode():
        teacher = paths.teacher(12, 0, "")
        timesteps, table = first_guess(paths, teacher, 3)
        values = torch.tensor([[t - 0.5, *row] for t, row in zip(timesteps, table, strict=True)], dtype=torch.float64)
        free, batch = _free(3), torch.arange(12)

        def found(at: torch.Tensor) -> tuple[float, torch.Tensor, torch.Tensor]:
            return _derivatives(paths, teacher, batch, at, free, torch.Generator().manual_seed(0))

        loss, gradient, normal = found(values)
        for k, direction in enumerate(free.T.view(-1, *values.shape)):
            size = 0.3 if bool(direction[:, 0].any()) else 1e-3
            slope = (found(values + size * direction)[0] - found(values - size * direction)[0]) / (2 * size)
            assert 2 * float(gradient[k]) == pytest.approx(slope, rel=0.05, abs=0.01 * loss)
    # a sum of products of float64 rows, which a kernel needn't take in the same order on both sides of the diagonal
    rounding = normal.diagonal().max() * 1000 * torch.finfo(torch.float64).eps
    torch.testing.assert_close(normal, normal.T, rtol=0, atol=float(rounding))
    assert bool((torch.linalg.eigvalsh(normal) >= -rounding).all())


def test_ends_have_the_teachers_contrast(run: Path, results: list[Tuned]) -> None:
    paths = Paths(load(run), 2.0)
    with torch.inference_mode():
        teacher = paths.teacher(12, 0, "")
        for t in results:
            r, c, *b = t.coefficients[-1]
            assert r == c == 0
            ends = [paths.run(t.timesteps, t.coefficients, w, teacher.noise, paths.conditions(12)) for w in (1.0, 2.0)]
            ratio = float((teacher.ends.flatten(3).var(-1).sum() / torch.stack(ends).flatten(3).var(-1).sum()).sqrt())
            assert ratio == pytest.approx(1, abs=1e-4)
            assert sum(b) == pytest.approx(1, abs=0.2)


def test_it_goes_on_where_it_was_cut(run: Path, results: list[Tuned]) -> None:
    (kept,) = (run / "tuning").iterdir()
    before = {p: p.stat().st_mtime_ns for p in kept.iterdir()}
    assert {p.name for p in before} == {"train.safetensors", "held_out.safetensors", "steps-3.json", "steps-4.json"}
    (kept / "steps-4.json").unlink()
    assert tune(run, OPTIONS) == results
    assert {p.name for p in kept.iterdir() if p.stat().st_mtime_ns != before.get(p)} == {"steps-4.json"}


def test_a_plan_writes_nothing_and_says_what_is_there(run: Path, results: list[Tuned]) -> None:
    before = sorted(run.rglob("*"))
    said = plan(run, TuneOptions(steps=(3, 4, 7)))
    assert "3, 4 are tuned already" in said
    assert sorted(run.rglob("*")) == before


def test_stock_schedulers_are_measured_beside(run: Path, results: list[Tuned]) -> None:
    """DDIM and DPM-Solver++ are tables too, and their errors the tables' own."""
    paths, tuned = Paths(load(run), 2.0), results[1]
    assert [set(t.stock or {}) for t in results] == [set(STOCK)] * 2
    assert tuned.stock is not None
    timesteps = paths.scheduler.default_timesteps(tuned.steps)  # 4 divide T; else stock's DDIM is off by a timestep
    angles = paths.scheduler.angles[timesteps].tolist()
    with torch.inference_mode():
        held_out = paths.teacher(8, 1, "")
        for name, table in (("DDIM", ddim_table(angles)), ("DPMSolverMultistep", dpm_solver_table(angles))):
            assert tuned.stock[name] == pytest.approx(paths.errors(timesteps, table, held_out), rel=1e-4)


def test_what_stock_can_not_sample_has_no_figures(run: Path) -> None:
    scheduler = CosineBetaScheduler(prediction_type="x0_minus_noise")
    assert stock_schedulers(PixelDiffusionPipeline(load(run).unet, scheduler)) == {}


def test_the_curve_lies_beside_the_tables(run: Path, results: list[Tuned]) -> None:
    found = read_curve(run / "model" / FEW_STEP_FOLDER)
    assert found == curve(results, OPTIONS)
    assert found.tuned_steps == [3, 4]
    assert found.guidances == [1.0, 2.0]
    lines = found.lines()
    assert list(lines) == ["guidance 1", "guidance 2"]
    assert lines["guidance 2"][TUNED] == {t.steps: t.tuned[1] for t in results}
    assert lines["guidance 1"][UNTUNED] == {t.steps: t.default[0] for t in results}
    head, _, *rows = found.table().splitlines()
    assert all(name in head for name in SAMPLERS)
    assert [row.split()[:3] for row in rows] == [
        [str(t.steps), f"{w}", f"{t.tuned[w - 1]:.4f}"] for w in (1, 2) for t in results
    ]
    worse = dataclasses.replace(results[0], tuned=[9.0, 9.0])
    assert curve([worse], OPTIONS).tuned_steps == []


def test_the_command_prints_the_table(run: Path, results: list[Tuned], capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line(["tune", str(run), "--steps", "3", "4"]) == 0
    said = capsys.readouterr().out
    assert f"less is better):\n{curve(results, OPTIONS).table()}\nThe tables are with the model in {run}. Try: " in said
    assert said.endswith(f"logsnr sample {run} --scheduler few-step --steps 3\n")
    with pytest.warns(UserWarning, match=r"3, 4\): untuned. Tune it: logsnr tune RUN --steps 7$"):
        sample(load(run), SampleOptions(num=2, steps=7, scheduler="few-step"))
    assert command_line(["tune", str(run), "--guidance-scale", "1"]) == 1
    assert "--guidance-scale must be above 1, and is 1" in capsys.readouterr().err
    assert command_line(["tune", "ada/dots"]) == 1
    assert capsys.readouterr().err.startswith("error: There is no folder ada/dots. Tables are written into the model's")


def test_a_curve_of_others_is_numbers_or_refused(tmp_path: Path) -> None:
    assert read_curve(tmp_path) is None
    Curve(8, [1.0], {4: {TUNED: [0.5], "DDIM": [1.0]}}).write(tmp_path)
    record = json.loads((tmp_path / FILE).read_text())
    record["rmse"]["4"]["<b>"] = [0.1]
    (tmp_path / FILE).write_text(json.dumps(record))
    assert read_curve(tmp_path) == Curve(8, [1.0], {4: {TUNED: [0.5], "DDIM": [1.0]}})
    for broken in ({}, {**record, "rmse": {"4": {"DDIM": []}}}, {**record, "rmse": [1]}, {**record, "images": "x"}):
        (tmp_path / FILE).write_text(json.dumps(broken))
        with pytest.raises(ModelError, match=r"curve\.json isn't what `logsnr tune` writes"):
            read_curve(tmp_path)


def test_a_model_of_the_hub_is_copied_and_tuned_there(
    run: Path, results: list[Tuned], at_hub: LoopbackHub, tmp_path: Path
) -> None:
    at_hub.add("ada/dots", run / "model")
    with pytest.raises(ModelError, match=r"There is no folder ada/dots\. .* --out DIR"):
        tune("ada/dots", OPTIONS)
    out, few = tmp_path / "dots", TuneOptions(steps=(2,))
    assert f"Would tune a copy of ada/dots in {out}" in plan("ada/dots", few, out)
    assert not out.exists()
    tuned = tune("ada/dots", few, out)
    at_hub.stop()  # from here on the cache serves
    assert tune("ada/dots", few, out) == tuned
    assert "2 are tuned already" in plan("ada/dots", few, out)
    assert load(out).scheduler.config["_few_step"].keys() <= {"2"}
    assert load("ada/dots").scheduler.config["_few_step"].keys() == {"3", "4"}
    assert "_few_step" not in json.loads((out / "scheduler" / "scheduler_config.json").read_text())
    for name, value in load(run).unet.state_dict().items():
        assert torch.equal(load(out).unet.state_dict()[name], value)

    other = load(run)
    with torch.no_grad():
        other.unet.conv_out.bias.add_(1)
    other.save_pretrained(tmp_path / "other")
    with pytest.raises(ModelError, match=r"--out .*other holds another model than ada/dots"):
        tune("ada/dots", few, tmp_path / "other")
    with pytest.raises(ConfigError, match=r"exists and is no model; it would be replaced"):
        plan("ada/dots", few, tmp_path)


def test_more_steps_are_added_to_those_that_are_there(run: Path, results: list[Tuned]) -> None:
    tune(run, TuneOptions(steps=(3,)))
    record = json.loads((run / "model" / FEW_STEP_FOLDER / "scheduler_config.json").read_text())
    assert sorted(record["_few_step"]) == ["3", "4"]


def test_few_step_samples_with_the_tables(run: Path, results: list[Tuned]) -> None:
    images = sample(load(run), SampleOptions(num=2, steps=3, scheduler="few-step"))
    pipe = load(run)
    pipe.swap_scheduler(FewStepScheduler)
    arguments = {"class_labels": [0, 1], "guidance_scale": 2.0, "generator": [0, 1]}
    by_hand = pipe(num_inference_steps=3, output_type="pt", **arguments).images
    assert torch.equal(images, by_hand.cpu())
    assert pipe.scheduler.timesteps.tolist() == results[0].timesteps
    pipe.swap_scheduler("DDIM").swap_scheduler(FewStepScheduler)
    pipe.scheduler.set_timesteps(4)
    assert pipe.scheduler.timesteps.tolist() == results[1].timesteps


def test_stock_diffusers_loads_what_is_published(run: Path, results: list[Tuned], tmp_path: Path) -> None:
    stage(run, "ada/dots", tmp_path / "stage", None, None, False)
    main = tmp_path / "stage" / "main"
    assert (main / "images" / "few_steps.png").is_file()
    assert read_curve(main / FEW_STEP_FOLDER) == curve(results, OPTIONS)
    (said,) = re.findall(
        r"```python\n(from diffusers import AutoModel\n.*?)```", (main / "README.md").read_text(), re.S
    )
    program = """
import sys
sys.modules["logsnr"] = None
from diffusers import DiffusionPipeline
pipe = DiffusionPipeline.from_pretrained(sys.argv[1], trust_remote_code=True)
exec(sys.argv[2].replace("ada/dots", sys.argv[1]))
print(pipe.scheduler.timesteps.tolist())
"""
    command = [sys.executable, "-c", program, str(main), said]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout.splitlines()[-1]) == results[1].timesteps


@pytest.mark.parametrize("steps", [(), (1,), (5, 21)])
def test_steps_out_of_range_are_named(steps: Any) -> None:
    with pytest.raises(ConfigError, match=r"^steps must be whole numbers from 2 to 20"):
        TuneOptions(steps=steps)
