"""What each part of the recipe is worth: one lever at a time, at equal time on two cores.

    python benchmarks/levers.py train mnist --out levers/mnist base "min-SNR"    # some levers; all without names
    python benchmarks/levers.py train emoji --source data/emoji --out levers/emoji --workers 12
    python benchmarks/levers.py cost mnist --out levers/mnist                          # seconds a step, on this machine
    python benchmarks/levers.py table levers/mnist > benchmarks/levers_mnist.md

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
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from digits_recognised import make_classifier
from safetensors.torch import load_file
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from logsnr.evaluation.distances import measure
from logsnr.evaluation.extractors import Features, make_extractor
from logsnr.objectives.held_out import LOG_SNR_EDGES, binned_means, errors_by_timestep
from logsnr.objectives.targets import target
from logsnr.objectives.timesteps import draw_timesteps
from logsnr.sampling.sample import Request, choose_device, choose_scheduler, draw
from logsnr.settings.condition import ClassLabelConfig, NoConditionConfig
from logsnr.settings.image import DataConfig, ModelConfig
from logsnr.settings.objective import (
    EdmWeighting,
    MinSnrWeighting,
    P2Weighting,
    SigmoidWeighting,
    SimpleWeighting,
    SnrWeighting,
    WeightedConfig,
    WeightingConfig,
)
from logsnr.settings.options import SampleOptions
from logsnr.settings.run import RunConfig, TrainConfig
from logsnr.settings.schedule import ScheduleConfig
from logsnr.tasks.task import open_task
from logsnr.training.optimizers import make_optimizers
from logsnr.training.train import learning_rate

SAMPLES, STEPS = 1000, 20
LENGTHS = (0.03, 0.07, 0.15)
"""Averages of the weights with this standard deviation, as a share of training (Karras et al. 2023, 2312.02696)."""


@dataclass(frozen=True)
class Recipe:
    """How a network is made and trained: a lever changes some of it."""

    optimizer: str = "muon"
    learning_rate: float = 5e-3
    adam_rate: float | None = None  # of what Muon leaves; that of Muon when None
    beta1: float = 0.9  # of AdamW alone
    beta2: float = 0.99
    decay: float = 0.01
    clip: float = 1.0
    warm_up: int = 50
    annealing: str = "cosine"  # or the share of steps at the end in which the rate falls linearly
    batch: int = 64
    classes: bool = True
    dropped: float = 0.2
    weighting: WeightingConfig = dataclasses.field(default_factory=SigmoidWeighting)
    schedule: str = "cosine"
    shift: float = 0.0
    target: str = "v_prediction"
    channels: tuple[int, ...] = (16, 32, 64)
    layers: int = 1
    attention: tuple[int, ...] = (2,)
    head: int = 64
    groups: int = 8
    time: str = "default"
    dropout: float = 0.0
    zero: bool = True  # as networks begin
    flip: bool = False
    immiscible: bool = False
    independent: bool = False  # timesteps drawn independently, not as an even cover
    small: float = 0.0  # share of the steps at the beginning that are at half the resolution
    opaque: str = "no"  # RGBA: "premultiplied", or "weighted" by opacity
    seed: int = 0


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
DATA = {
    "mnist": ({}, {"source": "mnist-5k", "resolution": 28, "channels": 1}),
    "fashion": ({"flip": True}, {"resolution": 28, "channels": 1}),
    "emoji": ({"channels": (32, 64, 96), "head": 32}, {"resolution": 32, "channels": 4}),
    "tiles": ({"channels": (32, 64, 96), "head": 32, "flip": True}, {"resolution": 32, "channels": 3}),
}


def recipe_of(data: str, lever: str) -> Recipe:
    base = Recipe(**DATA[data][0])
    return dataclasses.replace(base, **(LEVERS | RGBA)[lever])


def config_of(data: str, source: str | None, recipe: Recipe, steps: int) -> RunConfig:
    where = DATA[data][1] | ({"source": source} if source else {})
    return RunConfig(
        data=DataConfig(**where, horizontal_flip=recipe.flip),
        schedule=ScheduleConfig(recipe.schedule, prediction_type=recipe.target, shift=recipe.shift),
        model=ModelConfig(
            block_out_channels=recipe.channels,
            layers_per_block=recipe.layers,
            attention_levels=recipe.attention,
            attention_head_dim=recipe.head,
            norm_num_groups=recipe.groups,
            resnet_time_scale_shift=recipe.time,
            dropout=recipe.dropout,
        ),
        objective=WeightedConfig(recipe.weighting),
        condition=ClassLabelConfig(dropout=recipe.dropped) if recipe.classes else NoConditionConfig(),
        train=TrainConfig(
            num_steps=steps,
            batch_size=recipe.batch,
            optimizer=recipe.optimizer,
            learning_rate=recipe.learning_rate,
            lr_warmup_steps=recipe.warm_up,
            weight_decay=recipe.decay,
            adam_beta2=recipe.beta2,
            seed=recipe.seed,
        ),
    )


def straight(recipe: Recipe, step: int, steps: int) -> float:
    """The share of the peak rate: constant, and a straight line to 0 in the last `annealing` of the steps."""
    warm = min(1.0, (step + 1) / max(1, recipe.warm_up))
    return warm * min(1.0, (steps - step) / (steps * float(recipe.annealing)))


def exponent(length: float) -> float:
    """gamma of the average whose profile t^gamma has that standard deviation (2312.02696, eq. 126)."""
    roots = np.roots([1, 7, 16 - length**-2, 12 - length**-2])
    return float(roots[np.isreal(roots) & (roots.real >= 0)].real.max())


class Averages:
    """The present average, and those by power functions, of a network's parameters."""

    def __init__(self, network: nn.Module) -> None:
        self.parameters = [p for p in network.parameters() if p.requires_grad]
        self.kept = {name: [p.detach().clone() for p in self.parameters] for name in ("0.999", *map(str, LENGTHS))}
        self.exponents = {str(length): exponent(length) for length in LENGTHS}
        self.count = 0

    @torch.no_grad()
    def step(self) -> None:
        self.count += 1
        for name, kept in self.kept.items():
            share = 1 - min(0.999, self.count / (9 + self.count))
            if name != "0.999":
                share = 1 - (1 - 1 / self.count) ** (self.exponents[name] + 1)
            torch._foreach_lerp_(kept, self.parameters, share)

    @torch.no_grad()
    def use(self, name: str) -> None:
        torch._foreach_copy_(self.parameters, self.kept[name])


