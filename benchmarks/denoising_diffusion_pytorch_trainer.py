"""denoising-diffusion-pytorch's own Trainer on a folder of pictures for some seconds; then pictures that it draws.

Run by time_to_quality.py, in an environment of its own: `pip install denoising-diffusion-pytorch`.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch

# Its torchvision may have been built for another torch: what it registers at import is made to be there.
_library = torch.library.Library("torchvision", "DEF")
for _operator in ("nms", "qnms"):
    _library.define(f"{_operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

from denoising_diffusion_pytorch import GaussianDiffusion, Trainer, Unet  # noqa: E402


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
    diffusion = GaussianDiffusion(network, image_size=arguments.size, timesteps=1000, sampling_timesteps=50)
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
    update, begun = trainer.ema.update, time.perf_counter()

    def stop_in_time() -> None:
        update()
        if time.perf_counter() - begun > arguments.seconds:
            trainer.train_num_steps = trainer.step

    trainer.ema.update = stop_in_time
    trainer.train()
    steps, seconds = trainer.step, time.perf_counter() - begun
    trainer.ema.ema_model.eval()
    with torch.inference_mode():
        sizes = [100] * (arguments.num // 100)
        made = torch.cat([trainer.ema.ema_model.sample(batch_size=size) for size in sizes])
    np.save(arguments.out, (made.clamp(0, 1) * 255).round().byte().numpy())
    parameters = sum(p.numel() for p in network.parameters())
    record = {"steps": steps, "seconds": seconds, "parameters": parameters, "batch": 16}
    arguments.out.with_suffix(".record").write_text(json.dumps(record))


if __name__ == "__main__":
    main()
