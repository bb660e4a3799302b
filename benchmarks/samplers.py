"""How a model is best drawn from: samplers and numbers of steps by the figures of `logsnr evaluate`, as Markdown.

    python benchmarks/samplers.py runs/mnist > benchmarks/samplers.md

Each row is of 1,000 images at guidance 1 against the training images, by the network that `logsnr evaluate` takes;
with the time of drawing. What was drawn before is taken from the run folder, and its time is then empty.
"""

import argparse
import time
from pathlib import Path

from logsnr.evaluation.distribution import distribution, extractor_for
from logsnr.evaluation.subject import open_subject
from logsnr.settings.options import EvaluateOptions

SAMPLERS: dict[str, dict[str, float | str]] = {
    "the model's own, eta 0 (DDIM)": {"eta": 0.0},
    "the model's own, eta 0.5": {"eta": 0.5},
    "the model's own, eta 1 (DDPM)": {"eta": 1.0},
    "few-step, untuned": {"scheduler": "few-step"},
    "UniPC": {"scheduler": "UniPCMultistep"},
    "DPM-Solver++": {"scheduler": "DPMSolverMultistep"},
    "sde: DPM-Solver++ with noise, the default": {"scheduler": "sde"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--num", type=int, default=1000)
    parser.add_argument("--steps", type=int, nargs="+", default=(5, 10, 20, 50))
    arguments = parser.parse_args()
    subject = open_subject(arguments.run)
    extractor = extractor_for(subject, EvaluateOptions())
    print(f"Features: {extractor.name}, hash {extractor.digest}. {arguments.num} images.\n")
    print("| sampler | steps | FID | KID x 1000 | precision | recall | seconds |\n|---|---|---|---|---|---|---|")
    for steps in arguments.steps:
        for name, how in SAMPLERS.items():
            before = set((subject.folder).glob("samples-*"))
            begun = time.perf_counter()
            options = EvaluateOptions(num=arguments.num, steps=steps, batch_size=250, **how)  # type: ignore[arg-type]
            figures = distribution(subject, extractor, options).comparison.figures
            seconds = f"{time.perf_counter() - begun:.0f}" if set(subject.folder.glob("samples-*")) - before else ""
            cells = [name, str(steps), f"{figures.fid:.3f}", f"{1000 * figures.kid:.2f}", f"{figures.precision:.3f}"]
            print("| " + " | ".join([*cells, f"{figures.recall:.3f}", seconds]) + " |", flush=True)


if __name__ == "__main__":
    main()
