"""How near is a sampler to the converged solution, by number of network evaluations? Every stock scheduler and ours.

    logsnr tune runs/mnist
    python benchmarks/few_step.py runs/mnist --num 64           # writes benchmarks/few_step.md
    python benchmarks/few_step.py --mixture                     # an analytic Gaussian mixture; untuned alone

For each number of evaluations every scheduler of diffusers that runs the model and adds no noise samples from the same
noise, in one process, ours between them, with each of its timestep spacings and Karras', exponential and beta sigmas;
the best is reported. The distance is the RMSE over pixels in [-1, 1] to the solution of 500 steps, which is itself
compared with that of 250. Seconds are an image's, the network's and the scheduler's together.
"""

import argparse
import inspect
import itertools
import time
import warnings
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers.models.unets.unet_2d import UNet2DOutput
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from torch import Tensor
from tqdm import tqdm

from logsnr.hub import load
from logsnr.pipelines.pipeline_pixel import PixelDiffusionPipeline
from logsnr.schedulers.scheduling_beta import CosineBetaScheduler
from logsnr.schedulers.scheduling_few_step import FewStepScheduler, adams_table
from logsnr.tune import Sampler

COUNTS = (4, 5, 6, 8, 10, 15, 20)
SEED = 77_000_000  # noise that tuning never sees
NOISY = ("DDPM", "Ancestral", "SDE", "LCM", "TCD", "Inverse", "Parallel", "RePaint", "SASolver")
SPACINGS = [{"timestep_spacing": s} for s in ("trailing", "linspace", "leading")]
SIGMAS = [{f"use_{s}_sigmas": True} for s in ("karras", "exponential", "beta")]


