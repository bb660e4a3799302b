"""Quality against network evaluations: how near a sampler comes to the converged images, ours and stock side by side.

From given noise the probability-flow ODE has one end. The distance of a sampler is the root mean square, over pixels
in [-1, 1], of the difference between its end and that one, which fine steps have found (`logsnr tune`). Stock
schedulers run on the model's own betas, with what serves them best at few steps: timesteps that begin at T - 1
(`trailing`; Lin et al., 2305.08891, table 2), and no clipping.

The figures lie beside the tables in the model's folder, numbers alone, and so travel with a published model.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from logsnr.base.columns import aligned
from logsnr.base.errors import ModelError
from logsnr.folders.model_folder import read_json_object
from logsnr.tasks.parts import parts_of_pipeline

TUNED, UNTUNED = "few-step, tuned", "few-step, untuned"
STOCK: dict[str, dict[str, Any]] = {
    "UniPCMultistep": {"solver_order": 3, "timestep_spacing": "trailing"},
    "DPMSolverMultistep": {"solver_order": 2, "timestep_spacing": "trailing"},
    "DDIM": {"timestep_spacing": "trailing", "clip_sample": False},
}
"""What a user would otherwise take, and how."""
SAMPLERS = (TUNED, UNTUNED, *STOCK)
FILE = "curve.json"


@dataclass(frozen=True)
class Curve:
    """Distances (RMSE) to the converged images.

    images: from the noise of how many they are.
    guidances: the guidance scales.
    rmse: by number of evaluations and sampler, one for each guidance; TUNED is there where the table was kept.
    """

    images: int
    guidances: list[float]
    rmse: dict[int, dict[str, list[float]]]

    @property
    def tuned_steps(self) -> list[int]:
        """The numbers of evaluations that have a table, ascending."""
        return [n for n in sorted(self.rmse) if TUNED in self.rmse[n]]

    @property
    def nearest(self) -> int:
        """The number of evaluations whose table comes nearest, over all guidances."""
        return min(self.tuned_steps, key=lambda n: sum(error**2 for error in self.rmse[n][TUNED]))

    def lines(self) -> dict[str, dict[str, dict[int, float]]]:
        """By guidance (in words), sampler and number of evaluations: what a figure draws."""
        return {
            f"guidance {guidance:g}" if len(self.guidances) > 1 else "": {
                name: {n: self.rmse[n][name][k] for n in sorted(self.rmse) if name in self.rmse[n]}
                for name in self._samplers()
            }
            for k, guidance in enumerate(self.guidances)
        }

    def table(self) -> str:
        """A row for each number of evaluations and guidance, a column for each sampler."""
        names = self._samplers()
        rows = [("evaluations", "guidance", *names)]
        for k, guidance in enumerate(self.guidances):
            for n in sorted(self.rmse):
                cells = (f"{self.rmse[n][name][k]:.4f}" if name in self.rmse[n] else "" for name in names)
                rows.append((str(n), f"{guidance:g}", *cells))
        return aligned(rows)

    def _samplers(self) -> list[str]:
        return [name for name in SAMPLERS if any(name in found for found in self.rmse.values())]

    def write(self, folder: Path) -> None:
        values = {"images": self.images, "guidances": self.guidances, "rmse": self.rmse}
        (folder / FILE).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def read_curve(folder: Path) -> Curve | None:
    """What `Curve.write` left in `folder`, if it did. Raises ModelError where it is something else."""
    path = folder / FILE
    if not path.is_file():
        return None
    values = read_json_object(path)
    try:
        guidances = [float(w) for w in values["guidances"]]
        rmse = {
            int(n): {name: [float(found[name][k]) for k in range(len(guidances))] for name in SAMPLERS if name in found}
            for n, found in values["rmse"].items()
        }
        return Curve(int(values["images"]), guidances, rmse)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{path} isn't what `logsnr tune` writes ({error!r}). Tune the model again.") from error


def stock_schedulers(pipe: Any) -> dict[str, Any]:
    """Those of `STOCK` that can sample this model, by name."""
    parts, found = parts_of_pipeline(pipe), {}
    for name, options in STOCK.items():
        other = parts.pipeline(parts.network_of(pipe), pipe.scheduler, {})
        try:
            parts.swap_scheduler(other, name, options)
            found[name] = other.scheduler
        except ValueError:  # none knows the target x_0 - eps
            continue
    return found


@torch.inference_mode()
def drive(scheduler: Any, output: Callable[[Tensor, Any], Tensor], noise: Tensor, n: int) -> Tensor | None:
    """The end of at most n evaluations of `output`, the network's at (x, t); None where the scheduler can't."""
    try:
        for steps in range(n, 0, -1):
            scheduler.set_timesteps(steps, device=noise.device)
            if len(scheduler.timesteps) <= n:  # Heun and the like evaluate more than once a step
                break
        x = noise * scheduler.init_noise_sigma
        for t in scheduler.timesteps:
            x = scheduler.step(output(scheduler.scale_model_input(x, t), t), t, x, return_dict=False)[0]
    except Exception:  # stock's sigmas at few steps
        return None
    return x if bool(x.isfinite().all()) else None


def rmse(x: Tensor, y: Tensor) -> float:
    """Root mean square of the difference of two tensors."""
    return float((x - y).square().mean().sqrt())
