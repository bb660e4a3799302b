"""Restoration with one network, side by side: our methods and deepinv's, at equal cost.

    python benchmarks/restoration.py runs/mnist --peer deepinv/bin/python --out restored
    python benchmarks/restoration.py runs/tiles --peer deepinv/bin/python --out restored
    python benchmarks/restoration.py --table --out restored > benchmarks/restoration.md

The network is that of the run without a class, since deepinv passes none on. 32 held-out images, the seven tasks of
restoration_tasks.py, noise of .05 on [0, 1]; both sides get the same measurements and the same linear maps. Eight draws
of each measurement.

Cost is counted in evaluations of the network for each draw, a gradient through it as one more (it takes as long); each
side takes as many steps as the budget allows. PSNR and SSIM are those of the mean of the draws; `distance` is that of
one draw to the truth as the network of the data's FID sees it (the mean over draws and images, in units of the distance
between different truths). Milliseconds are of the processor, of one thread, of one draw, measured by --time, where the
sides take turns.

Each method runs at its defaults and, as `tuned`, with those of `SETTINGS` that had the best PSNR on eight other images,
chosen for each task and budget, on both sides.

The environment of --peer is described in deepinv_restoration.py, the tiles in pictures.py. Their model was made by

    logsnr train images-32 --data.source tiles --out runs/tiles --data.horizontal-flip --model.layers-per-block 1 \\
        --model.dropout 0 --train.optimizer muon --train.learning-rate 5e-3 --train.ema-decay 0.999 \\
        --objective.weighting.name sigmoid --train.num-steps 1800

What is there in --out already isn't made again: a run that was stopped goes on.

Tried where deepinv is ahead, on the digits at 50 evaluations and the tiles at 20, and not kept: a gradient of dps that
is weighed by the likelihood or that fades below the noise of the measurement, its clipped estimate, steps of first
order, other spacings, and of diffpir other shares of new noise and a first step of less noise, all within 0.2 dB or
worse; draws in pairs of opposite noise, whose mean is 0.1 to 0.2 dB nearer to the truth and whose spread says less. The
mean of eight exact draws is 10 log10(9/8) = 0.5 dB behind the mean of all, that of draws that vary too little isn't.
"""

import argparse
import itertools
import json
import math
import subprocess
import time
from pathlib import Path
from typing import Any

import torch
from restoration_tasks import NOISE_STD, TASKS, WORDS, Counter, make_operator
from safetensors.torch import load_file, save_file
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure
from tqdm import tqdm

from logsnr.base.files import write_atomically
from logsnr.evaluation.distances import kernel_distance
from logsnr.evaluation.extractors import FeatureExtractor, make_extractor
from logsnr.evaluation.subject import Subject, open_subject
from logsnr.pipelines import restoration_operators
from logsnr.pipelines.pipeline_restoration import RestorationPipeline

IMAGES, TUNED_ON, DRAWS, TUNING_DRAWS, BATCH = 32, 8, 8, 4, 64
BUDGETS = (20, 50, 100)
OURS = ("moment", "diffpir", "dps", "gibbs", "particles", "repaint")
PEERS = ("diffpir", "dps", "ddrm", "pigdm", "moment")
SETTINGS: dict[str, dict[str, list[dict[str, Any]]]] = {
    "ours": {
        "moment": [{"num_iterations": n} for n in (1, 2, 3, 5)],
        "diffpir": [{"zeta": z, "lambda_": v} for z in (0.3, 1.0) for v in (1.0, 3.0, 7.0)],
        "dps": [{"step_size": s} for s in (0.35, 0.7)],
        "gibbs": [{"num_inner_steps": 4}],
        "particles": [{"num_particles": 2, "num_iterations": n} for n in (2, 4)],
        "repaint": [{"num_resamples": 2}],
    },
    "peer": {
        "diffpir": [{"zeta": z, "lambda_": v} for z in (0.1, 0.3, 1.0) for v in (1.0, 3.0, 7.0)],
        "dps": [
            *({"weight": w, "guidance": "norm"} for w in (10.0, 30.0, 100.0, 300.0)),
            *({"weight": w, "guidance": "annealed"} for w in (0.3, 1.0)),
            *({"weight": w, "guidance": "annealed", "clip": False} for w in (0.3, 1.0)),
        ],
        "ddrm": [{"sigmas": s, "eta": e} for s in ("linear", "model") for e in (0.85, 1.0)],
        "pigdm": [{"weight": w, "clip": c} for w in (0.3, 1.0) for c in (True, False)],
        "moment": [{"weight": w, "clip": c} for w in (0.3, 1.0) for c in (True, False)],
    },
}
"""What is tried of each method, beside its defaults."""


