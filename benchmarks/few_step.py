"""How near is a sampler to the converged solution, by number of network evaluations? Every stock scheduler and ours.

    logsnr tune runs/mnist
    python benchmarks/few_step.py runs/mnist --fid 2000          # writes benchmarks/few_step.md
    python benchmarks/few_step.py --mixture                      # an analytic Gaussian mixture; untuned alone

Every scheduler of diffusers that runs the model and adds no noise samples from the same noise, in one process, ours
between them, with each of its timestep spacings and Karras', exponential and beta sigmas. All are tried on few images
(those that were three times as far as the best at a smaller number of evaluations are left out); of each scheduler the
best is then measured on all. The distance is the RMSE over pixels in [-1, 1] to the solution of 500 steps of order two,
which is itself compared with that of 250. Seconds are an image's, the network's and the scheduler's together.

What was measured is kept in the cache, by the model: the same command goes on where it was cut off.
"""

import argparse
import dataclasses
import inspect
import itertools
import json
import time
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers.models.unets.unet_2d import UNet2DOutput
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from logsnr.base.files import digest_of, replacing_file, write_atomically
from logsnr.evaluation.distances import Figures
from logsnr.evaluation.distribution import distribution, extractor_for
from logsnr.evaluation.extractors import digest_of_network
from logsnr.evaluation.subject import open_subject
from logsnr.folders.cache import cache_folder
from logsnr.pipelines.pipeline_pixel import PixelDiffusionPipeline
from logsnr.sampling.few_evaluations import drive, rmse, swapped
from logsnr.sampling.sample import choose_device
from logsnr.sampling.trajectories import Paths
from logsnr.schedulers.scheduling_beta import CosineBetaScheduler
from logsnr.schedulers.scheduling_few_step import FewStepScheduler, adams_table
from logsnr.settings.options import EvaluateOptions
from logsnr.tasks.load import load

COUNTS = (4, 5, 6, 8, 10, 15, 20)
FID_COUNTS = (5, 6, 8)
SEED = 77_000_000  # noise that tuning never sees
FEW = 16  # images that everything is tried on
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


def candidates_of(pipe: PixelDiffusionPipeline) -> dict[str, tuple[Any, dict[str, Any]]]:
    """Class and options of all that runs the model, by a name for it."""
    found = {}
    for cls in stock_schedulers():
        for options in options_of(cls):
            try:
                swapped(pipe, cls, options)
            except ValueError:
                continue
            words = [str(v) if k in ("timestep_spacing", "solver_order") else k.split("_")[1]
                     for k, v in options.items() if k != "clip_sample"]  # fmt: skip
            found[" ".join([cls.__name__.removesuffix("Scheduler"), *words])] = cls, options
    return found


@torch.inference_mode()
def converged(paths: Paths, noise: Tensor, guidance: float, steps: int) -> Tensor:
    """Of order two: the network isn't smooth enough for three to be nearer."""
    timesteps = paths.scheduler.default_timesteps(steps)
    table, parts = adams_table(paths.scheduler.angles[timesteps].tolist(), order=2), noise.split(FEW * 2)
    first, ends = 0, []
    for part in tqdm(parts, desc=f"reference, {steps} steps", leave=False):
        condition = {name: values[first:] for name, values in paths.conditions(first + len(part)).items()}
        ends.append(paths.run(timesteps, table, guidance, part, condition))
        first += len(part)
    return torch.cat(ends)


