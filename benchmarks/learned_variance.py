"""Does a learned variance pay? The bound of four models of the same digits, the same network and the same budget.

    python benchmarks/learned_variance.py [--steps 1000]

Trains the network of the preset mnist on mnist-5k, epsilon prediction, three times: with DDPM's simple loss, whose
network is measured with both fixed variances, with the hybrid loss and with the bound itself. Prints the bound on the
held-out digits in bits per dimension, for the whole chain and for chains respaced to 100 and 25 of its steps (Nichol
and Dhariwal, 2102.09672, table 2 and figure 8).
"""

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any

import logsnr
from logsnr.config import DataConfig
from logsnr.data import open_data
from logsnr.evaluate.likelihood import elbo

LOSSES = {
    "simple": ["--objective.loss", "weighted"],
    "hybrid": ["--objective.loss", "hybrid", "--schedule.variance-type", "learned_range"],
    "vlb": ["--objective.loss", "vlb", "--schedule.variance-type", "learned_range"],
}


def train(name: str, run: Path, steps: int) -> Any:
    arguments = [
        *("train", "mnist", "--out", str(run), *LOSSES[name], "--schedule.prediction-type", "epsilon"),
        *("--data.no-class-conditional", "--train.num-steps", str(steps), "--train.learning-rate", "1e-3"),
        *("--train.sample-every", "0", "--train.tracker", "none"),
    ]
    subprocess.run([sys.executable, "-m", "logsnr", *arguments], check=True)
    return logsnr.load(run)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1000, help="of training, 64 digits each")
    parser.add_argument("--images", type=int, default=250, help="held-out digits to measure")
    parser.add_argument("--out", type=Path, default=Path("runs/learned_variance"))
    arguments = parser.parse_args()
    data = open_data(DataConfig(class_conditional=False))
    models = {}
    for name in LOSSES:
        pipeline = train(name, arguments.out / name, arguments.steps)
        if name == "simple":
            config = pipeline.scheduler.config
            for variance in ("fixed_small", "fixed_large"):
                scheduler = type(pipeline.scheduler).from_config(config, variance_type=variance)
                models[f"simple, {variance}"] = pipeline.unet, scheduler
        else:
            models[f"{name}, learned_range"] = pipeline.unet, pipeline.scheduler
    print(f"{arguments.steps} steps; bits per dimension of {arguments.images} held-out digits")
    print(f"{'loss, variance':<24}{'K':>6}{'bound':>9}{'+-':>8}{'prior':>9}{'KL':>8}{'decoder':>9}")
    for name, (unet, scheduler) in models.items():
        for respace, timesteps in ((None, 100), (100, None), (25, None)):
            found = elbo(
                unet,
                scheduler,
                data.in_order("held_out", 50),
                num_images=arguments.images,
                bits=data.bits,
                timesteps=timesteps,
                respace=respace,
            )
            b = found.bits_per_dim
            figures = f"{b.total:>9.3f}{b.standard_error:>8.3f}{b.prior:>9.1e}{b.kl:>8.3f}{b.decoder:>9.3f}"
            print(f"{name:<24}{found.chain_length:>6}{figures}", flush=True)


if __name__ == "__main__":
    main()