def held_out(subject: Subject) -> Tensor:
    """All held-out images in [0, 1], in an order of their own: a source often comes by class."""
    images = torch.cat([batch.clean for batch in subject.data.in_order("held_out", 500)]) / 2 + 0.5
    return images[torch.randperm(len(images), generator=torch.Generator().manual_seed(0))]


def prepare(subject: Subject, folder: Path) -> None:
    """What both sides read: the network without classes, clean images, and a measurement of each for every task."""
    (folder / "cells").mkdir(parents=True, exist_ok=True)
    (folder / "draws").mkdir(exist_ok=True)
    if (folder / "facts.json").exists():
        return
    pipeline = subject.pipeline()
    stock = pipeline.to_stock() if pipeline.num_classes is not None else pipeline
    stock.unet.save_pretrained(folder / "unet")
    clean = held_out(subject)[: IMAGES + TUNED_ON]
    shape = tuple(clean.shape[1:])
    tensors = {"clean": clean, "alphas_cumprod": subject.schedule.alphas_cumprod.clone()}
    for task in TASKS:
        measured = make_operator(task, shape, restoration_operators).measure(clean, 1000)
        tensors |= {f"test.{task}": measured[:IMAGES].clone(), f"tuning.{task}": measured[IMAGES:].clone()}
    save_file(tensors, folder / "tasks.safetensors")
    prediction_type = subject.schedule.config["prediction_type"]
    facts = {"shape": shape, "prediction_type": prediction_type, "data": subject.data.description}
    write_atomically(folder / "facts.json", json.dumps(facts) + "\n")


class Judge:
    """Figures of draws, by the network that the data's FID is made with."""

    def __init__(self, subject: Subject, folder: Path) -> None:
        name = subject.task.parts.features(subject.data)
        self.extractor: FeatureExtractor = make_extractor(name, subject.data, subject.config.data, "cpu")
        clean = load_file(folder / "tasks.safetensors")["clean"]
        self.clean = {"test": clean[:IMAGES], "tuning": clean[IMAGES:]}
        self.seen = {split: self._features(images) for split, images in self.clean.items()}
        self.real = self._features(held_out(subject)[:250])
        truths = self._features(clean)
        self.scale = float(torch.pdist(truths).mean())

    def _features(self, images: Tensor) -> Tensor:
        return torch.cat([self.extractor(part.float()).features for part in images.split(64)]).double()

    def __call__(self, draws: Tensor, split: str, operator: Any, measurements: Tensor) -> dict[str, Any]:
        """draws: (images, draws, channels, height, width) in [0, 1]."""
        truth, draws = self.clean[split], draws.float()
        mean = draws.mean(1)
        psnr = -10 * (mean - truth).square().flatten(1).mean(1).log10()
        one = -10 * (draws - truth[:, None]).square().flatten(2).mean(2).log10()
        ssim = structural_similarity_index_measure(mean, truth, data_range=1.0, reduction="none")
        assert isinstance(ssim, Tensor)
        features = self._features(draws.flatten(0, 1))
        away = (features.unflatten(0, draws.shape[:2]) - self.seen[split][:, None]).norm(dim=2).mean(1) / self.scale
        residual = operator.apply(draws.flatten(0, 1)) - measurements.repeat_interleave(draws.shape[1], 0)
        used = residual.count_nonzero().clamp(min=1)  # of a mask the known pixels
        return {
            "psnr": float(psnr.mean()),
            "psnr_of_one": float(one.mean()),
            "ssim": float(ssim.mean()),
            "distance": float(away.mean()),
            "kid": kernel_distance(features, self.real),
            "fit": float((residual.square().sum() / used).sqrt() / NOISE_STD),
            "spread": float(draws.std(1).square().mean().sqrt()),
            "each": {"psnr": psnr.tolist(), "distance": away.tolist()},
        }


