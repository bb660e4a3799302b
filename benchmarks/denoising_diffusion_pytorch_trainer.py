"""denoising-diffusion-pytorch's own Trainer on a folder of pictures for some seconds; then pictures that it draws.

Run by time_to_quality.py, in an environment of its own: `pip install denoising-diffusion-pytorch diffusers`.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import psutil
import torch

# Its torchvision may have been built for another torch: what it registers at import is made to be there.
_library = torch.library.Library("torchvision", "DEF")
for _operator in ("nms", "qnms"):
    _library.define(f"{_operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

from denoising_diffusion_pytorch import GaussianDiffusion, Trainer, Unet  # noqa: E402
from diffusers import DPMSolverMultistepScheduler  # noqa: E402

STEPS = 20


def busy() -> float:
    """Seconds that the processor worked for this process and for those that read its pictures."""
    own = psutil.Process()
    spans = [each.cpu_times() for each in (own, *own.children(recursive=True))]
    return sum(span.user + span.system for span in spans)


@torch.inference_mode()
def draw(diffusion: GaussianDiffusion, solver: DPMSolverMultistepScheduler, count: int, seed: int) -> torch.Tensor:
    """Images in [0, 1] by a solver of diffusers, as the other recipes' are drawn."""
    generator = torch.Generator().manual_seed(seed)
    solver.set_timesteps(STEPS)
    x = torch.randn(count, diffusion.channels, *diffusion.image_size, generator=generator)
    for t in solver.timesteps:
        output = diffusion.model(x, torch.full((count,), int(t)))
        x = solver.step(output, t, x, generator=generator, return_dict=False)[0]
    return x / 2 + 0.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="of PNGs")
    parser.add_argument("out", type=Path, help="images, .npy; figures beside it")
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--rate", type=float, default=1e-4)
    parser.add_argument("--channels", type=int, required=True)
    parser.add_argument("--size", type=int, required=True)
    parser.add_argument("--dim", type=int, required=True)
    parser.add_argument("--mults", type=int, nargs="+", default=(1, 2, 4))
    parser.add_argument("--flip", action="store_true")
    parser.add_argument("--num", type=int, default=1000)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    network = Unet(dim=arguments.dim, dim_mults=tuple(arguments.mults), channels=arguments.channels)
    diffusion = GaussianDiffusion(network, image_size=arguments.size, timesteps=1000)
    trainer = Trainer(
        diffusion,
        str(arguments.folder),
        train_lr=arguments.rate,
        train_num_steps=10**9,
        save_and_sample_every=10**9,
        augment_horizontal_flip=arguments.flip,
        calculate_fid=False,
        results_folder=str(arguments.out.parent / "results"),
    )
    update, begun = trainer.ema.update, busy()

    def stop_in_time() -> None:
        update()
        if busy() - begun > arguments.seconds:
            trainer.train_num_steps = trainer.step

    trainer.ema.update = stop_in_time
    trainer.train()
    steps, seconds = trainer.step, busy() - begun
    averaged = trainer.ema.ema_model.eval()
    solver = DPMSolverMultistepScheduler(
        trained_betas=averaged.betas.tolist(),
        prediction_type={"pred_v": "v_prediction", "pred_noise": "epsilon", "pred_x0": "sample"}[averaged.objective],
        algorithm_type="sde-dpmsolver++",
        timestep_spacing="trailing",
    )
    made = torch.cat([draw(averaged, solver, 100, k) for k in range(arguments.num // 100)])
    np.save(arguments.out, (made.clamp(0, 1) * 255).round().byte().numpy())
    parameters = sum(p.numel() for p in network.parameters())
    record = {"steps": steps, "seconds": seconds, "parameters": parameters, "batch": 16}
    arguments.out.with_suffix(".record").write_text(json.dumps(record))


if __name__ == "__main__":
    main()