class Measured:
    """Distances of one model's samplers, kept in a folder."""

    def __init__(self, pipe: PixelDiffusionPipeline, num: int, guidance_scale: float) -> None:
        self.pipe, self.paths, self.num = pipe, Paths(pipe, guidance_scale), num
        self.noise, self.candidates = self.paths.noise(num, SEED), candidates_of(pipe)
        model = digest_of(digest_of_network(pipe.unet).encode(), repr(sorted(self.plain_config())).encode())
        self.folder = cache_folder() / "few_step" / f"{model}-{num}"
        self.goals: dict[float, tuple[Tensor, float]] = {}

    def plain_config(self) -> list[tuple[str, str]]:
        return [(k, repr(v)) for k, v in self.pipe.scheduler.config.items() if k != "_few_step"]

    def goal(self, guidance: float) -> tuple[Tensor, float]:
        """The converged solution, and how far that of half as many steps is."""
        path = self.folder / f"goal-{guidance:g}.safetensors"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            ends = converged(self.paths, self.noise, guidance, 500)
            change = rmse(ends, converged(self.paths, self.noise, guidance, 250))
            with replacing_file(path) as temporary:
                save_file({"ends": ends.cpu().contiguous(), "change": torch.tensor(change)}, temporary)
        tensors = load_file(path)
        return tensors["ends"].to(self.noise.device), float(tensors["change"])

    def distance(self, scheduler: Any, n: int, guidance: float, num: int) -> tuple[float, float] | None:
        """RMSE and seconds an image, of the first `num` images."""
        begin = time.perf_counter()
        output = partial(self.paths.output, guidance=guidance, condition=self.paths.conditions(num))
        end = drive(scheduler, output, self.noise[:num], n)
        seconds = (time.perf_counter() - begin) / num
        if guidance not in self.goals:
            self.goals[guidance] = self.goal(guidance)
        return None if end is None else (rmse(end, self.goals[guidance][0][:num]), seconds)

    def stock(self, n: int, guidance: float, names: list[str]) -> dict[str, Any]:
        """`tried`: {name: RMSE on few images}; `rows`: [RMSE, seconds, name] of each class's best, best first."""
        path = self.folder / f"stock-{guidance:g}-{n}.json"
        if not path.exists():
            schedulers = {name: swapped(self.pipe, *self.candidates[name]) for name in names}
            few = min(FEW, self.num)
            tried = {}
            for name in tqdm(names, desc=f"guidance {guidance:g}, {n} evaluations", leave=False):
                if found := self.distance(schedulers[name], n, guidance, few):
                    tried[name] = found[0]
            best: dict[str, str] = {}
            for name in sorted(tried, key=lambda name: tried[name]):
                best.setdefault(name.split()[0], name)
            rows = []
            for name in tqdm(best.values(), desc=f"guidance {guidance:g}, {n} evaluations, all images", leave=False):
                if found := self.distance(schedulers[name], n, guidance, self.num):
                    rows.append([*found, name])
            write_atomically(path, json.dumps({"tried": tried, "rows": sorted(rows)}, indent=1) + "\n")
        kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return kept

    def table(self, guidance: float, counts: list[int]) -> tuple[list[str], dict[int, str]]:
        """Lines, and the best stock scheduler by number of evaluations."""
        tuned = FewStepScheduler.from_config(self.pipe.scheduler.config)
        lines = [f"\nGuidance {guidance:g}; halving the reference's steps moves it by {self.goal(guidance)[1]:.4f}.\n"]
        lines += ["| evaluations | sampler | RMSE | s/image |", "|---|---|---|---|"]
        names, best = list(self.candidates), {}
        for n in counts:
            kept = self.stock(n, guidance, names)
            limit = 3 * min(kept["tried"].values())
            names = [name for name in names if kept["tried"].get(name, 0.0) <= limit]  # what failed may work with more
            best[n] = kept["rows"][0][2]
            ours = {"**ours, untuned**": self.paths.scheduler}
            if n in tuned.tuned_steps:
                ours["**ours, tuned**"] = tuned
            rows = [*kept["rows"]]
            for name, scheduler in ours.items():
                found = self.distance(scheduler, n, guidance, self.num)
                rows += [] if found is None else [[*found, name]]
            lines += [f"| {n} | {name} | {error:.4f} | {seconds:.4f} |" for error, seconds, name in sorted(rows)]
        return lines, best


def fids(measured: Measured, run: Path, best: dict[int, str], num: int) -> list[str]:
    """FID and KID of the same noise and labels, beside those of the converged solution."""
    options = EvaluateOptions(num=num, seed=SEED)
    subject = open_subject(run)
    extractor, tuned = extractor_for(subject, options), FewStepScheduler.from_config(measured.pipe.scheduler.config)

    def figures(scheduler: Any, steps: int) -> Figures:
        digest = digest_of(subject.digest.encode(), repr(sorted(scheduler.config.items(), key=str)).encode())
        other = dataclasses.replace(subject, sampler=scheduler, digest=digest)
        return distribution(other, extractor, dataclasses.replace(options, steps=steps)).comparison.figures

    goal = figures(measured.paths.scheduler, 100)
    lines = [f"\n{num} images, guidance 1, features of {extractor.name}. Converged (100 steps): FID {goal.fid:.4f}, "
             f"KID {goal.kid:.5f}.\n"]  # fmt: skip
    lines += ["| evaluations | sampler | FID | in excess | KID |", "|---|---|---|---|---|"]
    for n in (n for n in FID_COUNTS if n in best):
        rows = {best[n]: swapped(measured.pipe, *measured.candidates[best[n]])}
        if n in tuned.tuned_steps:
            rows["**ours, tuned**"] = tuned
        for name, scheduler in rows.items():
            found = figures(scheduler, n)
            lines.append(f"| {n} | {name} | {found.fid:.4f} | {found.fid - goal.fid:.4f} | {found.kid:.5f} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?")
    parser.add_argument("--mixture", action="store_true")
    parser.add_argument("--num", type=int, default=64, help="images (default: 64)")
    parser.add_argument("--counts", type=int, nargs="+", default=COUNTS, help="numbers of evaluations")
    parser.add_argument("--guidance-scale", type=float, default=2.0, help="measured beside 1 (default: 2)")
    parser.add_argument("--fid", type=int, metavar="N", help="measure the FID of N images too; needs a run folder")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/few_step.md"))
    arguments = parser.parse_args()
    if not arguments.mixture and arguments.model is None:
        parser.error("give a model, or --mixture")
    warnings.simplefilter("ignore")
    diffusers.utils.logging.set_verbosity_error()
    if arguments.mixture:
        scheduler = CosineBetaScheduler(prediction_type="v_prediction", clip_sample=False)
        pipe, title = PixelDiffusionPipeline(MixtureUNet(scheduler.alphas_cumprod), scheduler), "Gaussian mixture"
    else:
        pipe, title = load(arguments.model), Path(arguments.model).name
    measured = Measured(pipe.to(choose_device()), arguments.num, arguments.guidance_scale)
    lines, best = [f"# Distance to the converged solution: {title}, {arguments.num} images"], {}
    for guidance in measured.paths.guidances:
        more, found = measured.table(guidance, sorted(arguments.counts))
        lines, best = lines + more, best or found  # the first guidance is 1, that of the FID
        arguments.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    if arguments.fid:
        lines += fids(measured, Path(arguments.model), best, arguments.fid)
    arguments.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
