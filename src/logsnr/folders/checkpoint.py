"""The state of a run on disk: written atomically, the newest whole one loaded.

    RUN/config.json                    the configuration, the data's fingerprint, the versions of the libraries
    RUN/checkpoints/step-00000250/     network.safetensors  ema.safetensors  optimizer.safetensors  state.json
                                       objective.safetensors, where the loss itself learns
    RUN/model/, RUN/stock/             what `from_pretrained` reads

A checkpoint appears whole (`logsnr.base.files`): at any moment each `step-…` folder is, or a disk has failed.
`state.json` holds the SHA-256 of the other files, so that a damaged one is noticed and named, and the one before it is
taken.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from logsnr.base.errors import CheckpointError
from logsnr.base.files import replacing_folder

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Checkpoint:
    """Everything that training needs to go on: the steps done and four sets of named tensors, the last often empty."""

    step: int
    network: Tensors
    ema: Tensors
    optimizer: Tensors
    objective: Tensors = field(default_factory=dict)


_PARTS = ("network", "ema", "optimizer", "objective")


def save_checkpoint(run: Path, checkpoint: Checkpoint, keep: int) -> Path:
    """Write `checkpoint` under `run`, then delete all but the newest `keep`. Raises CheckpointError, nothing lost."""
    final = run / "checkpoints" / f"step-{checkpoint.step:08d}"
    with replacing_folder(final) as folder:
        hashes = {}
        for part in _PARTS:
            tensors: Tensors = getattr(checkpoint, part)
            if part == "objective" and not tensors:
                continue
            path = folder / f"{part}.safetensors"
            save_file({name: t.contiguous() for name, t in tensors.items()}, path)
            hashes[path.name] = _sha256(path)
        (folder / "state.json").write_text(json.dumps({"step": checkpoint.step, "sha256": hashes}, indent=2) + "\n")
    folders = _newest_first(run)
    at = folders.index(final)
    for folder in folders[:at] + folders[at + keep :]:  # later ones are damaged: `load_latest` passed them over
        shutil.rmtree(folder)
    return final


def load_latest(run: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest whole checkpoint under `run`, or None, and a line for each newer one that was damaged."""
    complaints: list[str] = []
    for folder in _newest_first(run):
        try:
            return _load(folder), complaints
        except (OSError, ValueError, KeyError) as error:
            complaints.append(f"{folder} is damaged ({error}); it is passed over.")
    if complaints:
        raise CheckpointError(
            "\n".join(complaints) + f"\nNo whole checkpoint is left. Delete {run / 'checkpoints'} to start again."
        )
    return None, complaints


def _load(folder: Path) -> Checkpoint:
    state = json.loads((folder / "state.json").read_text())
    if folder.name != f"step-{state['step']:08d}":
        raise ValueError(f"state.json speaks of step {state['step']}")
    for name, expected in state["sha256"].items():
        if _sha256(folder / name) != expected:
            raise ValueError(f"{name} isn't what was written")
    written = [part for part in _PARTS if part != "objective" or f"{part}.safetensors" in state["sha256"]]
    return Checkpoint(state["step"], *(load_file(folder / f"{part}.safetensors") for part in written))


def _newest_first(run: Path) -> list[Path]:
    return sorted((run / "checkpoints").glob("step-*"), reverse=True)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
