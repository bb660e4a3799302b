"""What each part of the recipe is worth: one lever at a time, at equal time on two cores.

    python benchmarks/levers.py train mnist --out levers/mnist base "min-SNR"    # some levers; all without names
    python benchmarks/levers.py train emoji --source data/emoji --out levers/emoji --workers 12
    python benchmarks/levers.py cost mnist --out levers/mnist                          # seconds a step, on this machine
    python benchmarks/levers.py table levers/mnist > benchmarks/levers.md

Each lever is trained with the parts of logsnr for the steps that it does in the time of the base's: `cost` measures
how long a step takes, the levers alternating, and `train` reads that. (Trained on a GPU, they still have the steps of
two cores.) Then: FID, KID, precision and recall of images drawn in 20 steps, by the network that `logsnr evaluate`
takes, at guidance 1 and unconditionally; the held-out error of each noise level; and, with --judge WEIGHTS (the
classifier of benchmarks/digits_recognised.py), the share of digits taken for the class asked for.

With --averages, averages of the weights of several lengths are looked at too.
"""

import argparse
import dataclasses
import json
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from digits_recognised import make_classifier
from recipes import DATA, Recipe, Training, features_of, reference
from safetensors.torch import load_file
from torch import Tensor, nn
from tqdm import tqdm

from logsnr.evaluation.distances import measure
from logsnr.objectives.held_out import LOG_SNR_EDGES, binned_means, errors_by_timestep
from logsnr.sampling.sample import Request, choose_device, choose_scheduler, draw
from logsnr.settings.objective import (
    EdmWeighting,
    MinSnrWeighting,
    P2Weighting,
    SigmoidWeighting,
    SimpleWeighting,
    SnrWeighting,
)
from logsnr.settings.options import SampleOptions

SAMPLES, STEPS = 1000, 20

LEVERS: dict[str, dict[str, Any]] = {
    "base": {},
    "base again": {"seed": 1},
    # the optimiser
    "adamw 1e-3": {"optimizer": "adamw", "learning_rate": 1e-3},
    "adamw 2e-3": {"optimizer": "adamw", "learning_rate": 2e-3},
    "adamw 4e-3": {"optimizer": "adamw", "learning_rate": 4e-3},
    "muon 1.2e-3": {"learning_rate": 1.2e-3},
    "muon 2.5e-3": {"learning_rate": 2.5e-3},
    "muon 1e-2": {"learning_rate": 1e-2},
    "muon 2e-2": {"learning_rate": 2e-2},
    "muon 1e-2, adamw 3e-3": {"learning_rate": 1e-2, "adam_rate": 3e-3},
    "beta2 .999": {"beta2": 0.999},
    "beta2 .95": {"beta2": 0.95},
    "weight decay 0": {"decay": 0.0},
    "weight decay .1": {"decay": 0.1},
    "no clipping": {"clip": 1e9},
    "linear to 0": {"annealing": "1.0"},
    "10 % dropped, 3.5e-3, linear to 0": {"dropped": 0.1, "learning_rate": 3.5e-3, "annealing": "1.0"},
    "10 % dropped, 3.5e-3, linear to 0, small pictures first, 50 %": {
        "dropped": 0.1,
        "learning_rate": 3.5e-3,
        "annealing": "1.0",
        "small": 0.5,
    },
    "muon 2.5e-3, linear to 0": {"learning_rate": 2.5e-3, "annealing": "1.0"},
    "constant, then down in 40 %": {"annealing": "0.4"},
    "constant, then down in 20 %": {"annealing": "0.2"},
    "batch 32": {"batch": 32, "learning_rate": 3.5e-3},
    "batch 16": {"batch": 16, "learning_rate": 2.5e-3},
    "batch 128": {"batch": 128, "learning_rate": 7e-3},
    # the loss
    "labels dropped 70 %": {"dropped": 0.7},
    "labels dropped 40 %": {"dropped": 0.4},
    "labels dropped 10 %": {"dropped": 0.1},
    "sigmoid, bias -2": {"weighting": SigmoidWeighting(-2.0)},
    "sigmoid, bias 2": {"weighting": SigmoidWeighting(2.0)},
    "sigmoid, bias 4": {"weighting": SigmoidWeighting(4.0)},
    "simple on v": {"weighting": SimpleWeighting()},
    "min-SNR": {"weighting": MinSnrWeighting()},
    "P2": {"weighting": P2Weighting()},
    "EDM": {"weighting": EdmWeighting()},
    "SNR": {"weighting": SnrWeighting()},
    "epsilon": {"target": "epsilon"},
    "sample": {"target": "sample"},
    "independent timesteps": {"independent": True},
    "noise assigned in the batch": {"immiscible": True},
    "sigmoid schedule": {"schedule": "sigmoid"},
    "linear schedule": {"schedule": "linear"},
    "shift -1": {"shift": -1.0},
    "shift 1": {"shift": 1.0},
    # the network
    "not begun at zero": {"zero": False},
    "two blocks a level": {"layers": 2},
    "channels 32, 64, 64": {"channels": (32, 64, 64)},
    "channels 24, 48, 64": {"channels": (24, 48, 64)},
    "channels 16, 64, 64": {"channels": (16, 64, 64)},
    "channels 16, 32, 128": {"channels": (16, 32, 128)},
    "channels 8, 48, 96": {"channels": (8, 48, 96)},
    "channels 16, 32, 48": {"channels": (16, 32, 48), "head": 48},
    "channels 8, 32, 64": {"channels": (8, 32, 64)},
    "channels 16, 24, 64": {"channels": (16, 24, 64)},
    "attention at 14": {"attention": (1, 2), "head": 32},
    "no attention": {"attention": ()},
    "heads of 16": {"head": 16},
    "time as scale and shift": {"time": "scale_shift"},
    "dropout .1": {"dropout": 0.1},
    "small pictures first, 30 %": {"small": 0.3},
    "small pictures first, 50 %": {"small": 0.5},
}
RGBA: dict[str, dict[str, Any]] = {
    "premultiplied": {"opaque": "premultiplied"},
    "weighted by opacity": {"opaque": "weighted"},
}


