"""How good is a model after so many seconds of training? Our recipe and others', on one machine.

    python benchmarks/time_to_quality.py mnist --out quality                             # bundled
    python benchmarks/time_to_quality.py fashion --source unpacked/usr/share/datasets/fashion-mnist --out quality
    python benchmarks/time_to_quality.py emoji --source data/emoji --out quality
    python benchmarks/time_to_quality.py tiles --source data/tiles --out quality
    python benchmarks/time_to_quality.py --table --out quality > benchmarks/time_to_quality.md

(`benchmarks/pictures.py` makes the folders.) Each training has --seconds on one core (taskset), ten minutes by default:
seconds that the processor worked for it, so that a busy machine changes little. Two run side by side. What is compared:

- ours: the recipe of the presets, with classes where there are; a run of its own for a tenth and for a third of the
  seconds; and without classes;
- before: the preset as it was before Muon (AdamW 2e-3, the same weights and schedule);
- diffusers: the recipe of its train_unconditional.py on our network: linear betas, epsilon, the plain loss, AdamW with
  betas .95 and .999, batches of 16, 500 steps of warm-up, half a cosine, its average of the weights; at its own
  learning rate, 1e-4, and at three others;
- denoising-diffusion-pytorch: its own Trainer and U-Net (within 10 % of ours in operations), at its own learning rate,
  1e-4, and at three others; with --peer PYTHON, the interpreter of an environment that has it.

KID, FID, precision and recall of 1,000 images against the training images, by one network, whose hash is in the table.
All are drawn in the same way, 20 steps of what `logsnr sample` takes (stock DPM-Solver++ with noise), so that what is
compared is the training. The bound in bits per dimension is of 100 held-out images.
What is there in --out already isn't trained again.
"""

import argparse
import dataclasses
import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue
from typing import Any

import numpy as np
import torch
from diffusers.training_utils import EMAModel
from PIL import Image
from recipes import DATA, Recipe, Training, config_of, features_of, reference
from torch import nn
from tqdm import tqdm

from logsnr.data.images import open_images
from logsnr.evaluation.distances import measure
from logsnr.evaluation.extractors import Features
from logsnr.evaluation.likelihood import elbo
from logsnr.sampling.sample import Request, choose_scheduler, draw
from logsnr.settings.objective import SimpleWeighting
from logsnr.settings.options import SampleOptions

SAMPLES, STEPS = 1000, 20
MARKS = (0.05, 0.1, 0.2, 1 / 3, 0.5, 0.75)
"""Shares of the time at which a training is looked at, on 500 images."""
RATES = ("1e-4", "3e-4", "1e-3", "3e-3")
OURS = Recipe()
BEFORE = Recipe(optimizer="adamw", learning_rate=2e-3, dropped=0.7, zero=False)
DIFFUSERS = Recipe(
    optimizer="adamw", beta1=0.95, beta2=0.999, decay=1e-6, warm_up=500, batch=16, classes=False, zero=False,
    weighting=SimpleWeighting(), schedule="linear", target="epsilon",
)  # fmt: skip
RECIPES: dict[str, tuple[Recipe, float]] = {
    "ours": (OURS, 1.0),
    "ours, a tenth of the time": (OURS, 0.1),
    "ours, a third of the time": (OURS, 1 / 3),
    "ours, without classes": (dataclasses.replace(OURS, classes=False), 1.0),
    "before": (BEFORE, 1.0),
    **{f"diffusers {rate}": (dataclasses.replace(DIFFUSERS, learning_rate=float(rate)), 1.0) for rate in RATES},
}
PEER = "denoising-diffusion-pytorch"
PEERS = {f"{PEER} {rate}": float(rate) for rate in RATES}
DIM = {1: 12, 3: 12, 4: 12}


class TheirAverage:
    """EMAModel as train_unconditional.py sets it, called as `recipes.Averages`."""

    def __init__(self, network: nn.Module) -> None:
        self.parameters = list(network.parameters())
        self.ema = EMAModel(self.parameters, decay=0.9999, use_ema_warmup=True, inv_gamma=1.0, power=0.75)

    def step(self) -> None:
        self.ema.step(self.parameters)

    def use(self, _: str) -> None:
        self.ema.copy_to(self.parameters)


def settings(data: str) -> dict[str, Any]:
    """What of a recipe depends on the set: whether its pictures are mirrored. The network is one for all."""
    return {"flip": DATA[data][0].get("flip", False)}