class Training:
    """A recipe under way, step by step, on pictures that are all on the device; on a GPU the step is a CUDA graph."""

    def __init__(self, data: str, source: str | None, recipe: Recipe, steps: int, device: torch.device) -> None:
        self.recipe, self.steps, self.step = recipe, steps, 0
        self.task = open_task(config_of(data, source, recipe, steps), device=device)
        self.network = self.task.network.train()
        if not recipe.zero:
            for module in self.network.modules():
                if isinstance(module, nn.Conv2d) and not module.weight.any():
                    module.reset_parameters()
        self.optimizers = make_optimizers(self.network, self.task.config.train)
        self.optimizers[0].param_groups[0]["betas"] = (recipe.beta1, recipe.beta2)
        self.averages = Averages(self.network)
        self.losses: list[Tensor] = []
        self.graph: Any = None

        parts = list(self.task.data.in_order("train", 1000))
        self.clean = torch.cat([part.clean for part in parts]).to(device)
        if recipe.opaque == "premultiplied":
            self.clean[:, :3] = (self.clean[:, :3] / 2 + 0.5) * (self.clean[:, 3:] / 2 + 0.5) * 2 - 1
        self.labels = torch.cat([part.condition["class_labels"] for part in parts]) if parts[0].condition else None
        self.generator = torch.Generator().manual_seed(recipe.seed)
        self.noises = torch.Generator(device).manual_seed(recipe.seed)
        count = min(steps, 20_000) * recipe.batch
        epochs = -(-count // len(self.clean))
        self.order = torch.cat([torch.randperm(len(self.clean), generator=self.generator) for _ in range(epochs)])
        schedule = self.task.schedule
        t = torch.from_numpy(draw_timesteps(recipe.seed, np.arange(count), len(schedule)))
        if recipe.independent:
            t = torch.randint(len(schedule), t.shape, generator=self.generator)
        self.t = t.to(device)
        if self.labels is not None:
            classes = len(self.task.data.examples.class_names)
            dropped = torch.rand(count, generator=self.generator) < recipe.dropped
            self.labels = torch.where(dropped, classes, self.labels[self.order[:count]]).to(device)
        self.order = self.order.to(device)

    def inputs(self) -> list[Tensor]:
        """x_t, t, the class, what is to be said and how its error is weighted, and the weight of its noise level."""
        recipe, schedule, weights = self.recipe, self.task.schedule, self.task.objective.weights
        rows = slice(self.step * recipe.batch, (self.step + 1) * recipe.batch)
        clean, t = self.clean[self.order[rows]], self.t[rows]
        if recipe.flip:
            mirrored = torch.rand(len(clean), generator=self.generator).lt(0.5).to(clean.device)
            clean = torch.where(mirrored[:, None, None, None], clean.flip(3), clean)
        if self.step < recipe.small * self.steps:  # of 28 pixels 16: half of them can't be halved twice
            side = -(-clean.shape[-1] // 2 // 4) * 4
            clean = functional.interpolate(clean, (side, side), mode="area")
        noise = torch.randn(clean.shape, generator=self.noises, device=clean.device)
        if recipe.immiscible:
            distances = torch.cdist(clean.flatten(1), noise.flatten(1)).square().cpu().numpy()
            noise = noise[torch.from_numpy(linear_sum_assignment(distances)[1]).to(clean.device)]
        root = torch.ones_like(clean)
        if recipe.opaque == "weighted":
            root[:, :3] = (clean[:, 3:] / 2 + 0.5).clamp(min=0.05).sqrt()
        labels = torch.zeros_like(t) if self.labels is None else self.labels[rows]
        wanted = target(schedule, clean, noise, t) * root
        return [schedule.add_noise(clean, noise, t), t, labels, wanted, root, weights[t]]

    def backward(self, x_t: Tensor, t: Tensor, labels: Tensor, wanted: Tensor, root: Tensor, weights: Tensor) -> Tensor:
        """The loss, its gradients left in the parameters."""
        condition = {} if self.labels is None else {"class_labels": labels}
        output, _ = self.task.denoiser(x_t, t, condition)
        loss = ((output * root - wanted).square().flatten(1).mean(1) * weights).mean()
        loss.backward()
        return loss.detach()

    def replay(self, inputs: list[Tensor]) -> Tensor:
        """`backward` by a CUDA graph, captured at the first batch of a shape."""
        if self.graph is None or self.static[0].shape != inputs[0].shape:
            self.static = [x.clone() for x in inputs]
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(3):
                    self.network.zero_grad(set_to_none=True)
                    self.backward(*self.static)
            torch.cuda.current_stream().wait_stream(stream)
            self.network.zero_grad(set_to_none=True)
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph):
                self.loss = self.backward(*self.static)
        torch._foreach_copy_(self.static, inputs)
        self.graph.replay()
        return self.loss.clone()

    def advance(self) -> None:
        peak = self.recipe.learning_rate
        factor = learning_rate(self.task.config, self.step) / peak
        if self.recipe.annealing != "cosine":
            factor = straight(self.recipe, self.step, self.steps)
        for optimizer in self.optimizers:
            own = peak if type(optimizer).__name__ == "Muon" else self.recipe.adam_rate or peak
            for group in optimizer.param_groups:
                group["lr"] = own * factor
        inputs = self.inputs()
        if inputs[0].is_cuda:
            loss = self.replay(inputs)
        else:
            self.network.zero_grad(set_to_none=True)
            loss = self.backward(*inputs)
        nn.utils.clip_grad_norm_(self.network.parameters(), self.recipe.clip)
        for optimizer in self.optimizers:
            optimizer.step()
        self.averages.step()
        self.losses.append(loss)
        self.step += 1


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
        request = Request(STEPS, guidance, 0.0, 250)
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


def reference(name: str, data: Any, config: DataConfig, device: str) -> tuple[Any, Features]:
    """The network that sees pictures of this set, and what it says of the training pictures, in no order."""
    extractor = make_extractor(
        "classifier" if name in ("mnist", "fashion") else "efficientnet-lite0", data, config, device
    )
    real = torch.cat([batch.clean / 2 + 0.5 for batch in data.in_order("train", 500, 5000)])
    order = torch.randperm(len(real), generator=torch.Generator().manual_seed(0))  # a source often comes in some order
    return extractor, features_of(extractor, real[order])


def features_of(extractor: Any, images: Tensor) -> Features:
    parts = [extractor(part) for part in images.split(100)]
    logits = torch.cat([part.logits for part in parts]) if parts[0].logits is not None else None
    return Features(torch.cat([part.features for part in parts]), logits)


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
