"""A run -> a folder with all that is published of it, one sub-folder for each part, and a reason for every file.

    main/    README.md  images/  run/  and the model: what is in RUN/model
    stock/   README.md and the model for stock diffusers; where that is another form
    space/   the app that draws with the model in a browser; where it is asked for

Nothing else leaves the machine: what isn't named here isn't copied, and what is copied is searched for traces of the
machine it was made on (`logsnr.publishing.leaks`).
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from logsnr.base.errors import PublishError
from logsnr.base.files import read_json, replacing_folder
from logsnr.base.warn import warn_caller
from logsnr.folders.model_folder import (
    FEW_STEP_CONFIG,
    FEW_STEP_FOLDER,
    INDEX,
    PROMPTS,
    REPAIR_CODE,
    SCHEDULER_CONFIG,
    TOKENIZER,
    code_files,
    data_files,
    find_model,
    is_model,
    model_digest,
    named_code,
    pipeline_code,
    save_model,
)
from logsnr.folders.run_folder import CONFIG, is_run
from logsnr.media.plots import few_steps_figure, save_png, schedule_figure
from logsnr.models.schedules import noise_schedule
from logsnr.pipelines.pipeline_restoration import sources
from logsnr.publishing.card import public_words, render_card, render_stock_card
from logsnr.publishing.demo import page_of, stage_space
from logsnr.publishing.leaks import refuse_leaks
from logsnr.publishing.pictures import draw_film, draw_held_out_loss, draw_samples
from logsnr.publishing.provenance import public_config
from logsnr.publishing.published import Published, Training
from logsnr.publishing.repair import can_repair
from logsnr.sampling.few_evaluations import read_curve
from logsnr.sampling.sample import choose_device
from logsnr.settings.run import to_record
from logsnr.tasks.load import load
from logsnr.training.effort import read_effort
from logsnr.training.monitor import read_held_out

_REASONS = {
    "README.md": "the card: what a reader sees",
    "images/samples.png": "on the card: what the model draws",
    "images/film_strip.png": "on the card: out of noise, step by step",
    "images/noise_schedule.png": "on the card: the noise schedule",
    "images/held_out_loss.png": "on the card: loss by noise level",
    "images/few_steps.png": "on the card: quality by number of network evaluations",
    "run/config.json": "configuration and data of the run, to repeat it",
    "run/metrics.json": "the figures, with their protocol",
    INDEX: "the parts of the model, and such facts of the data as the names of classes",
    PROMPTS: "what it is asked for on the card and where nobody says what: some captions of the data",
    TOKENIZER: "the tokens of the model: which piece of a text each stands for",
    "tokenizer_config.json": "which of the tokens end a text or hide a place, for AutoTokenizer",
    SCHEDULER_CONFIG: "the noise schedule, all its betas",
    FEW_STEP_CONFIG: "the sampler for few steps, tuned for this model",
    f"{FEW_STEP_FOLDER}/config.json": "the name of that sampler's class, for AutoModel",
    f"{FEW_STEP_FOLDER}/curve.json": "how near it comes with few evaluations, beside stock ones",
}
_CODE = {"": "the pipeline", "scheduler": "the schedule", FEW_STEP_FOLDER: "the sampler for few steps"}
_REASONS_IN_SPACE = {
    "README.md": "the Space's settings, and the model that it shows",
    "app.py": "the app",
    "easel.py": "what the app's other tabs share",
    "edit.py": "the app's second tab, of a model that draws by prompt",
    "repair.py": "the app's second tab",
    "write.py": "the app's page, of a model of texts",
    "requirements.txt": "what the app needs",
}


@dataclass(frozen=True)
class StagedFile:
    """One file of a part: its path there, its size in bytes and why it is published."""

    path: str
    size: int
    reason: str


@dataclass(frozen=True)
class Part:
    """What goes to one place: the branches `main` and `stock` of the repo, or the `space` of the same name."""

    name: str
    folder: Path
    files: list[StagedFile]


def stage(run: Path, repo_id: str, out: Path, license: str | None, data_license: str | None, space: bool) -> list[Part]:
    """Put what is published of `run` (or of a model folder) as `repo_id` into `out`, which is replaced.

    The parts come in the order in which they are to be sent. Raises `PublishError` or `ModelError` where that can't be;
    `out` is then as it was.
    """
    if not run.is_dir():
        raise PublishError(f"There is no folder {run}. Give the folder of a run, or of a model.")
    if out.exists() and not is_model(out / "main"):
        raise PublishError(f"{out} exists and wasn't staged by logsnr; it would be replaced. Name a new folder.")
    source = find_model(run)
    pipeline = load(source)
    if noise_schedule(pipeline.scheduler) is None:
        raise PublishError(
            f"{run}: its scheduler {type(pipeline.scheduler).__name__} isn't a noise schedule of logsnr, of which a "
            "card could be made. Use the pipeline's own push_to_hub."
        )
    page = page_of(pipeline, str(run)) if space else None
    with replacing_folder(out) as folder:
        main = folder / "main"
        _copy_model(source, pipeline, main)
        repairs = _add_repair(pipeline, main)
        training = _training(run)
        published = _draw(pipeline.to(choose_device()), training, main, repo_id, license, data_license, repairs)
        if training is not None:
            _write_run(training, main / "run")
        _write(main / "README.md", render_card(published))
        if published.stock_form is not None:
            save_model(published.stock_form.to("cpu"), folder / "stock")
            _write(folder / "stock" / "README.md", render_stock_card(published))
        if page is not None:
            stage_space(repo_id, folder / "space", page)
        refuse_leaks(folder, public_words(published), [*published.classes, *published.parts.vocabulary(pipeline)])
    folders = [out / name for name in ("stock", "main", "space") if (out / name).is_dir()]
    network = published.parts.network_name
    return [Part(path.name, path, list(_listing(path, network))) for path in folders]


def listing(parts: list[Part]) -> str:
    """Every file with its size and reason, a paragraph for each part."""
    width = max(len(file.path) for part in parts for file in part.files)
    paragraphs = []
    for part in parts:
        lines = [f"  {file.path:<{width}}  {_size(file.size):>9}  {file.reason}" for file in part.files]
        total = _size(sum(file.size for file in part.files))
        title = "The Space" if part.name == "space" else f"Branch {part.name}"
        paragraphs.append("\n".join([f"{title}: {len(lines)} files, {total}", *lines]))
    return "\n\n".join(paragraphs)


def _size(size: int) -> str:
    return f"{size} B" if size < 1000 else f"{size / 1e3:.1f} kB" if size < 1e6 else f"{size / 1e6:.1f} MB"


def _copy_model(source: Path, pipeline: Any, main: Path) -> None:
    """The files of a model folder that a loader reads.

    One saved by stock diffusers alone lacks the pipeline's own file and holds the path that it was loaded from: it is
    saved anew.
    """
    with tempfile.TemporaryDirectory() as scratch:
        if pipeline_code(source) is None:
            source = Path(scratch)
            save_model(pipeline, source)
        _refuse_edited_code(source)
        for path in [*data_files(source), *code_files(source)]:
            copy = main / path.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)


def _add_repair(pipeline: Any, main: Path) -> str | None:
    """The pipeline that repairs with the model, and what it needs, into `main`. Returns its name without the ending;
    None where the model can't repair."""
    if not can_repair(pipeline):
        return None
    files = sources()
    for name, content in files.items():
        (main / name).write_bytes(content)
    return next(Path(name).stem for name in files if name.startswith("pipeline_"))