def train(data: str, source: str | None, name: str, seconds: float, out: Path) -> None:
    """Train by one recipe for its share of the seconds, and look at it on the way."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    recipe, share = RECIPES[name]
    recipe = dataclasses.replace(recipe, **settings(data))
    seconds *= share
    pace = _pace(data, source, recipe)
    training = Training(data, source, recipe, round(seconds / pace), torch.device("cpu"))
    if name.startswith("diffusers"):
        training.averages = TheirAverage(training.network)  # type: ignore[assignment]
    extractor, real = reference(data, training.task.data, training.task.config.data, "cpu")
    marks = [round(mark * training.steps) for mark in MARKS] if name in ("ours", "before", "diffusers 1e-4") else []
    clock, curve = 0.0, []
    for _ in tqdm(range(training.steps), name, mininterval=10):
        begun = time.process_time()
        training.advance()
        clock += time.process_time() - begun
        if training.step in marks:
            figures = look(training, extractor, real, SAMPLES // 2)
            curve.append({"seconds": clock, "images": training.step * recipe.batch, **figures})
    record = {"data": data, "name": name, "steps": training.steps, "seconds": clock, "batch": recipe.batch}
    record["parameters"] = sum(p.numel() for p in training.network.parameters())
    figures = look(training, extractor, real, SAMPLES, out.with_suffix(".npy"))
    training.averages.use("0.999")
    bits = elbo(
        training.task.denoiser, training.task.data.in_order("held_out", 50), num_images=100, bits=8, timesteps=25
    )
    figures |= {"bits": bits.bits_per_dim.total, "bits_error": bits.bits_per_dim.standard_error}
    curve.append({"seconds": clock, "images": training.steps * recipe.batch, **figures})
    record |= {"features": extractor.name, "features_hash": extractor.digest, "curve": curve}
    out.write_text(json.dumps(record, indent=1))


def _pace(data: str, source: str | None, recipe: Recipe) -> float:
    """Seconds a step, in a training of its own."""
    trial, spans = Training(data, source, recipe, 1000, torch.device("cpu")), []
    for _ in range(25):
        begun = time.process_time()
        trial.advance()
        spans.append(time.process_time() - begun)
    return float(np.mean(spans[5:]))


def look(training: Training, extractor: Any, real: Features, count: int, kept: Path | None = None) -> dict[str, float]:
    """Figures of images drawn with the averaged weights; the trained ones come back."""
    task, network = training.task, training.network
    before = [p.detach().clone() for p in network.parameters()]
    training.averages.use("0.999")
    network.eval()
    pipe = task.pipeline(network, task.objective.sampler)
    choose_scheduler(pipe, SampleOptions(steps=STEPS))
    classes, arguments = task.data.examples.class_names, {}
    if training.labels is not None:
        shown = np.array([int(each["class_labels"]) for each in task.data.conditions("train")])
        arguments = {"class_labels": [classes[i] for i in np.random.default_rng(0).choice(shown, count)]}
    made = draw(pipe, Request(STEPS, {}, 0.0, 100), range(count), arguments, tqdm(disable=True)).clamp(0, 1)
    figures = dataclasses.asdict(measure(features_of(extractor, made), real))
    if kept is not None:
        np.save(kept, (made * 255).round().byte().numpy())
    with torch.no_grad():
        torch._foreach_copy_(list(network.parameters()), before)
    network.train()
    return figures


def peer(data: str, source: str | None, name: str, seconds: float, out: Path, python: str) -> None:
    """The Trainer of denoising-diffusion-pytorch on the same training images, as files."""
    torch.set_num_threads(1)
    config, channels = config_of(data, source, OURS, 1).data, DATA[data][1]["channels"]
    images = open_images(config)
    folder, size = out.parent / f"{data}-files", DATA[data][1]["resolution"]
    if not folder.exists():
        folder.mkdir()
        for batch in images.in_order("train", 500):
            arrays = ((batch.clean / 2 + 0.5) * 255).round().byte().permute(0, 2, 3, 1).numpy()
            for place, array in zip(batch.positions.tolist(), arrays, strict=True):
                Image.fromarray(array.squeeze()).save(folder / f"{place:06}.png")
    script = Path(__file__).with_name("denoising_diffusion_pytorch_trainer.py")
    command = [python, str(script), str(folder), str(out.with_suffix(".npy")), "--seconds", str(seconds)]
    command += [
        "--rate",
        str(PEERS[name]),
        "--channels",
        str(channels),
        "--size",
        str(size),
        "--dim",
        str(DIM[channels]),
    ]
    subprocess.run([*command, *(["--flip"] if settings(data)["flip"] else [])], check=True)
    record = json.loads(out.with_suffix(".record").read_text())
    made = torch.from_numpy(np.load(out.with_suffix(".npy"))).float() / 255
    extractor, real = reference(data, images, config, "cpu")
    figures = dataclasses.asdict(measure(features_of(extractor, made), real))
    curve = [{"seconds": record["seconds"], "images": record["steps"] * record["batch"], **figures}]
    record |= {
        "data": data,
        "name": name,
        "features": extractor.name,
        "features_hash": extractor.digest,
        "curve": curve,
    }
    out.write_text(json.dumps(record, indent=1))


def run_all(arguments: argparse.Namespace) -> None:
    """All that isn't there, two at a time, each on a core of its own."""
    arguments.out.mkdir(parents=True, exist_ok=True)
    cores: Queue[int] = Queue()
    for core in range(arguments.cores):
        cores.put(core)

    def one(name: str) -> None:
        core = cores.get()
        command = ["taskset", "-c", str(core), sys.executable, __file__, arguments.data, "--only", name]
        command += ["--out", str(arguments.out), "--seconds", str(arguments.seconds)]
        command += ["--source", arguments.source] if arguments.source else []
        command += ["--peer", arguments.peer] if arguments.peer else []
        with (arguments.out / f"{arguments.data} {name}.log").open("wb") as log:
            code = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT).returncode
        print(f"{arguments.data}, {name}: {'done' if code == 0 else f'failed ({code}), see its log'}", flush=True)
        cores.put(core)

    names = [*RECIPES, *(PEERS if arguments.peer else ())]
    missing = [name for name in names if not (arguments.out / f"{arguments.data} {name}.json").exists()]
    with ThreadPoolExecutor(arguments.cores) as pool:
        list(pool.map(one, missing))