class OurSide:
    """RestorationPipeline on the network that the peer has."""

    def __init__(self, subject: Subject, folder: Path) -> None:
        unet = type(subject.pipeline().unet).from_pretrained(folder / "unet").eval().requires_grad_(False)
        self.counter = Counter(unet)
        self.pipe = RestorationPipeline(unet, subject.schedule)
        self.pipe.set_progress_bar_config(disable=True)
        self.kept = load_file(folder / "tasks.safetensors")

    def steps(self, method: str, budget: int, settings: dict[str, Any]) -> int:
        """As many as the budget allows; 0 where it doesn't allow two."""
        fitting = [n for n in range(2, budget + 1) if self.pipe.evaluations(method, n, settings) <= budget]
        return max(fitting, default=0)

    def answer(self, request: dict[str, Any]) -> dict[str, Any] | None:
        method, settings = request["method"], request["settings"]
        steps = self.steps(method, request["budget"], settings)
        measurements = self.kept[f"{request['split']}.{request['task']}"]
        operator = make_operator(request["task"], self.pipe.image_shape, restoration_operators)
        if steps == 0 or (method == "repaint" and operator.observed() is None):
            return None
        begun, begun_cpu = time.perf_counter(), time.process_time()
        images = self.pipe(
            measurements, operator, method=method, method_options=settings, num_samples=request["draws"],
            num_inference_steps=steps, generator=request["seed"], batch_size=BATCH, output_type="pt",
        ).images  # fmt: skip
        seconds, cpu = time.perf_counter() - begun, time.process_time() - begun_cpu
        save_file({"draws": images.clamp(0, 1).half().contiguous()}, request["out"])
        forward, backward = self.counter.take(len(measurements) * request["draws"])
        counts = {"steps": steps, "forward": forward, "backward": backward}
        return {"seconds": seconds, "cpu_seconds": cpu, **counts}