def _refuse_edited_code(folder: Path) -> None:
    for path in code_files(folder):
        if hashlib.sha256(path.read_bytes()).hexdigest()[:8] != path.stem[-8:]:
            raise PublishError(
                f"{path} was changed after it was saved: its name is made of its content. Save the model again."
            )


def _training(run: Path) -> Training | None:
    """What a run folder tells; None of a bare model folder."""
    if not is_run(run):
        return None
    record = read_json(run / CONFIG)
    effort = read_effort(run)
    return Training(
        record=record,
        config=public_config(record),
        effort=effort,
        held_out=[loss for loss in read_held_out(run) if effort.model_step is None or loss.step <= effort.model_step],
        metrics=_metrics(run),
    )


def _metrics(run: Path) -> dict[str, Any]:
    """metrics.json, if it is of the model as it is now: one that was trained on since has other figures."""
    path = run / "metrics.json"
    metrics = read_json(path) if path.is_file() else {}
    measured = metrics.get("protocol", {}).get("model_hash")
    if measured is not None and measured != model_digest(find_model(run)):
        warn_caller(
            f"{path} is of an earlier state of the model, and is left out. logsnr evaluate {run} measures it anew."
        )
        return {}
    return metrics


def _draw(
    pipeline: Any,
    training: Training | None,
    main: Path,
    repo_id: str,
    license: str | None,
    data_license: str | None,
    repairs: str | None,
) -> Published:
    """The pictures of the card, into `main`, and what the card is to be about."""
    images = main / "images"
    samples = draw_samples(pipeline)
    save_png(samples.picture, images / "samples.png")
    save_png(draw_film(pipeline), images / "film_strip.png")
    name = "schedule" if training is None else training.config.schedule.name
    schedule = noise_schedule(pipeline.scheduler)
    assert schedule is not None
    save_png(schedule_figure({name: schedule}), images / "noise_schedule.png")
    if training is not None and training.held_out:
        save_png(draw_held_out_loss(training.held_out), images / "held_out_loss.png")
    curve = read_curve(main / FEW_STEP_FOLDER)
    if curve is not None and curve.tuned_steps:
        save_png(few_steps_figure(curve.lines()), images / "few_steps.png")
    code = pipeline_code(main)
    return Published(
        repo_id=repo_id,
        pipeline=pipeline,
        code=None if code is None else code.stem,
        names_code=named_code(main) is not None,
        repairs=repairs,
        samples=samples.options,
        shown=samples.shown,
        training=training,
        curve=curve,
        license=license,
        data_license=data_license,
    )


def _write_run(training: Training, folder: Path) -> None:
    record = {key: training.record[key] for key in ("data", "network", "versions")}
    _write_json(folder / CONFIG, to_record(training.config) | record)
    if training.metrics:
        _write_json(folder / "metrics.json", training.metrics)


def _write_json(path: Path, values: dict[str, Any]) -> None:
    _write(path, json.dumps(values, indent=2, ensure_ascii=False) + "\n")


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _listing(folder: Path, network: str) -> Iterator[StagedFile]:
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = path.relative_to(folder).as_posix()
        yield StagedFile(name, path.stat().st_size, _reason(folder.name, name, network))


def _reason(part: str, path: str, network: str) -> str:
    if part == "space":
        return _REASONS_IN_SPACE[path]
    if path in _REASONS:
        return _REASONS[path]
    place, _, name = path.rpartition("/")
    what = "the network" if place == network else f"the component {place}"
    if REPAIR_CODE.fullmatch(path):
        return "code for trust_remote_code: what repairs with the model"
    if name.endswith(".py"):
        return f"code for trust_remote_code: {_CODE.get(place, what)}"
    if ".safetensors" in name:
        return "the weights" if place == network else f"the weights of {what}"
    return "the network's architecture" if place == network else f"the configuration of {what}"