def recipe_of(data: str, lever: str) -> Recipe:
    base = Recipe(**DATA[data][0])
    return dataclasses.replace(base, **(LEVERS | RGBA)[lever])


def look(training: Training, data: str, judge: nn.Module | None, images_out: Path, averages: bool) -> dict[str, Any]:
    """Everything that is measured of each average of a trained network."""
    task, device = training.task, training.task.denoiser.device
    training.network.eval()
    training.network.zero_grad(set_to_none=True)
    extractor, real_features = reference(data, task.data, task.config.data, str(device))
    pipe = task.pipeline(training.network, task.objective.sampler)
    choose_scheduler(pipe, SampleOptions(steps=STEPS))
    classes = task.data.examples.class_names
    shown = np.array([int(each["class_labels"]) for each in task.data.conditions("train")] if classes else [])
    labels = np.random.default_rng(0).choice(shown, SAMPLES).tolist() if classes else []
    arguments = {"class_labels": [classes[i] for i in labels]} if classes else {}
    bar = tqdm(disable=True)
    found: dict[str, Any] = {"features": extractor.name, "features_hash": extractor.digest}

    def draws(guidance: float | None, count: int, shown: dict[str, Any]) -> Tensor:
        request = Request(STEPS, {} if guidance is None else {"guidance_scale": guidance}, 0.0, 250)
        made = draw(pipe, request, range(count), {k: v[:count] for k, v in shown.items()}, bar).clamp(0, 1)
        if training.recipe.opaque == "premultiplied":
            made[:, :3] = (made[:, :3] / made[:, 3:].clamp(min=1 / 255)).clamp(0, 1)
        return made

    def figures(made: Tensor, wanted: list[int] | None) -> dict[str, float]:
        figure = dataclasses.asdict(measure(features_of(extractor, made), real_features))
        if judge is not None:
            with torch.no_grad():
                chance = torch.cat([judge((x.to(device) - 0.1307) / 0.3081).softmax(1).cpu() for x in made.split(500)])
            figure["unsure"] = float((chance.max(1)[0] < 0.9).double().mean())
            if wanted:
                figure["right"] = float((chance.argmax(1) == torch.tensor(wanted)).double().mean())
        return figure

    for average in training.averages.kept if averages else ("0.999",):
        training.averages.use(average)
        with torch.random.fork_rng():
            errors, t = errors_by_timestep(task.objective, task.denoiser, task.data, "held_out", 2048)
        log_snr = task.schedule.log_snr(t.cpu())
        entry: dict[str, Any] = {"errors": binned_means(log_snr, errors.cpu()), "edges": LOG_SNR_EDGES}
        made = draws(1.0 if classes else None, SAMPLES, arguments)
        entry["plain"] = figures(made, labels)
        if average == "0.999":
            np.save(images_out, (made[:100] * 255).round().byte().numpy())
            if classes:
                entry["guided"] = figures(draws(2.0, SAMPLES // 2, arguments), labels[: SAMPLES // 2])
                entry["unconditional"] = figures(draws(None, SAMPLES, {}), None)
        found[average] = entry
    return found


def train_one(arguments: argparse.Namespace, lever: str) -> None:
    """Train and look, into OUT/LEVER.json."""
    torch.manual_seed(0)
    device = torch.device(choose_device())
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    recipe, costs = recipe_of(arguments.data, lever), json.loads((arguments.out / "cost.json").read_text())
    ratio = costs[lever] / costs["base"]
    steps = round(arguments.steps / ratio)
    training = Training(arguments.data, arguments.source, recipe, steps, device)
    judge = None
    if arguments.judge:
        judge = make_classifier().eval().to(device)
        judge.load_state_dict(load_file(arguments.judge))
    begun = time.perf_counter()
    for _ in tqdm(range(steps), lever, mininterval=10, disable=arguments.workers > 1):
        training.advance()
    losses = torch.stack(training.losses).tolist()
    seconds = time.perf_counter() - begun
    curve = [float(np.mean(losses[i : i + 50])) for i in range(0, steps, 50)]
    found = look(training, arguments.data, judge, arguments.out / f"{lever}.npy", arguments.averages)
    record = {"lever": lever, "steps": steps, "seconds": seconds, "cost": ratio, "losses": curve}
    record |= {"recipe": json.loads(json.dumps(dataclasses.asdict(recipe))), "found": found}
    record["parameters"] = sum(p.numel() for p in training.network.parameters())
    (arguments.out / f"{lever}.json").write_text(json.dumps(record, indent=1))
    entry = found["0.999"]
    print(f"{lever}: {steps} steps, {seconds:.0f} s, {json.dumps(entry)}", flush=True)


def train_all(arguments: argparse.Namespace) -> None:
    """Every lever that isn't there yet, some at once."""
    arguments.out.mkdir(parents=True, exist_ok=True)
    wanted = arguments.levers or [*LEVERS, *(RGBA if arguments.data == "emoji" else ())]
    waiting = [lever for lever in wanted if not (arguments.out / f"{lever}.json").exists()]
    if arguments.workers == 1:
        for lever in waiting:
            train_one(arguments, lever)
        return
    with ProcessPoolExecutor(arguments.workers, get_context("spawn")) as pool:
        begun = {pool.submit(train_one, arguments, lever): lever for lever in waiting}
        for future in as_completed(begun):
            if (error := future.exception()) is not None:
                print(f"{begun[future]} failed: {error!r}", flush=True)


def cost(arguments: argparse.Namespace) -> None:
    """Seconds a step of each lever, alternating; the least of the rounds."""
    arguments.out.mkdir(parents=True, exist_ok=True)
    device = torch.device(choose_device())
    levers = arguments.levers or [*LEVERS, *(RGBA if arguments.data == "emoji" else ())]
    same: dict[str, list[str]] = {}
    for lever in levers:  # of those whose step is the same in kind, one is measured
        recipe = recipe_of(arguments.data, lever)
        kind = (recipe.optimizer, recipe.batch, recipe.channels, recipe.layers, recipe.attention, recipe.head)
        kind += (recipe.time, recipe.dropout, recipe.immiscible, recipe.small, recipe.opaque)
        same.setdefault(repr(kind), []).append(lever)
    measured = {}
    trainings = {group[0]: None for group in same.values()}
    for lever in tqdm(trainings, "Getting ready"):
        trainings[lever] = Training(arguments.data, arguments.source, recipe_of(arguments.data, lever), 10**6, device)
        trainings[lever].advance()
    for _ in tqdm(range(arguments.rounds), "Rounds"):
        for lever, training in trainings.items():
            begun = time.perf_counter()
            training.advance()
            training.losses[-1].item()
            measured.setdefault(lever, []).append(time.perf_counter() - begun)
    seconds = {}
    for group in same.values():
        least = min(measured[group[0]])
        share = recipe_of(arguments.data, group[0]).small
        if share:  # its first steps are the small ones; the others are the base's
            least = share * least + (1 - share) * min(measured["base"])
        seconds |= dict.fromkeys(group, least)
    (arguments.out / "cost.json").write_text(json.dumps(seconds, indent=1))
    for lever, value in seconds.items():
        print(f"{lever:32} {value:.3f} s  {value / seconds['base']:.2f}")


def table(arguments: argparse.Namespace) -> None:
    """The levers as a table of Markdown, in the order of their figure."""
    records = [json.loads(path.read_text()) for path in sorted(arguments.folder.glob("*.json")) if path.stem != "cost"]
    records.sort(key=lambda record: record["found"]["0.999"]["plain"]["fid"])
    print("| lever | steps | FID | KID x 1000 | precision | recall | right | unsure | guided right | no class: FID |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for record in records:
        found = record["found"]["0.999"]
        plain, guided, none = found["plain"], found.get("guided", {}), found.get("unconditional", {})
        cells = [record["lever"], str(record["steps"]), f"{plain['fid']:.3g}", f"{1000 * plain['kid']:.3g}"]
        cells += [f"{plain['precision']:.3f}", f"{plain['recall']:.3f}"]
        cells += [f"{each:.1%}" if each is not None else "" for each in (plain.get("right"), plain.get("unsure"))]
        cells += [f"{guided['right']:.1%}" if "right" in guided else "", f"{none['fid']:.3g}" if none else ""]
        print("| " + " | ".join(cells) + " |")
    print("\nAverages of the weights, FID / precision by their length:\n")
    names = [name for name in records[0]["found"] if not name.startswith("features")]
    print("| lever | " + " | ".join(names) + " |\n|---|" + "---|" * len(names))
    for record in records:
        plain = [record["found"][name]["plain"] for name in names]
        print(f"| {record['lever']} | " + " | ".join(f"{p['fid']:.3g} / {p['precision']:.3f}" for p in plain) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    for name, function in (("train", train_all), ("cost", cost)):
        command = commands.add_parser(name)
        command.set_defaults(function=function)
        command.add_argument("data", choices=DATA)
        command.add_argument("levers", nargs="*")
        command.add_argument("--out", type=Path, required=True)
        command.add_argument("--source", help="the folder of the data, where they aren't bundled")
        command.add_argument("--steps", type=int, default=1700, help="of the base; the others' by their cost")
        command.add_argument("--workers", type=int, default=1, help="how many are trained at once")
        command.add_argument("--threads", type=int, default=0, help="of torch, each; 0 leaves them")
        command.add_argument("--judge", type=Path, help="weights of digits_recognised.py's classifier")
        command.add_argument("--averages", action="store_true", help="look at each average of the weights")
        command.add_argument("--rounds", type=int, default=12)
    command = commands.add_parser("table")
    command.set_defaults(function=table)
    command.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    arguments.function(arguments)


if __name__ == "__main__":
    main()