class MixtureUNet(diffusers.UNet2DModel):  # type: ignore[misc]
    """The exact v of a mixture of 64 Gaussians of 8x8 pixels, in the place of a network."""

    def __init__(self, alphas_cumprod: Tensor) -> None:
        super().__init__(sample_size=8, in_channels=1, out_channels=1, block_out_channels=(8,), norm_num_groups=1,
                         down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",))  # fmt: skip
        self.alphas_cumprod = alphas_cumprod.double()
        self.means = torch.randn(64, 64, generator=torch.Generator().manual_seed(1)).sign() * 0.8

    def forward(self, sample: Tensor, timestep: Any, class_labels: Any = None, return_dict: bool = True) -> Any:
        t = float(timestep)
        low = min(int(t), len(self.alphas_cumprod) - 2)
        bar = torch.lerp(self.alphas_cumprod[low], self.alphas_cumprod[low + 1], t - low).float()
        a, s, x, band = bar.sqrt(), (1 - bar).sqrt(), sample.flatten(1), 0.2**2
        variance = a**2 * band + s**2
        weights = ((a * x @ self.means.T - 0.5 * a**2 * self.means.square().sum(1)) / variance).softmax(1)
        mean = weights @ self.means
        x_0 = mean + a * band / variance * (x - a * mean)
        return UNet2DOutput(sample=((a * x - x_0) / s).view_as(sample))


def stock_schedulers() -> list[Any]:
    members = (getattr(diffusers.schedulers, name) for name in dir(diffusers.schedulers))
    found = {m for m in members if inspect.isclass(m) and issubclass(m, SchedulerMixin) and m is not SchedulerMixin}
    return sorted((m for m in found if not any(w in m.__name__ for w in NOISY)), key=lambda m: str(m.__name__))


def options_of(cls: Any) -> list[dict[str, Any]]:
    parameters = inspect.signature(cls).parameters
    clip = {"clip_sample": False} if "clip_sample" in parameters else {}
    orders = [{"solver_order": 2}, {"solver_order": 3}] if "solver_order" in parameters else [{}]
    spacings = [o for o in [*SPACINGS, *SIGMAS] if next(iter(o)) in parameters] or [{}]
    return [{**clip, **order, **spacing} for order, spacing in itertools.product(orders, spacings)]


@torch.inference_mode()
def drive(scheduler: Any, sampler: Sampler, noise: Tensor, n: int, guidance: float) -> Tensor | None:
    """The end of at most n evaluations; None where the scheduler can't."""
    try:
        for steps in range(n, 0, -1):
            scheduler.set_timesteps(steps)
            if len(scheduler.timesteps) <= n:  # Heun and the like evaluate more than once a step
                break
        x = noise * scheduler.init_noise_sigma
        for t in scheduler.timesteps:
            output = sampler.output(scheduler.scale_model_input(x, t), t, guidance)
            x = scheduler.step(output, t, x, return_dict=False)[0]
    except Exception:  # stock's sigmas at few steps
        return None
    return x if bool(x.isfinite().all()) else None


@torch.inference_mode()
def converged(sampler: Sampler, noise: Tensor, guidance: float, steps: int) -> Tensor:
    timesteps = sampler.scheduler.default_timesteps(steps)
    return sampler.run(timesteps, adams_table(sampler.scheduler.angles[timesteps].tolist()), guidance, noise)[0]


def rmse(x: Tensor, y: Tensor) -> float:
    return float((x - y).square().mean().sqrt())


def measure(pipe: PixelDiffusionPipeline, num: int, counts: list[int]) -> list[str]:
    sampler, own = Sampler(pipe, 2.0), FewStepScheduler.from_config(pipe.scheduler.config)
    noise, lines = sampler.noise(num, SEED), []
    candidates: list[tuple[str, Any]] = []
    for cls in stock_schedulers():
        for options in options_of(cls):
            try:
                scheduler = pipe._build_scheduler(cls, options)
            except ValueError:
                continue
            words = " ".join(str(v) if k in ("timestep_spacing", "solver_order") else k.split("_")[1]
                             for k, v in options.items() if k != "clip_sample")  # fmt: skip
            candidates.append((f"{cls.__name__.removesuffix('Scheduler')} {words}", scheduler))
    ours = [("ours, untuned", sampler.scheduler), *([("ours, tuned", own)] if own.tuned_steps else [])]
    for guidance in sampler.guidances:
        with torch.inference_mode():
            goal = converged(sampler, noise, guidance, 500)
            change = rmse(goal, converged(sampler, noise, guidance, 250))
        lines += [f"\nGuidance {guidance:g}; halving the reference's steps moves it by {change:.4f}.\n"]
        lines += ["| evaluations | sampler | RMSE | s/image |", "|---|---|---|---|"]
        for n in counts:
            rows = []
            for name, scheduler in tqdm([*ours, *candidates], desc=f"{n} evaluations", leave=False):
                begin = time.perf_counter()
                end = drive(scheduler, sampler, noise, n, guidance)
                seconds = (time.perf_counter() - begin) / num
                if end is not None:
                    rows.append((rmse(end, goal), name, seconds))
            best: dict[str, tuple[float, str, float]] = {}
            for row in sorted(rows):
                best.setdefault(row[1].split()[0] if not row[1].startswith("ours") else row[1], row)
            lines += [f"| {n} | {name} | {error:.4f} | {seconds:.4f} |" for error, name, seconds in best.values()]
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?")
    parser.add_argument("--mixture", action="store_true")
    parser.add_argument("--num", type=int, default=64)
    parser.add_argument("--counts", type=int, nargs="+", default=COUNTS)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/few_step.md"))
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    diffusers.utils.logging.set_verbosity_error()
    if arguments.mixture:
        scheduler = CosineBetaScheduler(prediction_type="v_prediction", clip_sample=False)
        pipe, title = PixelDiffusionPipeline(MixtureUNet(scheduler.alphas_cumprod), scheduler), "Gaussian mixture"
    else:
        pipe, title = load(arguments.model), Path(arguments.model).name
    lines = [f"# Distance to the converged solution: {title}, {arguments.num} images"]
    lines += measure(pipe, arguments.num, list(arguments.counts))
    arguments.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
