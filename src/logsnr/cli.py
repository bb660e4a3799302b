"""The command line: each command is a frozen dataclass whose field docstrings are its help, and a function.

torch and diffusers are imported by the functions, so that `--help` and a wrong flag answer at once.
"""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from logsnr.config import (
    DataConfig,
    ModelConfig,
    ObjectiveConfig,
    RunConfig,
    SampleOptions,
    ScheduleConfig,
    TrainConfig,
    to_json,
)
from logsnr.errors import LogsnrError
from logsnr.presets import PRESETS


@dataclass(frozen=True)
class TrainArguments:
    """Train a model, or go on with one: the same command again resumes."""

    out: Path
    """The run folder: configuration, checkpoints, logs, samples, and in the end the model."""
    dry_run: bool = False
    """Show the data and the configuration, check them, and stop."""
    data: DataConfig = field(default_factory=DataConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    train: TrainConfig = field(default_factory=TrainConfig)


def _train(argv: list[str]) -> int:
    presets = {
        name: TrainArguments(tyro.MISSING, False, c.data, c.schedule, c.model, c.objective, c.train)
        for name, (_, c) in PRESETS.items()
    }
    descriptions = {name: text for name, (text, _) in PRESETS.items()}
    arguments = tyro.cli(
        tyro.extras.subcommand_type_from_defaults(presets, descriptions, prefix_names=False, sort_subcommands=False),
        args=argv,
        prog="logsnr train",
        description=(
            "Train a diffusion model: `logsnr train PRESET --out DIR [overrides]`. The same command again resumes.\n"
            "A preset is a complete configuration; `logsnr train PRESET --help` shows every setting with its value."
        ),
    )
    config = RunConfig(arguments.data, arguments.schedule, arguments.model, arguments.objective, arguments.train)
    from logsnr.runs import plan
    from logsnr.train import train

    if arguments.dry_run:
        print(to_json(config), end="")
        print(plan(config, arguments.out))
        return 0
    result = train(config, arguments.out)
    if result.stopped_by is not None:
        print(f"Stopped after step {result.step}, which is saved. The same command goes on from there.")
        return 128 + result.stopped_by
    for folder in result.folders:
        print(f"{folder} is done.")
    return 0


@dataclass(frozen=True)
class SampleArguments:
    """Make images with a trained model."""

    model: tyro.conf.Positional[str]
    """A run folder, a model folder, or a repo of the Hub."""
    options: Annotated[SampleOptions, tyro.conf.arg(name="")] = field(default_factory=SampleOptions)
    out: Path = Path("samples.png")
    """A name that ends in .png gets one grid; any other is a folder of single images."""
    dry_run: bool = False
    """Load the model, say what would be made, and stop."""


def _sample(argv: list[str]) -> int:
    arguments = tyro.cli(SampleArguments, args=argv, prog="logsnr sample")
    from logsnr.hub import load
    from logsnr.sample import choose_device, sample, write

    pipeline = load(arguments.model).to(choose_device())
    if arguments.dry_run:
        print(describe(pipeline))
        print(f"Would make {arguments.options.num} images of seeds from {arguments.options.seed} in {arguments.out}.")
        return 0
    images = sample(pipeline, arguments.options)
    with _writing(arguments.out):
        print(write(images, arguments.out, arguments.options.seed))
    return 0


def describe(pipeline: Any) -> str:
    """What a loaded model is, in words."""
    config = pipeline.unet.config
    labels = pipeline.config.get("id2label")
    kind = {1: "gray", 3: "RGB", 4: "RGBA"}.get(config.in_channels, f"{config.in_channels} channels")
    classes = (
        "no classes" if not labels else f"{len(labels)} classes ({', '.join(map(str, list(labels.values())[:10]))})"
    )
    return (
        f"{config.sample_size}x{config.sample_size} {kind}, {classes}, {type(pipeline.scheduler).__name__}, "
        f"predicts {pipeline.scheduler.config.prediction_type}, "
        f"{sum(p.numel() for p in pipeline.unet.parameters()) / 1e6:.2f} M parameters"
    )


@dataclass(frozen=True)
class ExportArguments:
    """Make a model folder of a run's last checkpoint, finished or not."""

    run: tyro.conf.Positional[Path]
    """The run folder."""
    class_label: str | None = None
    """One class, as a plain stock model of that class alone (needs --out)."""
    out: Path | None = None
    """Where to; RUN/model and RUN/stock when not given."""


def _export(argv: list[str]) -> int:
    arguments = tyro.cli(ExportArguments, args=argv, prog="logsnr export")
    from logsnr.runs import export

    for folder in export(arguments.run, arguments.out, arguments.class_label):
        print(f"{folder} is done.")
    return 0


@dataclass(frozen=True)
class InspectScheduleArguments:
    """Draw noise schedules, and say whether they do their job."""

    names: tyro.conf.Positional[tuple[str, ...]]
    """linear, cosine, constant, sigmoid, laplace, learned (where it begins), another installed one, or your own as
    `package.module:Class`."""
    out: Path = Path("schedules.png")
    """The picture: log-SNR, alpha-bar and beta."""
    num_train_timesteps: int = 1000
    """T, the length of the chain."""
    zero_terminal_snr: bool = False
    """Rescale so that x_T is pure noise."""
    shift: float = 0.0
    """Added to the log-SNR."""
    options: dict[str, float] = field(default_factory=dict)
    """Parameters of the formula, such as `beta_end 0.03`; the same for all schedules named."""
    dry_run: bool = False
    """Print the tables and draw nothing."""


def _inspect(argv: list[str]) -> int:
    parsed = tyro.extras.subcommand_cli_from_dict(
        {"schedule": InspectScheduleArguments}, args=argv, prog="logsnr inspect", description="Look before training."
    )
    from logsnr.inspect_schedule import inspect_schedules

    values = vars(parsed) | {"names": list(parsed.names)}
    if values.pop("dry_run"):
        values["out"] = None
    with _writing(parsed.out):
        print(inspect_schedules(values.pop("names"), **values))
    return 0


@contextlib.contextmanager
def _writing(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise LogsnrError(f"{out} can't be written: {error}.") from error


COMMANDS: dict[str, tuple[Callable[[list[str]], int], str]] = {
    "train": (_train, "train a model of your images, or go on with one"),
    "sample": (_sample, "make images with a trained model"),
    "export": (_export, "make a model folder of a run's last checkpoint"),
    "inspect": (_inspect, "look at noise schedules before training"),
}


def usage() -> str:
    """The text of `logsnr --help`."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {text}" for name, (_, text) in COMMANDS.items()]
    return (
        "usage: logsnr COMMAND …\n\nTrain and sample diffusion models of your own images.\n\n"
        + "\n".join(lines)
        + "\n\n`logsnr COMMAND --help` says more. To begin: logsnr train smoke --out runs/smoke"
    )


def run(argv: list[str]) -> int:
    """Run one command. Our own errors become a message on stderr and exit status 1."""
    if not argv or argv[0] in ("-h", "--help"):
        print(usage())
        return 0 if argv else 2
    if argv[0] not in COMMANDS:
        print(f"logsnr: there is no command {argv[0]!r}.\n\n{usage()}", file=sys.stderr)
        return 2
    command, _ = COMMANDS[argv[0]]
    try:
        return command(argv[1:])
    except LogsnrError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
