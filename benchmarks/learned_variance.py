"""Does a learned variance pay? The bound of models of the same digits, with the same network and the same budget.

    python benchmarks/learned_variance.py [--steps 1500]

Trains the network of the preset mnist on mnist-5k, without classes and on the noise, three times from the same seed:
with DDPM's simple loss, whose network is measured with both fixed variances; with the hybrid loss, the same but for the
term that trains the variance; and with the bound itself. Measures the bound on the same held-out digits, noise and
steps, for the whole chain and for chains respaced to 100 and 25 of its steps (Nichol and Dhariwal, 2102.09672, tables 1
and 2, figure 8), and writes the table beside this file. About 5 minutes a training and 5 for the figures on a CPU core.
To go on after an interruption, run the same command again.
"""

import argparse
import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import logsnr
from logsnr.base.files import write_atomically
from logsnr.data.images import ImageData, open_images
from logsnr.evaluation.likelihood import elbo
from logsnr.settings.image import DataConfig

_LEARNED = ["--schedule.variance-type", "learned_range"]
LOSSES = {
    "simple": ["--objective.weighting.name", "simple"],
    "hybrid": ["--objective.name", "hybrid", "--objective.weighting.name", "simple", *_LEARNED],
    "vlb": ["--objective.name", "vlb", *_LEARNED],
}
MODELS = [("simple", "fixed_small"), ("simple", "fixed_large"), ("hybrid", "learned_range"), ("vlb", "learned_range")]
CHAINS = [(1000, 100), (100, 99), (25, 24)]
"""K, and the KL divergences that are evaluated for an image."""
TABLE = Path(__file__).with_suffix(".md")


def train(loss: str, run: Path, steps: int) -> Any:
    arguments = [
        *("train", "mnist", "--out", str(run), *LOSSES[loss], "--schedule.prediction-type", "epsilon"),
        *("--condition.name", "none", "--train.num-steps", str(steps), "--train.learning-rate", "1e-3"),
        *("--train.checkpoint-every", "100", "--train.sample-every", "0", "--train.tracker", "none"),
    ]
    if subprocess.run([sys.executable, "-m", "logsnr", *arguments], check=False).returncode:
        sys.exit("The training stopped; the same command goes on with it.")
    return logsnr.load(run)


def measure(pipeline: Any, variance: str, data: ImageData, images: int, chain: int, evaluations: int) -> dict[str, Any]:
    """The fields of `logsnr.evaluation.likelihood.Elbo`."""
    scheduler = type(pipeline.scheduler).from_config(pipeline.scheduler.config, variance_type=variance)
    found = elbo(
        pipeline.unet,
        scheduler,
        data.in_order("held_out", 50),
        num_images=images,
        bits=data.examples.bits,
        timesteps=evaluations,
        respace=chain,
    )
    return dataclasses.asdict(found)


def table(figures: dict[str, Any], steps: int, images: int) -> str:
    lines = [
        "# A learned variance against the fixed ones",
        "",
        f"The variational bound of {images} held-out digits of mnist-5k in bits per dimension, ± its standard error,",
        f"by the length K of the chain. {steps} steps of training, 64 digits each, from the same seed. Made by",
        "",
        f"    python benchmarks/learned_variance.py --steps {steps} --images {images}",
        "",
        "| loss | variance | K | bound | prior | KL | decoder |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for loss, variance in MODELS:
        for chain, _ in CHAINS:
            bits = figures[f"{loss}, {variance}, {chain}"]["bits_per_dim"]
            error = bits["standard_error"]
            lines.append(
                f"| {loss} | {variance} | {chain} | {bits['total']:.3f} ± {error:.3f} | {bits['prior']:.1e} | "
                f"{bits['kl']:.3f} | {bits['decoder']:.3f} |"
            )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1500, help="of training, 64 digits each")
    parser.add_argument("--images", type=int, default=250, help="held-out digits to measure")
    parser.add_argument("--runs", type=Path, default=Path("runs/learned_variance"))
    parser.add_argument("--out", type=Path, default=TABLE, help="the table")
    arguments = parser.parse_args()
    data = open_images(DataConfig(), labelled=False)
    pipelines = {loss: train(loss, arguments.runs / loss, arguments.steps) for loss in LOSSES}
    kept = arguments.runs / f"figures-{arguments.images}.json"
    figures: dict[str, Any] = json.loads(kept.read_text()) if kept.exists() else {}
    for loss, variance in MODELS:
        for chain, evaluations in CHAINS:
            name = f"{loss}, {variance}, {chain}"
            if name not in figures:
                print(f"Measuring {name}", flush=True)
                figures[name] = measure(pipelines[loss], variance, data, arguments.images, chain, evaluations)
                write_atomically(kept, json.dumps(figures, indent=2) + "\n")
    text = table(figures, arguments.steps, arguments.images)
    write_atomically(arguments.out, text)
    print(text)


if __name__ == "__main__":
    main()