def table(out: Path) -> None:
    """All results as Markdown."""
    records = [json.loads(path.read_text()) for path in sorted(out.glob("*.json"))]
    for data in DATA:
        own = [record for record in records if record["data"] == data]
        if not own:
            continue
        print(f"## {data}\n\nFeatures: {own[0]['features']}, hash {own[0]['features_hash']}.\n")
        print("| recipe | seconds | steps | images | KID x 1000 | FID | precision | recall | bits per dimension |")
        print("|---|---|---|---|---|---|---|---|---|")
        order = [*RECIPES, *PEERS]
        for record in sorted(own, key=lambda record: order.index(record["name"])):
            last = record["curve"][-1]
            bits = f"{last['bits']:.3f} ± {last['bits_error']:.3f}" if "bits" in last else ""
            cells = [record["name"], f"{record['seconds']:.0f}", str(record["steps"]), str(last["images"])]
            cells += [f"{1000 * last['kid']:.3g}", f"{last['fid']:.3g}", f"{last['precision']:.3f}"]
            print("| " + " | ".join([*cells, f"{last['recall']:.3f}", bits]) + " |")
        print("\nKID x 1000 on the way, of 500 images:\n")
        for record in own:
            if len(record["curve"]) > 1:
                points = ", ".join(f"{1000 * each['kid']:.3g} at {each['seconds']:.0f} s" for each in record["curve"])
                print(f"- {record['name']}: {points}")
        print()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", choices=DATA)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--source", help="the folder of the data, where they aren't bundled")
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--peer", help="python of an environment with denoising-diffusion-pytorch")
    parser.add_argument("--only", help="one recipe, in this process")
    parser.add_argument("--table", action="store_true")
    arguments = parser.parse_args()
    if arguments.table:
        table(arguments.out)
    elif arguments.only:
        out, given = arguments.out / f"{arguments.data} {arguments.only}.json", (arguments.data, arguments.source)
        if arguments.only in PEERS:
            peer(*given, arguments.only, arguments.seconds, out, arguments.peer)
        else:
            train(*given, arguments.only, arguments.seconds, out)
    else:
        run_all(arguments)


if __name__ == "__main__":
    main()
