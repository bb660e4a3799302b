"""Train each kind of run there is, briefly, on two revisions of this repository, and compare the weights bit for bit.

    python benchmarks/same_weights.py BEFORE [AFTER] [--only KIND …]

A change that is meant to move code and not weights prints equal hashes for every kind. Either revision is installed in
a folder of its own and given its own commands; all else (Python, torch, one thread) is the same. The hash is of the
trained and of the averaged weights of the last checkpoint and of those of the exported model.
"""

import argparse
import hashlib
import os
import re
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parent.parent
SHORT = "--train.checkpoint-every 10 --train.held-out-every 15 --train.sample-every 0 --train.tracker none"
KINDS = {
    "smoke": f"train smoke {SHORT}",
    "mnist": f"train mnist {SHORT} --train.num-steps 60 --train.held-out-every 60",
    "bf16": f"train smoke {SHORT} --train.mixed-precision bf16",
    "mirrored": f"train smoke {SHORT} --data.horizontal-flip --train.gradient-accumulation-steps 2",
    "hybrid": f"train smoke {SHORT} --schedule.variance-type learned_range --objective.loss hybrid",
    "vlb": f"train smoke {SHORT} --schedule.variance-type learned_range --objective.loss vlb "
    "--schedule.num-train-timesteps 20 --train.num-steps 60 --train.learning-rate 1e-4",
    "learned": f"train smoke {SHORT} --schedule.name learned --objective.weighting sigmoid",
    "learned by losses": f"train smoke {SHORT} --schedule.name learned --objective.weighting edm "
    "--schedule.teacher losses",
    "init-from": f"train smoke {SHORT} --init-from {{smoke}} --train.seed 1",
    "distill": f"distill {{smoke}} {SHORT} --train.num-steps 10",
    "two processes": f"train smoke {SHORT}",
}
"""The commands of the first revisions, whose config.json has no format number."""
SINCE: list[dict[str, str]] = [
    {"--objective.weighting": "--objective.weighting.name", "--objective.loss": "--objective.name"},
]
"""Words that have changed since, oldest change first: what a command of then says now."""


def command(kind: str, source: Path, runs: Path) -> list[str]:
    """The arguments of `logsnr` for this kind, in the words of the revision in `source`."""
    words = KINDS[kind].format(smoke=runs / "smoke")
    for changes in SINCE[: format_of(source)]:
        for before, after in changes.items():
            words = words.replace(before, after)
    return [*words.split(), "--out", str(runs / kind.replace(" ", "-"))]


def format_of(source: Path) -> int:
    """How many of the changes in `SINCE` the revision has: one less than the format of its config.json."""
    texts = (path.read_text() for path in sorted((source / "logsnr" / "settings").glob("*.py")))
    return next((int(found[1]) - 1 for text in texts if (found := re.search(r"(?m)^FORMAT = (\d+)$", text))), 0)


def install(revision: str, folder: Path) -> Path:
    """The package of that revision, and nothing that it needs, in `folder`."""
    source, target = folder / "source", folder / "package"
    source.mkdir(parents=True)
    archive = subprocess.run(["git", "-C", str(ROOT), "archive", revision], check=True, capture_output=True).stdout
    subprocess.run(["tar", "-x", "-C", str(source)], input=archive, check=True)
    pip = [sys.executable, "-m", "pip", "install", "-qq", "--no-deps", "--target", str(target), str(source)]
    subprocess.run(pip, check=True)
    return target


def run(argv: list[str], package: Path, processes: int, log: Path) -> None:
    """`logsnr ARGV` in as many processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    base = {**os.environ, "PYTHONPATH": str(package), "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(log.parent)}
    rank = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    started = []
    for number in range(processes):
        more = {**rank, "RANK": str(number), "LOCAL_RANK": str(number)} if processes > 1 else {}
        with log.open("a") as file:
            words = [sys.executable, "-m", "logsnr", *argv]
            started.append(subprocess.Popen(words, env=base | more, stdout=file, stderr=file, cwd=log.parent))
    statuses = [process.wait() for process in started]
    if any(statuses):
        sys.exit(f"logsnr {' '.join(argv)} failed:\n{log.read_text()[-3000:]}")


def weights(out: Path) -> str:
    """The hash of the run's weights."""
    digest = hashlib.sha256()
    last = sorted(out.glob("checkpoints/step-*"))[-1]
    trained = sorted(path for path in last.glob("*.safetensors") if path.stem not in ("optimizer", "objective"))
    for path in [*trained, *sorted(out.glob("model/*/*.safetensors"))]:
        for name, tensor in sorted(load_file(path).items()):
            digest.update(name.encode() + tensor.numpy().tobytes())
    return digest.hexdigest()[:16]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before")
    parser.add_argument("after", nargs="?", default="HEAD")
    parser.add_argument("--only", nargs="+", choices=KINDS, default=list(KINDS))
    arguments = parser.parse_args()
    kinds = [kind for kind in KINDS if kind in arguments.only]
    if {"init-from", "distill"} & set(kinds) and "smoke" not in kinds:
        kinds.insert(0, "smoke")
    equal = True
    with tempfile.TemporaryDirectory() as scratch:
        places = [Path(scratch) / name for name in ("before", "after")]
        packages = [install(r, p) for r, p in zip((arguments.before, arguments.after), places, strict=True)]
        for kind in kinds:
            found = []
            for place, package in zip(places, packages, strict=True):
                argv = command(kind, package, place)
                run(argv, package, 2 if kind == "two processes" else 1, place / f"{kind}.log")
                found.append(weights(Path(argv[-1])))
            equal &= found[0] == found[1]
            print(f"{kind:<18} {found[0]}  {found[1]}  {'equal' if found[0] == found[1] else 'DIFFERENT'}", flush=True)
    return 0 if equal else 1


if __name__ == "__main__":
    sys.exit(main())
