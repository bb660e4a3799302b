"""Load a trained model with stock diffusers alone, change its scheduler, and draw two grids.

    python examples/demo.py runs/mnist

This script imports nothing of logsnr: it is what somebody does who was given the model.
"""

import sys
from pathlib import Path

from diffusers import DiffusionPipeline, DPMSolverMultistepScheduler
from diffusers.utils import make_image_grid


def main(run: Path) -> None:
    # The plain form: a DDPMPipeline with a UNet2DModel, no code but diffusers' own. It draws whatever digit it likes.
    pipe = DiffusionPipeline.from_pretrained(run / "stock")
    pipe.scheduler = DPMSolverMultistepScheduler.from_config(pipe.scheduler.config, algorithm_type="sde-dpmsolver++")
    images = pipe(batch_size=40, num_inference_steps=20).images
    make_image_grid(images, rows=4, cols=10).resize((560, 224)).save(run / "stock.png")

    # The full form brings its own pipeline and scheduler along: classes, guidance, a seed for each image.
    pipe = DiffusionPipeline.from_pretrained(run / "model", trust_remote_code=True)
    pipe.swap_scheduler("DPMSolverMultistepScheduler", algorithm_type="sde-dpmsolver++")
    labels = [digit for _ in range(8) for digit in range(10)]
    images = pipe(class_labels=labels, guidance_scale=2.0, num_inference_steps=20, generator=0).images
    make_image_grid(images, rows=8, cols=10).resize((560, 448)).save(run / "digits.png")

    print("Loaded with stock diffusers, sampled by DPM-Solver++ with noise in 20 steps:")
    print(f"  {run / 'stock.png'}   40 digits as they come")
    print(f"  {run / 'digits.png'}  the digits 0 to 9 on request, with guidance 2")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
