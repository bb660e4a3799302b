"""deepinv's samplers on a network of ours, at the beck of restoration.py: a request a line, an answer a line, as JSON.

Run by restoration.py, in an environment of its own:

    python3 -m venv deepinv
    deepinv/bin/pip install torch==2.13.0        # first: the build that the index has for this machine
    deepinv/bin/pip install --no-deps deepinv torchvision
    deepinv/bin/pip install diffusers safetensors einops h5py matplotlib natsort torchmetrics requests

A request names task, method, budget (evaluations of the network for each picture), settings, how many draws of each
measurement and the file to put them in. The budget becomes a number of steps so: DiffPIR and DDRM evaluate the network
once a step; DPS and PiGDM once, with a gradient (2); moment matching once, with as many gradients as it takes
iterations of its solver, and two (6 by its default of 3). What was really done is counted, and answered.

deepinv's wrapper for diffusers takes three schedulers and no classes, so `Network` is our own. It finds the timestep as
that wrapper does (the nearest sigma), and clips as it does unless a setting says not. The linear maps are checked to be
ours: deepinv's own Inpainting and BlurFFT, and its DecomposablePhysics with our spectrum for the rest. So DDRM has
singular values, and the others need no inner solver.
"""

import argparse
import importlib.util
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

# Its torchvision may have been built for another torch: what it registers at import is made to be there.
_library = torch.library.Library("torchvision", "DEF")
for _operator in ("nms", "qnms"):
    _library.define(f"{_operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

import deepinv  # noqa: E402
from deepinv import sampling  # noqa: E402
from deepinv.optim.data_fidelity import L2  # noqa: E402
from diffusers import UNet2DModel  # noqa: E402
from restoration_tasks import NOISE_STD, Counter, make_operator  # noqa: E402

BATCH = 64


class Network(deepinv.models.Denoiser):  # type: ignore[misc]
    """E[x_0 | x_0 + sigma n] on [0, 1], by a U-Net that knows x_t = sqrt(a_t) (x_0 + sigma_t n) on [-1, 1]."""

    def __init__(self, unet: UNet2DModel, alphas_cumprod: Tensor, prediction_type: str) -> None:
        super().__init__()
        self.unet, self.alphas_cumprod, self.prediction_type = unet, alphas_cumprod.double(), prediction_type
        self.sigmas = (1 / self.alphas_cumprod - 1).sqrt()  # on [-1, 1]
        self.clip = True

    def forward(self, x: Tensor, sigma: Any, **_: Any) -> Tensor:
        sigma = 2 * torch.as_tensor(sigma).double().flatten()
        t = (self.sigmas - sigma[:, None]).abs().argmin(1).expand(len(x))
        a = self.alphas_cumprod[t].to(x.dtype)[:, None, None, None]
        x_t = a.sqrt() * (2 * x - 1)
        output = self.unet(x_t.float(), t).sample.to(x.dtype)
        x_0 = {
            "epsilon": lambda: (x_t - (1 - a).sqrt() * output) / a.sqrt(),
            "v_prediction": lambda: a.sqrt() * x_t - (1 - a).sqrt() * output,
            "sample": lambda: output,
        }[self.prediction_type]()
        return (x_0.clamp(-1, 1) if self.clip else x_0) / 2 + 0.5


def make_physics(operator: Any) -> Any:
    """Our operator as deepinv's: its own class where there is one, else by our spectrum. Checked to be the same map."""
    noise, kind = deepinv.physics.GaussianNoise(NOISE_STD), type(operator).__name__
    if kind == "Mask":
        physics = deepinv.physics.Inpainting(img_size=operator.shape, mask=operator.mask.float(), noise_model=noise)
    elif kind == "Blur":
        kernel = operator.kernel.float()[None, None]
        physics = deepinv.physics.BlurFFT(img_size=operator.shape, filter=kernel, noise_model=noise)
    else:
        physics = _decomposed(operator, noise)
    physics.shape = operator.shape
    x = torch.rand(2, *operator.shape, generator=torch.Generator().manual_seed(0))
    y = operator.apply(x)
    errors = (physics.A(x) - y).abs().max(), (physics.A_adjoint(y) - operator.adjoint(y)).abs().max()
    assert max(errors) < 1e-5, (kind, errors)
    return physics


def _decomposed(operator: Any, noise: Any) -> Any:
    """A = U s V^T with V of our spectrum, s its roots, and U as wide as V: what lies in no measurement has s = 0."""
    spectrum = operator.spectrum()
    s = spectrum.values.clamp(min=0).sqrt().float().expand(operator.shape)[None]
    kept = s > 1e-4
    s = torch.where(kept, s, 0.0)
    inverse = torch.where(kept, 1 / s, 0.0)
    return deepinv.physics.DecomposablePhysics(
        U=lambda z: operator.apply(spectrum.inverse(inverse * z)),
        U_adjoint=lambda y: inverse * spectrum.forward(operator.adjoint(y)),
        V=spectrum.inverse,
        V_adjoint=spectrum.forward,
        mask=s,
        img_size=operator.shape,
        noise_model=noise,
    )


Sampler = Callable[[Tensor, Any], Tensor]
"""Measurements and a physics -> a draw of each."""


def diffpir(network: Network, budget: int, **settings: float) -> Sampler:
    """Settings: zeta, lambda_; 0.1 and 7 by default."""
    sampler: Sampler = sampling.DiffPIR(network, L2(), sigma=NOISE_STD, max_iter=budget, **settings)
    return sampler


def ddrm(network: Network, budget: int, eta: float = 0.85, etab: float = 1.0, sigmas: str = "linear") -> Sampler:
    """`sigmas`: "linear", its default, from 1 to 0; or "model", the network's own at even timesteps."""
    levels = np.linspace(1, 0, budget)
    if sigmas == "model":
        places = np.linspace(len(network.sigmas) - 1, 0, budget).round().astype(int)
        levels = np.minimum(network.sigmas.numpy()[places] / 2, 50.0)
    sampler: Sampler = sampling.DDRM(network, sigmas=levels, eta=eta, etab=etab)
    return sampler


def dps(network: Network, budget: int, weight: float = 1.0, guidance: str = "norm") -> Sampler:
    sampler = sampling.DPS(network, num_steps=budget // 2 + 1, weight=weight, guidance=guidance)
    return lambda y, physics: sampler(y, physics, x_init=(len(y), *physics.shape))


def _posterior(network: Network, fidelity: Any, steps: int) -> Sampler:
    """By the SDE and the solver that DPS has by default."""
    solver = sampling.DDPMSolver(timesteps=torch.linspace(1, 0, steps + 1, dtype=torch.float64))
    sde = sampling.VariancePreservingDiffusion(alpha=1.0, dtype=torch.float64)
    sampler = sampling.PosteriorDiffusion(fidelity, network, sde, solver)
    return lambda y, physics: sampler(y, physics, x_init=(len(y), *physics.shape))


def pigdm(network: Network, budget: int, weight: float = 1.0) -> Sampler:
    return _posterior(network, sampling.PiGDMDataFidelity(weight=weight), budget // 2)


def moment(network: Network, budget: int, weight: float = 1.0, iterations: int = 3) -> Sampler:
    fidelity = sampling.MomentMatchingDataFidelity(weight=weight, cg_max_iter=iterations)
    return _posterior(network, fidelity, budget // (3 + iterations))


METHODS = {"diffpir": diffpir, "dps": dps, "ddrm": ddrm, "pigdm": pigdm, "moment": moment}


class Side:
    """The network and the tasks of a folder that restoration.py has prepared."""

    def __init__(self, folder: Path, operators: ModuleType) -> None:
        kept = load_file(folder / "tasks.safetensors")
        facts = json.loads((folder / "facts.json").read_text())
        unet = UNet2DModel.from_pretrained(folder / "unet").eval().requires_grad_(False)
        self.counter = Counter(unet)
        self.network = Network(unet, kept["alphas_cumprod"], facts["prediction_type"])
        self.shape, self.kept, self.operators = tuple(facts["shape"]), kept, operators

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        measurements = self.kept[f"{request['split']}.{request['task']}"].repeat_interleave(request["draws"], 0)
        physics = make_physics(make_operator(request["task"], self.shape, self.operators))
        settings = dict(request["settings"])
        self.network.clip = settings.pop("clip", True)
        sampler = METHODS[request["method"]](self.network, request["budget"], **settings)
        torch.manual_seed(request["seed"])
        begun, begun_cpu = time.perf_counter(), time.process_time()
        parts = [sampler(part, physics) for part in measurements.split(BATCH)]
        seconds, cpu = time.perf_counter() - begun, time.process_time() - begun_cpu
        draws = torch.cat(parts).detach().float().clamp(0, 1).unflatten(0, (-1, request["draws"])).contiguous()
        save_file({"draws": draws.half()}, request["out"])
        forward, backward = self.counter.take(len(measurements))
        return {"seconds": seconds, "cpu_seconds": cpu, "forward": forward, "backward": backward}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="what restoration.py prepared")
    parser.add_argument("operators", type=Path, help="restoration_operators.py")
    arguments = parser.parse_args()
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what is printed elsewhere is no answer
    torch.set_num_threads(1)
    spec = importlib.util.spec_from_file_location("restoration_operators", arguments.operators)
    assert spec is not None
    assert spec.loader is not None
    operators = importlib.util.module_from_spec(spec)
    sys.modules["restoration_operators"] = operators
    spec.loader.exec_module(operators)
    side = Side(arguments.folder, operators)
    print(json.dumps({"deepinv": deepinv.__version__, "methods": list(METHODS)}), file=answers)
    for line in sys.stdin:
        print(json.dumps(side.answer(json.loads(line))), file=answers)


if __name__ == "__main__":
    main()