class PeerSide:
    """deepinv in a process of its environment, which lives as long as this one."""

    def __init__(self, python: str, folder: Path) -> None:
        script = Path(__file__).with_name("deepinv_restoration.py")
        command = [python, str(script), str(folder), str(restoration_operators.__file__)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.version = self._line()["deepinv"]

    def _line(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"The peer's process ended, with code {self.process.wait()}: see above.")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self.process.stdin is not None
        print(json.dumps(request), file=self.process.stdin, flush=True)
        return self._line()


class Bench:
    """Cells of a model: one for each task, side, method and budget, each a file."""

    def __init__(self, run: Path, out: Path, peer: str | None, ours: bool) -> None:
        self.folder = out / run.name
        subject = open_subject(run)
        prepare(subject, self.folder)
        self.judge = Judge(subject, self.folder)
        self.ours = OurSide(subject, self.folder) if ours else None
        self.peer = PeerSide(peer, self.folder) if peer else None
        self.kept = load_file(self.folder / "tasks.safetensors")

    def _side(self, name: str) -> Any:
        return self.ours if name == "ours" else self.peer

    def _measured(self, request: dict[str, Any]) -> dict[str, Any] | None:
        answer = self._side(request["side"]).answer(request)
        if answer is None:
            return None
        draws = load_file(request["out"])["draws"]
        operator = make_operator(request["task"], tuple(draws.shape[2:]), restoration_operators)
        measurements = self.kept[f"{request['split']}.{request['task']}"]
        found = self.judge(draws, request["split"], operator, measurements)
        pictures = draws.shape[0] * draws.shape[1]
        answer |= {"seconds": answer["seconds"] / pictures, "cpu_seconds": answer["cpu_seconds"] / pictures}
        return {**request, **answer, **found}

    def cell(self, task: str, side: str, method: str, budget: int, tuned: bool = False) -> None:
        """Measure, unless that has been done."""
        name = f"{task}.{budget}.{side}.{method}{'.tuned' if tuned else ''}"
        path = self.folder / "cells" / f"{name}.json"
        if path.exists() and not tuned:
            return
        settings: dict[str, Any] | None = self.best(task, side, method, budget) if tuned else {}
        if settings is None or (path.exists() and json.loads(path.read_text())["settings"] == settings):
            return
        request = {
            "task": task, "side": side, "method": method, "budget": budget, "tuned": tuned, "settings": settings,
            "split": "test", "draws": DRAWS, "seed": 1, "out": str(self.folder / "draws" / f"{name}.safetensors"),
        }  # fmt: skip
        if (found := self._measured(request)) is not None:
            if self.peer is not None and side == "peer":
                found["version"] = self.peer.version
            write_atomically(path, json.dumps(found, indent=1) + "\n")
            tqdm.write(f"{name}: PSNR {found['psnr']:.2f}, SSIM {found['ssim']:.3f}, distance {found['distance']:.3f}")

    def best(self, task: str, side: str, method: str, budget: int) -> dict[str, Any] | None:
        """The settings with the best PSNR of the mean on other images; None where none does the task at this cost."""
        path = self.folder / "cells" / f"{task}.{budget}.tuning.{side}.{method}.json"
        tried: list[dict[str, Any]] = json.loads(path.read_text()) if path.exists() else []
        for settings in ({}, *SETTINGS[side][method]):
            request = {
                "task": task, "side": side, "method": method, "budget": budget, "settings": settings,
                "split": "tuning", "draws": TUNING_DRAWS, "seed": 2, "out": str(self.folder / "tuning.safetensors"),
            }  # fmt: skip
            if settings in [each["settings"] for each in tried] or (found := self._measured(request)) is None:
                continue
            tried.append({key: found[key] for key in ("settings", "psnr", "distance")})
            write_atomically(path, json.dumps(tried, indent=1) + "\n")
        known = [each for each in tried if math.isfinite(each["psnr"])]
        best: dict[str, Any] | None = max(known, key=lambda each: each["psnr"], default={"settings": None})["settings"]
        return best

    def time(self, budgets: list[int], ours: list[str], peers: list[str], rounds: int = 3) -> None:
        """Seconds of the processor for a draw, in turns on one task with 64 draws; the least of the rounds."""
        path = self.folder / "seconds.json"
        known: dict[str, float] = json.loads(path.read_text()) if path.exists() else {}
        methods = [*(("ours", method) for method in ours), *(("peer", method) for method in peers)]
        for budget, _, (side, method) in itertools.product(budgets, range(rounds), methods):
            request = {
                "task": "gaussian", "side": side, "method": method, "budget": budget, "settings": {},
                "split": "tuning", "draws": DRAWS, "seed": 3, "out": str(self.folder / "timing.safetensors"),
            }  # fmt: skip
            answer = self._side(side).answer(request)
            if answer is not None:
                name, seconds = f"{side} {method} {budget}", answer["cpu_seconds"] / (TUNED_ON * DRAWS)
                known[name] = min(seconds, known.get(name, seconds))
        write_atomically(path, json.dumps(known, indent=1) + "\n")

    def run(self, budgets: list[int], tasks: list[str], ours: list[str], peers: list[str]) -> None:
        """All that is missing, budget by budget; the sides take turns."""
        mine, theirs = ([(m, tuned) for m in methods for tuned in (False, True)] for methods in (ours, peers))
        for budget, task in tqdm(list(itertools.product(budgets, tasks)), "Tasks"):
            for pair in itertools.zip_longest(mine, theirs):
                for side, chosen in zip(("ours", "peer"), pair, strict=True):
                    if chosen is not None and self._side(side) is not None:
                        self.cell(task, side, chosen[0], budget, chosen[1])


def label(cell: dict[str, Any]) -> str:
    method = f"{cell['method']}{', tuned' if cell['tuned'] else ''}"
    return f"**{method}**" if cell["side"] == "ours" else f"deepinv {method}"


def best_of(cells: list[dict[str, Any]], task: str, side: str, method: str | None, tuned: bool) -> tuple[float, float]:
    """The best PSNR and distance on a task, of one method or all (None), at defaults or with what was tuned too."""
    own = [c for c in cells if (c["task"], c["side"]) == (task, side) and method in (None, c["method"])]
    own = [c for c in own if tuned or not c["tuned"]]
    return max((c["psnr"] for c in own), default=math.nan), min((c["distance"] for c in own), default=math.nan)


def summary(cells: list[dict[str, Any]]) -> list[str]:
    """For each of our methods, and the best of all: on how many tasks it is ahead of the best of all of deepinv's."""
    lines = []
    methods = sorted({c["method"] for c in cells if c["side"] == "ours"}, key=OURS.index)
    for tuned, method in itertools.product((False, True), [*methods, None]):
        pairs = [(best_of(cells, t, "ours", method, tuned), best_of(cells, t, "peer", None, tuned)) for t in TASKS]
        pairs = [(mine, other) for mine, other in pairs if math.isfinite(mine[0]) and math.isfinite(other[0])]
        psnr, distance = [mine[0] > other[0] for mine, other in pairs], [mine[1] < other[1] for mine, other in pairs]
        both = sum(a and b for a, b in zip(psnr, distance, strict=True))
        who = "best of ours for each figure" if method is None else f"`{method}`"
        how = "Both sides tuned" if tuned else "At defaults"
        counts = f"in PSNR on {sum(psnr)}, in distance on {sum(distance)}, in both on {both} of {len(pairs)} tasks."
        lines.append(f"- {how}, {who}: {counts}")
    return lines


def chosen(folder: Path, cells: list[dict[str, Any]], task: str, side: str, budget: int) -> dict[str, Any] | None:
    """The cell of the method and the settings that had the best PSNR on the eight images that settings are tried on."""
    found = []
    for path in (folder / "cells").glob(f"{task}.{budget}.tuning.{side}.*.json"):
        best = max(each["psnr"] for each in json.loads(path.read_text()) if math.isfinite(each["psnr"]))
        found.append((best, path.name.split(".")[-2]))
    method = max(found, default=(0.0, ""))[1]
    own = [c for c in cells if (c["task"], c["side"], c["method"], c["tuned"]) == (task, side, method, True)]
    return own[0] if own else None


def duel(folder: Path, cells: list[dict[str, Any]], budget: int) -> list[str]:
    """A row a task: one method of each side, chosen on other images; differences by image, with standard errors."""
    lines = ["| task | ours | deepinv | PSNR, ours less deepinv's | distance |", "|---|---|---|---|---|"]
    for task in TASKS:
        mine, other = (chosen(folder, cells, task, side, budget) for side in ("ours", "peer"))
        if mine is not None and other is not None:
            columns = []
            for figure in ("psnr", "distance"):
                less = torch.tensor(mine["each"][figure]) - torch.tensor(other["each"][figure])
                columns.append(f"{float(less.mean()):+.3f} ± {float(less.std() / len(less) ** 0.5):.3f}")
            lines.append(f"| {task} | {mine['method']} | {other['method']} | " + " | ".join(columns) + " |")
    return lines


def rows(cells: list[dict[str, Any]], seconds: dict[str, float]) -> list[str]:
    """A table: methods down, tasks across; the best figures of a task are bold."""
    lines = ["| method | " + " | ".join(TASKS) + " | evaluations | ms |", "|---" * (len(TASKS) + 3) + "|"]
    best = {
        (task, figure): choose((c[figure] for c in cells if c["task"] == task), default=None)
        for task in TASKS
        for figure, choose in (("psnr", max), ("ssim", max), ("distance", min))
    }
    by_label: dict[str, dict[str, dict[str, Any]]] = {}
    for cell in cells:
        by_label.setdefault(label(cell), {})[cell["task"]] = cell
    for name, of_task in by_label.items():
        columns = []
        for task in TASKS:
            cell = of_task.get(task)
            figures = [] if cell is None else [("psnr", f"{cell['psnr']:.2f}"), ("ssim", f"{cell['ssim']:.3f}")]
            figures += [] if cell is None else [("distance", f"{cell['distance']:.3f}")]
            shown = [f"**{text}**" if cell and cell[f] == best[task, f] else text for f, text in figures]
            columns.append(" / ".join(shown) or "–")
        given = list(of_task.values())
        spent = sum(c["forward"] + c["backward"] for c in given) / len(given)
        timed = seconds.get("{side} {method} {budget}".format(**given[0]))
        milliseconds = "–" if timed is None else f"{1000 * timed:.0f}"
        lines.append(f"| {name} | " + " | ".join(columns) + f" | {spent:.0f} | {milliseconds} |")
    return lines


def table(out: Path) -> str:
    """Everything measured, as Markdown."""
    lines = ["# Restoration, side by side with deepinv", ""]
    for paragraph in (__doc__ or "").split("\n\n")[2:5]:
        lines += [paragraph, ""]
    lines += [f"- {task}: {WORDS[task]}" for task in TASKS]
    lines += [
        "",
        "In the cells: PSNR of the mean / SSIM of it / distance of a draw; evaluations and milliseconds of a draw.",
    ]
    for facts in sorted(out.glob("*/facts.json")):
        files = sorted((facts.parent / "cells").glob("*.json"))
        cells = [cell for file in files if ".tuning." not in file.name for cell in [json.loads(file.read_text())]]
        order = {"ours": OURS, "peer": PEERS}
        cells.sort(key=lambda c: (c["side"], order[c["side"]].index(c["method"]), c["tuned"]))
        lines += ["", f"## {facts.parent.name}", "", json.loads(facts.read_text())["data"] + "."]
        timed = facts.with_name("seconds.json")
        seconds = json.loads(timed.read_text()) if timed.exists() else {}
        for budget in sorted({cell["budget"] for cell in cells}):
            own = [cell for cell in cells if cell["budget"] == budget]
            lines += ["", f"### {budget} evaluations", "", *rows(own, seconds), "", "Ahead of all of deepinv's:", ""]
            lines += [*summary(own), "", "One method of each side and its settings, chosen on the eight images:", ""]
            lines += duel(facts.parent, own, budget)
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, nargs="?", help="a run folder")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--peer", help="python of an environment with deepinv")
    parser.add_argument("--budgets", type=int, nargs="+", default=BUDGETS)
    parser.add_argument("--tasks", nargs="+", default=TASKS, choices=TASKS)
    parser.add_argument("--ours", nargs="*", default=OURS, choices=OURS)
    parser.add_argument("--peers", nargs="*", default=PEERS[:3], choices=PEERS)
    parser.add_argument("--time", action="store_true", help="measure seconds alone")
    parser.add_argument("--table", action="store_true")
    arguments = parser.parse_args()
    if arguments.table:
        print(table(arguments.out))
        return
    if arguments.run is None:
        parser.error("give a run folder, or --table")
    torch.set_num_threads(1)
    bench = Bench(arguments.run, arguments.out, arguments.peer, bool(arguments.ours))
    if arguments.time:
        bench.time(arguments.budgets, arguments.ours, arguments.peers)
        return
    bench.run(arguments.budgets, arguments.tasks, arguments.ours, arguments.peers)


if __name__ == "__main__":
    main()
