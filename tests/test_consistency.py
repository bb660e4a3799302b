"""logsnr.consistency on Gaussian data, where the consistency function is known: the loss and its gradient vanish there.

And `logsnr distill` from a run to images, by way of kill and resume.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import Command, Finished

from logsnr.config import DataConfig, DistillConfig, RunConfig, ScheduleConfig, TrainConfig, from_json, to_json
from logsnr.consistency import ConsistencyObjective
from logsnr.data import Batch
from logsnr.distill import distilled
from logsnr.errors import ConfigError
from logsnr.hub import load
from logsnr.registry import make_scheduler
from logsnr.schedulers.scheduling_beta import BetaScheduler
from logsnr.schedulers.scheduling_consistency import ConsistencyScheduler

STD = 0.25


class Exact(torch.nn.Module):
    """v of f(x) = x / sqrt(a^2 + s^2 / STD^2), the consistency function of N(0, STD^2), times `factor`.

    Its paths are those of the ODE alone; add_noise leaves them, so data of one image and no noise but the path's are
    used: see `on_a_path`.
    """

    def __init__(self, scheduler: BetaScheduler) -> None:
        super().__init__()
        self.factor = torch.nn.Parameter(torch.ones(()))
        self.bar = scheduler.alphas_cumprod

    def forward(self, x: torch.Tensor, t: torch.Tensor, return_dict: bool, class_labels: Any = None) -> Any:
        bar = self.bar[t].view(-1, 1, 1, 1)
        a, s = bar.sqrt(), (1 - bar).sqrt()
        x_0 = self.factor * x / (a**2 + s**2 / STD**2).sqrt()
        return ((a * x - x_0) / s,)


def objective(num_steps: int = 8, batch_size: int = 64, **options: Any) -> ConsistencyObjective:
    config = RunConfig(
        data=DataConfig(resolution=8),
        schedule=ScheduleConfig(clip_sample=False),
        train=TrainConfig(num_steps=num_steps, batch_size=batch_size),
        distill=DistillConfig(**options),
    )
    return ConsistencyObjective(config, make_scheduler(config.schedule), None, torch.device("cpu"), 1)


def test_on_a_path_the_exact_function_agrees_with_itself() -> None:
    """x_t = a x_0 + s eps is a path where eps = 0: f(a x_0) isn't f(x_0); with noise that the path has, it is.

    On the path through x_0 with x_t = x_0 sqrt(a^2 + s^2 / STD^2) the two values are x_0 to round-off, whatever t is.
    """
    made = objective()
    t = torch.tensor([3, 100, 500, 998])
    model = Exact(made.scheduler)
    x_0 = STD * torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    for stage in (1, 4, 9):
        r = made.earlier(t, torch.full((4,), stage))
        assert bool((r < t).all())
        assert bool((r >= -1).all())
        for at in (t, r.clamp(min=0)):
            bar = made.scheduler.alphas_cumprod[at].view(-1, 1, 1, 1)
            x = x_0 * (bar + (1 - bar) / STD**2).sqrt()
            torch.testing.assert_close(made._image(model, x, at, None), x_0, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("stage", [1, 3, 6])
def test_the_gradient_vanishes_at_the_exact_function_as_the_gap_closes(stage: int) -> None:
    """Over images and noise the gradient of the squared disagreement is of second order in the gap (2303.01469,
    theorem 2), so its share of the scale of f falls with it."""
    made = objective()
    model = Exact(made.scheduler)
    generator = torch.Generator().manual_seed(0)
    n = 4000
    images, noise = STD * torch.randn(n, 1, 8, 8, generator=generator), torch.randn(n, 1, 8, 8, generator=generator)
    t = torch.full((n,), 500)
    errors, gaps = made.disagreement(model, images, noise, None, t, torch.full((n,), stage))
    (gradient,) = torch.autograd.grad((errors / gaps).mean(), model.factor)
    assert float(gaps[0]) == pytest.approx(float(made._angles[500]) * 2.0**-stage, rel=0.1)
    # in closed form: 2 E[f_t (f_t - f_r)] / gap, f = g x, x_t and x_r correlated by the image and the noise
    bar = made.scheduler.alphas_cumprod.double()[[500, int(made.earlier(t[:1], torch.tensor([stage])))]]
    a, s = bar.sqrt(), (1 - bar).sqrt()
    g = 1 / (a**2 + s**2 / STD**2).sqrt()
    cov = a[0] * a * STD**2 + s[0] * s
    wanted = 2 * float(g[0] * (g[0] * cov[0] - g[1] * cov[1]) / gaps[0])
    assert float(gradient) == pytest.approx(wanted, abs=0.003)
    assert abs(wanted) < 1.3 * STD**2 * 2.0**-stage
    assert float(errors.detach().mean() / gaps.mean()) < 1.6 * STD**2 * 2.0**-stage * 8


def test_the_gap_is_halved_stage_by_stage_over_the_run() -> None:
    made = objective(num_steps=8, batch_size=64, stages=4)
    seen: list[int] = []
    original = made.disagreement

    def listen(*arguments: Any) -> Any:
        seen.append(int(arguments[5].unique()))
        return original(*arguments)

    made.disagreement = listen  # type: ignore[method-assign]
    model = Exact(made.scheduler)
    for step in range(8):
        positions = torch.arange(step * 64, (step + 1) * 64)
        loss = made.loss(model, Batch(torch.zeros(64, 1, 8, 8), None, positions))
        assert bool(loss.isfinite())
    assert seen == [1, 1, 2, 2, 3, 3, 4, 4]


def test_at_the_first_timesteps_the_image_itself_is_wanted() -> None:
    made = objective()
    images, noise = torch.rand(2, 1, 8, 8), torch.randn(2, 1, 8, 8)
    t, stage = torch.tensor([0, 1]), torch.tensor([1, 1])
    assert made.earlier(t, stage).tolist()[0] == -1
    model = Exact(made.scheduler)
    errors, gaps = made.disagreement(model, images[:1], noise[:1], None, t[:1], stage[:1])
    noisy = made.scheduler.add_noise(images, noise, t)[:1]
    wanted = (made._image(model, noisy, t[:1], None) - images[:1]).square().mean()
    torch.testing.assert_close(errors[0], wanted)
    torch.testing.assert_close(gaps[0], made._angles[0])


def test_both_evaluations_have_the_same_dropout() -> None:
    made = objective()
    drop = torch.nn.Dropout(0.5)

    def model(x: torch.Tensor, t: torch.Tensor, return_dict: bool) -> Any:
        return (drop(torch.ones_like(x)),)

    t = torch.tensor([1])
    assert made.earlier(t, torch.tensor([12])).tolist() == [0]
    zero = torch.zeros(1, 1, 8, 8)
    errors, _ = made.disagreement(model, zero, zero, None, t, torch.tensor([12]), dropout=5)
    s = (1 - made.scheduler.alphas_cumprod[:2]).sqrt()
    assert float(errors.detach()) < 4.1 * float(s[1] - s[0]) ** 2  # with other masks it would be s^2


def test_a_configuration_comes_back_and_what_cannot_be_distilled_is_refused() -> None:
    config = RunConfig(distill=DistillConfig(base_digest="ab", base_steps=7, stages=3))
    assert from_json(to_json(config)) == config
    assert from_json(to_json(RunConfig())).distill is None
    with pytest.raises(ConfigError, match="another schedule.prediction_type than epsilon"):
        RunConfig(schedule=ScheduleConfig(prediction_type="epsilon"), distill=DistillConfig())
    with pytest.raises(ConfigError, match=r"distill.stages must be in \[1, 12\]"):
        DistillConfig(stages=0)


# The command


@pytest.fixture(scope="module")
def base(tiny: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("base")
    command = Command(path / "log.txt", ["train", *tiny, "--out", str(path / "run")])
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
    assert '"stages": 4' in dry.output
    assert not out.exists()

    end = logsnr("distill", base, "--out", out, *LONGER)
    assert end.status == 0, end.output
    config = from_json(json.dumps(json.loads((out / "config.json").read_text())["config"]))
    wanted = distilled(base)
    assert config.distill == wanted.distill
    assert config.schedule == wanted.schedule
    assert config.distill is not None
    assert config.distill.base_steps == 12
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
    before = (out / "model" / "model_index.json").read_bytes()
    assert logsnr("export", out, "--out", tmp_path / "exported").status == 0
    assert (tmp_path / "exported" / "model" / "model_index.json").read_bytes() == before
    stock = json.loads((out / "stock" / "model_index.json").read_text())
    assert stock["scheduler"] == ["diffusers", "LCMScheduler"]
    assert isinstance(load(out / "stock").scheduler, ConsistencyScheduler)

    staged = tmp_path / "staged"
    end = logsnr("publish", out, "ada/few", "--stage", staged)
    assert end.status == 0, end.output
    card = (staged / "main" / "README.md").read_text()
    assert "logsnr distill path/to/model --out runs/few" in card
    assert "num_inference_steps=2" in card
    assert config.distill.base_digest in (staged / "main" / "run" / "config.json").read_text()
    assert str(base) not in "".join(p.read_text() for p in staged.rglob("*.json"))


def test_the_stock_form_draws_with_stock_code(base: Path, tmp_path: Path, logsnr: Callable[..., Finished]) -> None:
    from diffusers import DiffusionPipeline

    out = tmp_path / "few"
    assert logsnr("distill", base, "--out", out).status == 0
    pipe = DiffusionPipeline.from_pretrained(out / "stock")
    assert type(pipe.scheduler).__name__ == "LCMScheduler"
    images = pipe(batch_size=2, num_inference_steps=2, output_type="np").images
    assert images.shape == (2, 8, 8, 1)
    assert np.isfinite(images).all()
    trusted = DiffusionPipeline.from_pretrained(out / "model", trust_remote_code=True)
    assert type(trusted.scheduler).__name__ == "ConsistencyScheduler"
    ours = load(out)
    a, b = (p(class_labels=[0, 1], num_inference_steps=2, generator=3, output_type="np").images for p in (trusted, ours))
    assert np.array_equal(a, b)


def test_what_is_wrong_is_said(base: Path, tmp_path: Path, logsnr: Callable[..., Finished]) -> None:
    assert logsnr("distill").status == 2
    assert "the run comes first, before --out" in logsnr("distill", "--out", tmp_path / "x").output
    assert "there is no config.json in it" in logsnr("distill", tmp_path, "--out", tmp_path / "x").message
    assert "--out must be another folder than RUN" in logsnr("distill", base, "--out", base).message
    wrong = logsnr("distill", base, "--out", tmp_path / "x", "--distill.stages", 0)
    assert wrong.message == "error: distill.stages must be in [1, 12], and is 0.\n"
    help_text = logsnr("distill", base, "--help").output
    assert "--distill.stages" in help_text
    assert "--train.num-steps" in help_text
    assert "base-digest" not in help_text
    out = tmp_path / "few"
    assert logsnr("distill", base, "--out", out).status == 0
    assert "is distilled already" in logsnr("distill", out, "--out", tmp_path / "y").message
    assert "distill.stages: 4 -> 3" in logsnr("distill", base, "--out", out, "--distill.stages", 3).message
