"""The consistency loss on Gaussian data, where paths are known: loss and gradient vanish at the exact function.

And `logsnr distill` from a run to images, by way of kill and resume.
"""

from __future__ import annotations

import dataclasses
import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import Command, Finished
from rounding import assert_same_images

from logsnr.base.errors import ConfigError
from logsnr.data.seeded import Batch
from logsnr.folders.model_folder import model_digest
from logsnr.models.denoiser import Denoiser
from logsnr.models.schedules import make_scheduler
from logsnr.objectives.consistency import ConsistencyObjective
from logsnr.objectives.objective import Context
from logsnr.schedulers.scheduling_beta import BetaScheduler, ScheduleWarning
from logsnr.schedulers.scheduling_consistency import ConsistencyScheduler
from logsnr.settings.objective import ConsistencyConfig
from logsnr.settings.run import RunConfig, from_record, to_record
from logsnr.settings.schedule import ScheduleConfig
from logsnr.tasks.load import load
from logsnr.training.distill import distilled

STD = 0.25


class Teacher(torch.nn.Module):
    """v of the posterior mean of pixels N(0, STD^2)."""

    def __init__(self, scheduler: BetaScheduler) -> None:
        super().__init__()
        self.bar = scheduler.alphas_cumprod

    def x_0(self, x: torch.Tensor, t: torch.Tensor, a: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        return a * STD**2 / (a**2 * STD**2 + s**2) * x

    def forward(self, x: torch.Tensor, t: torch.Tensor, return_dict: bool, class_labels: Any = None) -> Any:
        bar = self.bar[t].view(-1, 1, 1, 1)
        a, s = bar.sqrt(), (1 - bar).sqrt()
        return ((a * x - self.x_0(x, t, a, s)) / s,)


class Exact(Teacher):
    """v of the x_0 from which DDIM's step lands on the path, x_t' / x_t = sqrt(var_t' / var_t), times `factor`."""

    def __init__(self, scheduler: BetaScheduler, timesteps: list[int]) -> None:
        super().__init__(scheduler)
        self.factor = torch.nn.Parameter(torch.ones(()))
        self.after = dict(zip(timesteps, [*timesteps[1:], -1], strict=True))

    def x_0(self, x: torch.Tensor, t: torch.Tensor, a: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        table = torch.cat([self.bar, torch.ones(1)])
        bar = table[[self.after[k] for k in t.tolist()]].view(-1, 1, 1, 1)
        b, r = bar.sqrt(), (1 - bar).sqrt()
        reached = ((b**2 * STD**2 + r**2) / (a**2 * STD**2 + s**2)).sqrt() * x
        return self.factor * (reached - r / s * x) / (b - r / s * a)


def made_of(config: RunConfig) -> ConsistencyObjective:
    assert isinstance(config.objective, ConsistencyConfig)
    schedule = make_scheduler(config.schedule)
    context = Context(shape=(1, 8, 8), denoiser=Denoiser(Teacher(schedule), schedule))
    return ConsistencyObjective(schedule, config.objective, context)


def objective(**options: Any) -> ConsistencyObjective:
    return made_of(RunConfig(schedule=ScheduleConfig(clip_sample=False), objective=ConsistencyConfig(**options)))


def batch(size: int = 64, start: int = 0) -> Batch:
    images = STD * torch.randn(size, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    return Batch(images, {}, torch.arange(start, start + size))


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_loss_and_gradient_vanish_at_the_exact_function(steps: int) -> None:
    """As the teacher's evaluations grow in number, in second order: a second-order solver's path is what is learned."""
    errors, gradients = [], []
    for count in (8, 32):
        made = objective(steps=steps, teacher_steps=count)
        model = Denoiser(Exact(made.schedule, made.sampler.timesteps.tolist()), made.schedule)
        given = batch()
        images, noise = given.clean, torch.randn(64, 1, 8, 8, generator=torch.Generator().manual_seed(1))
        squared = made.squared_errors(model, images, noise, {}, torch.arange(64) % steps)
        errors.append(float(squared.detach().mean().sqrt()))
        loss = made.loss(model, given)
        (gradient,) = torch.autograd.grad(loss, model.network.factor)
        gradients.append(abs(float(gradient)))
        with torch.no_grad():
            model.network.factor.mul_(1.2)
            assert float(made.loss(model, given)) > 3 * float(loss)
    assert errors[1] < 0.02 * STD
    assert errors[1] < errors[0] / 8
    assert gradients[1] < gradients[0] / 5


def test_the_segments_are_those_of_sampling_and_taken_in_turn() -> None:
    made = objective(steps=3, teacher_steps=4)
    starts = made.sampler.timesteps.tolist()
    assert starts == [999, 666, 332]
    assert made.grid[0][:, 0].tolist() == starts
    assert made.grid[1][:-1, -1].tolist() == made.grid[1][1:, 0].tolist()
    assert made.grid[1][-1, -1] == 0
    gaps = -made.grid[1].diff(dim=1)
    torch.testing.assert_close(gaps, gaps.mean(1, keepdim=True).expand_as(gaps), rtol=0.02, atol=2e-3)
    seen: list[list[int]] = []

    class Listening(Exact):
        def forward(self, x: torch.Tensor, t: torch.Tensor, *rest: Any, **more: Any) -> Any:
            seen.append(t.tolist())
            return super().forward(x, t, *rest, **more)

    model = Denoiser(Listening(made.schedule, starts), made.schedule)
    made.loss(model, batch(6, start=4))
    assert seen == [[666, 332, 999, 666, 332, 999]]
    # the held-out errors at any timestep are those of its segment
    t = torch.tensor([999, 667, 666, 400, 333, 332, 0])
    made.errors(model, batch(7), t, "held out")
    assert seen[1] == [999, 999, 666, 666, 666, 332, 332]


def test_the_last_segment_s_teacher_reaches_the_image() -> None:
    made = objective(steps=2, teacher_steps=40)
    x = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    bar = made.schedule.alphas_cumprod[499]
    reached = made.path(x, {}, torch.ones(4, dtype=torch.int64), made.grid)
    torch.testing.assert_close(reached, STD / (bar * STD**2 + 1 - bar).sqrt() * x, rtol=3e-3, atol=1e-3)


def test_too_many_evaluations_for_the_schedule_are_refused() -> None:
    ten = ScheduleConfig(num_train_timesteps=10)
    with pytest.raises(ConfigError, match=r"must be at most 10, the number of timesteps, and is 20\. Use fewer"):
        RunConfig(schedule=ten, objective=ConsistencyConfig(steps=4, teacher_steps=5))
    linear = dataclasses.replace(ten, name="linear")  # its angles crowd at the end of noise
    config = RunConfig(schedule=linear, objective=ConsistencyConfig(steps=2, teacher_steps=4))
    with pytest.warns(ScheduleWarning):
        make_scheduler(config.schedule)
    with (
        pytest.warns(ScheduleWarning),
        pytest.raises(ConfigError, match=r"need more timesteps than the schedule has, 10\. Use fewer"),
    ):
        made_of(config)


def test_a_configuration_comes_back_and_what_cannot_be_distilled_is_refused() -> None:
    config = RunConfig(objective=ConsistencyConfig(base_digest="ab", base_steps=7, steps=3))
    assert from_record(to_record(config)) == config
    with pytest.raises(ConfigError, match=r"another schedule\.prediction_type than epsilon"):
        RunConfig(schedule=ScheduleConfig(prediction_type="epsilon"), objective=ConsistencyConfig())
    with pytest.raises(ConfigError, match=r"objective\.steps must be at least 1"):
        ConsistencyConfig(steps=0)


def test_a_loss_of_contrast_is_measured_and_made_up_for() -> None:
    """Where f is 0.8 of what it should be, in the first step and then from where that one should have landed."""
    made = objective(steps=3, teacher_steps=80)
    assert made.state() == {}
    assert made.sampler.contrasts is None
    model = Denoiser(Exact(made.schedule, made.sampler.timesteps.tolist()), made.schedule)
    with torch.no_grad():
        model.network.factor.mul_(0.8)
    made.finish(model)
    assert made.sampler.contrasts == pytest.approx([1.25] * 3, rel=5e-3)
    other = objective(steps=3)
    other.restore(made.state())
    assert other.sampler.config == made.sampler.config
    scheduler = other.sampler
    x = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    (output,) = model.network(x, torch.full((4,), 999), False)
    (exact,) = Exact(made.schedule, scheduler.timesteps.tolist())(x, torch.full((4,), 999), False)
    plain = ConsistencyScheduler.from_config(scheduler.config, contrasts=None)
    expected = plain.step(exact, 999, x).prev_sample
    torch.testing.assert_close(scheduler.step(output, 999, x).prev_sample, expected, rtol=0, atol=0.01)


# The command


@pytest.fixture(scope="module")
def base(tiny: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("base")
    # a network begins at 0, and one that still is there has no contrast to distil
    learns = ("--train.learning-rate", "0.006")
    command = Command(path / "log.txt", ["train", *tiny, *learns, "--out", str(path / "run")])
    assert command.wait().status == 0, command.log.read_text()
    return path / "run"


LONGER = ("--train.num-steps", "40", "--train.checkpoint-every", "10", "--train.held-out-every", "20")


def weights(run: Path) -> bytes:
    return (run / "model" / "unet" / "diffusion_pytorch_model.safetensors").read_bytes()


def test_a_run_is_distilled_resumed_sampled_exported_and_staged(
    base: Path, tmp_path: Path, logsnr: Callable[..., Finished], started: Callable[..., Command]
) -> None:
    out = tmp_path / "few"
    dry = logsnr("distill", base, "--out", out, "--dry-run")
    assert dry.status == 0, dry.output
    assert '"teacher_steps": 3' in dry.output
    assert f"It would make of {base}, trained for 12 steps, a model that draws in 2 network evaluations." in dry.output
    assert not out.exists()

    end = logsnr("distill", base, "--out", out, *LONGER)
    assert end.status == 0, end.output
    config = from_record(json.loads((out / "config.json").read_text()))
    wanted = distilled(base)
    assert config.objective == wanted.objective
    assert config.schedule == wanted.schedule
    assert isinstance(config.objective, ConsistencyConfig)
    assert config.objective.base_steps == 12
    assert "held_out/loss" in (out / "logs" / "train.jsonl").read_text()
    assert json.loads((out / "training.json").read_text())["model_step"] == 40
    assert isinstance(load(out).scheduler, ConsistencyScheduler)

    killed = started("distill", base, "--out", tmp_path / "killed", *LONGER)
    killed.wait_until(lambda: (tmp_path / "killed" / "checkpoints" / "step-00000010").exists())
    assert killed.kill().status == -signal.SIGKILL
    again = logsnr("distill", base, "--out", tmp_path / "killed", *LONGER)
    assert again.status == 0, again.output
    assert "Going on from step " in again.output
    assert weights(tmp_path / "killed") == weights(out)

    end = logsnr("sample", out, "--steps", 2, "--num", 4, "--out", tmp_path / "grid.png")
    assert end.status == 0, end.output
    assert logsnr("sample", out, "--num", 4, "--out", tmp_path / "default.png").status == 0
    assert (tmp_path / "default.png").read_bytes() == (tmp_path / "grid.png").read_bytes()
    assert logsnr("sample", out, "--scheduler", "DDIM", "--num", 4, "--out", tmp_path / "ddim.png").status == 0
    assert (tmp_path / "ddim.png").read_bytes() != (tmp_path / "grid.png").read_bytes()  # it knows no contrast
    pipe, how = load(out), {"class_labels": [0, 1], "num_inference_steps": 2, "generator": 3, "output_type": "np"}
    assert len(pipe.scheduler.contrasts) == 2
    with_contrast = pipe(**how).images
    pipe.scheduler = ConsistencyScheduler.from_config(pipe.scheduler.config, contrasts=None)
    without = pipe(**how).images
    pipe.swap_scheduler("DDIMScheduler")
    np.testing.assert_allclose(pipe(**how).images, without, atol=1e-5)
    assert not np.allclose(with_contrast, without, atol=1e-3)
    for how in ((), ("--dry-run",), ("--scheduler", "DDIM")):
        message = logsnr("sample", out, "--steps", 20, *how).message
        assert "must be 2, for which this model was distilled, and is 20" in message
    assert "leave out --scheduler few-step" in logsnr("sample", out, "--scheduler", "few-step").message
    before = (out / "model" / "model_index.json").read_bytes()
    assert logsnr("export", out, "--out", tmp_path / "exported").status == 0
    assert (tmp_path / "exported" / "model" / "model_index.json").read_bytes() == before
    assert load(tmp_path / "exported").scheduler.config == load(out).scheduler.config
    stock = json.loads((out / "stock" / "model_index.json").read_text())
    assert stock["scheduler"] == ["diffusers", "DDIMScheduler"]
    assert isinstance(load(out / "stock").scheduler, ConsistencyScheduler)

    staged = tmp_path / "staged"
    end = logsnr("publish", out, "ada/few", "--stage", staged)
    assert end.status == 0, end.output
    card = (staged / "main" / "README.md").read_text()
    assert "logsnr distill path/to/model --out runs/few" in card
    assert "num_inference_steps=2" in card
    assert f"| distilled from | the model {model_digest(base / 'model')}, trained for" in card
    assert str(base) not in "".join(p.read_text() for p in staged.rglob("*.json"))


def test_the_stock_form_draws_with_stock_code(base: Path, tmp_path: Path, logsnr: Callable[..., Finished]) -> None:
    from diffusers import DiffusionPipeline

    out = tmp_path / "few"
    assert logsnr("distill", base, "--out", out).status == 0
    pipe = DiffusionPipeline.from_pretrained(out / "stock")
    assert type(pipe.scheduler).__name__ == "DDIMScheduler"
    images = pipe(batch_size=2, num_inference_steps=2, output_type="np").images
    assert images.shape == (2, 8, 8, 1)
    assert np.isfinite(images).all()
    trusted = DiffusionPipeline.from_pretrained(out / "model", trust_remote_code=True)
    assert type(trusted.scheduler).__name__ == "ConsistencyScheduler"
    how = {"class_labels": [0, 1], "num_inference_steps": 2, "generator": 3, "output_type": "np"}
    a, b = (pipeline(**how).images for pipeline in (trusted, load(out)))
    assert_same_images(a, b, evaluations=2)


def test_what_is_wrong_is_said(base: Path, tmp_path: Path, logsnr: Callable[..., Finished]) -> None:
    assert logsnr("distill").status == 2
    assert "the run comes first, before --out" in logsnr("distill", "--out", tmp_path / "x").output
    assert "there is no config.json in it" in logsnr("distill", tmp_path, "--out", tmp_path / "x").message
    assert "--out must be another folder than RUN" in logsnr("distill", base, "--out", base).message
    unknown = logsnr("distill", base, "--out", tmp_path / "x", "--objective.name", "hybird")
    assert "objective.name 'hybird' is unknown. `logsnr distill` knows: consistency." in unknown.message
    wrong = logsnr("distill", base, "--out", tmp_path / "x", "--objective.steps", 0)
    assert wrong.message == "error: objective.steps must be at least 1, and is 0.\n"
    help_text = logsnr("distill", base, "--help").output
    assert "--objective.steps" in help_text
    assert "--train.num-steps" in help_text
    assert "base-digest" not in help_text
    out = tmp_path / "few"
    assert logsnr("distill", base, "--out", out).status == 0
    assert "is distilled already" in logsnr("distill", out, "--out", tmp_path / "y").message
    assert "objective.steps: 2 -> 3" in logsnr("distill", base, "--out", out, "--objective.steps", 3).message
