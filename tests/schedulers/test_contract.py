"""What every file of schedulers/ owes to diffusers and to a Hub repo. A new file is tested because it is there."""

import importlib
import inspect
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from travelling import SCHEDULERS

LOAD_ALONE = """
import importlib.util, sys
sys.modules["logsnr"] = None  # any import of it raises ModuleNotFoundError
spec = importlib.util.spec_from_file_location(sys.argv[1], sys.argv[2])
module = sys.modules[sys.argv[1]] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
for name in sys.argv[3:]:
    getattr(module, name)()
"""


def module_of(file: Path) -> ModuleType:
    return importlib.import_module(f"logsnr.schedulers.{file.stem}")


def schedulers_of(file: Path) -> list[type]:
    """The schedulers that a file defines and that can be made."""
    module = module_of(file)
    return [
        c
        for c in vars(module).values()
        if inspect.isclass(c)
        and issubclass(c, SchedulerMixin)
        and c.__module__ == module.__name__
        and not inspect.isabstract(c)
    ]


def noise_and_output(scheduler: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Where sampling begins, and what a network might say of it: pictures, or states and their logits."""
    if "num_states" in scheduler.config:
        return scheduler.sample_stationary((2, 16)), torch.randn(2, 16, scheduler.config.num_states)
    return torch.randn(2, 3, 8, 8) * scheduler.init_noise_sigma, torch.randn(2, 3, 8, 8)


def clean_and_noise(scheduler: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Four examples of what is trained on, and the noise that a training script draws for them."""
    if "num_states" in scheduler.config:
        return torch.randint(scheduler.config.num_states - 1, (4, 16)), torch.rand(4, 16, dtype=torch.float64)
    return torch.rand(4, 1, 8, 8), torch.randn(4, 1, 8, 8)


files = pytest.mark.parametrize("file", SCHEDULERS, ids=lambda file: file.stem)
schedulers = pytest.mark.parametrize(
    "scheduler", [c for file in SCHEDULERS for c in schedulers_of(file)], ids=lambda c: c.__name__
)


def test_the_folder_holds_schedulers() -> None:
    assert SCHEDULERS
    assert all(schedulers_of(file) for file in SCHEDULERS)


@files
def test_loads_and_runs_without_the_package(file: Path) -> None:
    names = [c.__name__ for c in schedulers_of(file)]
    command = [sys.executable, "-c", LOAD_ALONE, file.stem, str(file), *names]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr[-2000:]


@files
def test_public_names_don_t_clash_with_stock(file: Path) -> None:
    import diffusers

    assert not [c.__name__ for c in schedulers_of(file) if hasattr(diffusers, c.__name__)]


@schedulers
def test_saves_and_loads(scheduler: type, tmp_path: Path) -> None:
    made = scheduler()
    made.save_pretrained(tmp_path)
    loaded = scheduler.from_pretrained(tmp_path)
    loaded.save_pretrained(tmp_path / "again")
    name = scheduler.config_name
    assert (tmp_path / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
    assert torch.equal(loaded.timesteps, made.timesteps)


@schedulers
def test_samples_as_a_pipeline_does(scheduler: type) -> None:
    made = scheduler()
    ends = []
    for return_dict in (True, False):  # twice, so that a run leaves nothing behind
        torch.manual_seed(0)
        made.set_timesteps(5, device="cpu")
        assert isinstance(made.timesteps, torch.Tensor)
        assert made.timesteps.ndim == 1
        sample, output = noise_and_output(made)
        for t in made.timesteps:
            scaled = made.scale_model_input(sample, t)
            assert scaled.shape == sample.shape
            result = made.step(torch.randn_like(output), t, sample, return_dict=return_dict)
            sample = result.prev_sample if return_dict else result[0]
            assert sample.shape == scaled.shape
            assert bool(sample.isfinite().all())
        ends.append(sample)
    assert torch.equal(*ends)


@schedulers
def test_adds_noise_as_a_training_script_does(scheduler: type) -> None:
    made = scheduler()
    x_0, noise = clean_and_noise(made)
    timesteps = torch.tensor([0, 1, len(made) // 2, len(made) - 1])
    noisy = made.add_noise(x_0, noise, timesteps)
    assert noisy.shape == x_0.shape
    assert noisy.dtype == x_0.dtype
    assert len(made) == made.config.num_train_timesteps
