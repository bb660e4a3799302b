"""The command line: each command is a frozen dataclass whose field docstrings are its help, and a function.

torch and diffusers are imported by the functions, so that `--help` and a wrong flag answer at once.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import re
import signal
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import tyro

from logsnr.base.errors import ConfigError, LogsnrError, did_you_mean
from logsnr.settings.condition import ClassLabelConfig, ConditionConfig
from logsnr.settings.flags import chosen
from logsnr.settings.image import DataConfig, ModelConfig
from logsnr.settings.objective import ConsistencyConfig, ObjectiveConfig, WeightedConfig
from logsnr.settings.options import EvaluateOptions, SampleOptions, TuneOptions
from logsnr.settings.presets import presets
from logsnr.settings.run import RunConfig, TrainConfig, to_json
from logsnr.settings.schedule import ScheduleConfig

_Arguments = TypeVar("_Arguments")


@dataclass(frozen=True)
class TrainArguments:
    """Train a model, or go on with one: the same command again resumes."""

    out: Path
    """The run folder: configuration, checkpoints, logs, samples, and in the end the model."""
    dry_run: bool = False
    """Show the data and the configuration, check them, and stop."""
    data: Any = field(default_factory=DataConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    model: Any = field(default_factory=ModelConfig)
    objective: ObjectiveConfig = field(default_factory=WeightedConfig)
    condition: ConditionConfig = field(default_factory=ClassLabelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)


_TRAIN_USAGE = """usage: logsnr train PRESET --out DIR [--SECTION.SETTING VALUE …]

Train a model, or go on with one: the same command again resumes. A preset is a complete configuration:

{choices}

`logsnr train PRESET --help` shows every setting with its value. See what would be done: --dry-run"""


def parse_train(preset: str, argv: list[str]) -> tuple[RunConfig, TrainArguments]:
    """What `logsnr train PRESET` is to do: the preset, and what is said otherwise."""
    chosen_preset = presets()[preset]
    arguments = _parse(
        TrainArguments,
        argv,
        prog=f"logsnr train {preset}",
        description="Train a model, or go on with one: the same command again resumes. The preset: "
        f"{chosen_preset.text}.",
        default=TrainArguments(tyro.MISSING, **_sections(chosen_preset.config)),
    )
    return _configured(chosen_preset.config, arguments), arguments


def _sections(config: RunConfig) -> dict[str, Any]:
    return {name: section for name, section in vars(config).items() if name != "kind"}


def _configured(base: RunConfig, arguments: Any) -> RunConfig:
    """`base` with the sections that `arguments` has."""
    sections = {name: getattr(arguments, name) for name in _sections(base) if hasattr(arguments, name)}
    config = dataclasses.replace(base, **sections)
    if config.objective.command == "distill" and base.objective.command != "distill":
        raise ConfigError(
            f"objective.name {config.objective.name} is what `logsnr distill RUN` trains, from a trained model. Use "
            "that, or another objective."
        )
    return config


def _train(argv: list[str]) -> int:
    status = _no_preset(argv, "logsnr train", _TRAIN_USAGE)
    if status is not None:
        return status
    config, arguments = parse_train(argv[0], argv[1:])
    return _run_training(config, arguments.out, arguments.dry_run)


def _run_training(config: RunConfig, out: Path, dry_run: bool) -> int:
    from logsnr.training.runs import plan
    from logsnr.training.train import train

    if dry_run:
        print(to_json(config), end="")
        print(plan(config, out))
        return 0
    result = train(config, out)
    if result.stopped_by is not None:
        print(f"Stopped after step {result.step}, which is saved. The same command goes on from there.")
        return 128 + result.stopped_by
    for folder in result.folders:
        print(f"{folder} is done.")
    return 0


@dataclass(frozen=True)
class DistillArguments:
    """Make of a run's model one that draws in two network evaluations, by the same trainer; the same command again
    resumes. Data, schedule and network are the run's."""

    out: Path
    """The folder of the new run."""
    dry_run: bool = False
    """Show the data and the configuration, check them, and stop."""
    objective: ConsistencyConfig = field(default_factory=ConsistencyConfig)
    condition: ConditionConfig = field(default_factory=ClassLabelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)


_DISTILL_USAGE = """usage: logsnr distill RUN --out DIR [--SECTION.SETTING VALUE …]

Make of a run's model one that draws in two network evaluations (multistep consistency distillation), by the same
trainer and by default in a tenth of its steps, each more than twice as long. The same command again resumes. Then:
logsnr sample DIR

`logsnr distill RUN --help` shows every setting with its value for that run. See what would be done: --dry-run"""


def _distill(argv: list[str]) -> int:
    if not argv or argv[0].startswith("-"):
        help_wanted = argv[:1] in (["-h"], ["--help"])
        problem = "" if help_wanted or not argv else f"logsnr distill: the run comes first, before {argv[0]}.\n\n"
        print(f"{problem}{_DISTILL_USAGE}", file=sys.stderr if problem else sys.stdout)
        return 0 if help_wanted else 2
    from logsnr.training.distill import distilled, require_other

    run = Path(argv[0])
    config, arguments = parse_distill(distilled(run), run, argv[1:])
    require_other(run, arguments.out)
    return _run_training(config, arguments.out, arguments.dry_run)


def parse_distill(base: RunConfig, run: Path, argv: list[str]) -> tuple[RunConfig, DistillArguments]:
    """What `logsnr distill RUN` is to do: the defaults for that run (`base`), and what is said otherwise."""
    assert isinstance(base.objective, ConsistencyConfig)
    arguments = _parse(
        DistillArguments,
        argv,
        prog=f"logsnr distill {run}",
        default=DistillArguments(tyro.MISSING, False, base.objective, base.condition, base.train),
    )
    if arguments.objective.name != base.objective.name or arguments.condition.name != base.condition.name:
        raise ConfigError(
            "logsnr distill keeps the condition of RUN, and its objective is consistency: leave --….name out."
        )
    return _configured(base, arguments), arguments


@dataclass(frozen=True)
class SampleArguments:
    """Make images with a trained model."""

    model: tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="MODEL")]]
    """A run folder, a model folder, or a repo of the Hub."""
    options: Annotated[SampleOptions, tyro.conf.arg(name="")] = field(default_factory=SampleOptions)
    out: Path = Path("samples.png")
    """A name that ends in .png gets one grid; any other is a folder of single images."""
    dry_run: bool = False
    """Load the model, say what would be made, and stop."""

    def __post_init__(self) -> None:
        if self.out.suffix.lower() in (".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".pdf"):
            raise ConfigError(
                f"--out must end in .png, for one grid, or name a folder, and is {self.out}. Images are written as "
                f"PNG: take {self.out.with_suffix('.png')}."
            )
        grid = self.out.suffix.lower() == ".png"
        if self.out.is_dir() if grid else self.out.is_file():
            raise ConfigError(
                f"--out {self.out} is a {'folder' if grid else 'file'} already. A name that ends in .png is one grid, "
                "any other a folder of single images."
            )


def _sample(argv: list[str]) -> int:
    arguments = _parse(SampleArguments, argv, prog="logsnr sample")
    from logsnr.models.schedules import resolve_scheduler_class
    from logsnr.sampling.sample import choose_device, prepare, sample, write
    from logsnr.tasks.load import load
    from logsnr.tasks.parts import parts_of_pipeline
    from logsnr.training.runs import size_in_words

    options = arguments.options
    if options.scheduler is not None and ":" in options.scheduler:
        resolve_scheduler_class(options.scheduler)  # imports it: a model that was made with it is then loaded with it
    pipeline = load(arguments.model).to(choose_device())
    parts = parts_of_pipeline(pipeline)
    prepare(pipeline, options)
    if arguments.dry_run:
        scheduler = pipeline.scheduler
        print(
            f"{parts.describe(pipeline)}, {type(scheduler).__name__}, predicts {scheduler.config.prediction_type}, "
            f"{size_in_words(getattr(pipeline, parts.network_name))}"
        )
    choices = parts.choices(pipeline)
    if choices and options.class_labels is None:
        print(f"Classes, in turn: {_listed(choices[: options.num])} (or give --class-labels)")
    if arguments.dry_run:
        print(f"Would make {options.num} {parts.noun}s of seeds from {options.seed} in {arguments.out}.")
        return 0
    samples = sample(pipeline, options)
    with _writing(arguments.out):
        print(write(samples, arguments.out, options.seed, parts))
    return 0


def _listed(values: Iterable[object]) -> str:
    """The first ten, and how many more."""
    words = [str(value) for value in values]
    return ", ".join(words[:10]) + (f" and {len(words) - 10} more" if len(words) > 10 else "")


@dataclass(frozen=True)
class ExportArguments:
    """Make a model folder of a run's last checkpoint, finished or not."""

    run: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="RUN")]]
    """The run folder."""
    class_label: str | None = None
    """One class by name or number: a plain stock model of that class alone, which is the folder --out itself."""
    out: Path | None = None
    """A folder that is given the sub-folder model (and stock, where there are classes); RUN when not given. With
    --class-label it becomes the model itself."""


def _export(argv: list[str]) -> int:
    arguments = _parse(ExportArguments, argv, prog="logsnr export")
    from logsnr.training.runs import export

    for folder in export(arguments.run, arguments.out, arguments.class_label):
        print(f"{folder} is done.")
    return 0


@dataclass(frozen=True)
class PublishArguments:
    """Put a trained model on the Hub, with a page that explains it. The same command again goes on, or says that
    nothing changed.

    The repo is made where there is none; one that is there is written to only if it is logsnr's. Of a model with
    classes, the form for stock diffusers goes to the branch `stock`.
    """

    run: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="RUN")]]
    """The run folder, or a model folder."""
    repo_id: tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="REPO_ID")]]
    """Its name on the Hub, as in `your-name/your-model`."""
    private: bool = False
    """Make the repo private, if it is made now."""
    create_pr: bool = False
    """Open a pull request in a repo that is there, for somebody else to merge (main alone, not the branch `stock`)."""
    space: bool = False
    """Publish a Space of the same name beside it: an app that draws with the model in a browser (`logsnr demo`)."""
    license: str | None = None
    """Licence of the weights, as the Hub names it: apache-2.0, cc-by-4.0, mit, other."""
    data_license: str | None = None
    """Licence of the training images, in words, for the card; that of the known data sets is filled in."""
    stage: Path | None = None
    """Leave everything in this folder, a sub-folder for each branch and for the Space, and send nothing."""
    dry_run: bool = False
    """List every file with its size and the reason why it is published, and send nothing."""

    def __post_init__(self) -> None:
        if self.stage is not None and self.dry_run:
            raise ConfigError("--stage leaves the files, --dry-run doesn't: give one of them.")
        if self.license is not None and not re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", self.license):
            raise ConfigError(
                f"--license must be a name from the Hub's list of licences, such as apache-2.0, and is "
                f"{self.license!r}. What has no name there is `other`."
            )


def _publish(argv: list[str]) -> int:
    arguments = _parse(PublishArguments, argv, prog="logsnr publish")
    from logsnr.publishing.publish import check_repo_id, look, publish
    from logsnr.publishing.stage import listing, stage

    repo_id, create_pr = arguments.repo_id, arguments.create_pr
    check_repo_id(repo_id)
    local = arguments.stage is not None or arguments.dry_run
    repo = None if local else look(repo_id, private=arguments.private, create_pr=create_pr, space=arguments.space)
    with tempfile.TemporaryDirectory() as scratch:
        out = arguments.stage or Path(scratch) / "stage"
        parts = stage(arguments.run, repo_id, out, arguments.license, arguments.data_license, arguments.space)
        if repo is not None:
            print("\n".join(publish(parts, repo_id, repo, create_pr=create_pr)))
            return 0
    print(listing(parts))
    print(f"\nNothing was sent{'' if arguments.stage is None else f'; it is all in {arguments.stage}'}.")
    return 0


@dataclass(frozen=True)
class TuneArguments:
    """Find timesteps and coefficients with which a trained model draws in few network evaluations, for
    `logsnr sample --scheduler few-step --steps N`. From noise alone, no data are needed; it takes about the time of
    2,000 training steps. A table is kept where it comes nearer to the exact solution of the sampling equation than the
    untuned sampler does, on noise that it didn't learn from; stock schedulers are measured beside it. The same command
    again goes on where it was cut off, and more --steps are added to those that are there."""

    model: tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="MODEL")]]
    """A run folder or a model folder: the tables are written into it, and `logsnr publish` sends them along. Or a
    repo of the Hub, with --out."""
    out: Path | None = None
    """Copy the model into this new folder, a model folder, and tune it there."""
    dry_run: bool = False
    """Say how much work it is, and stop."""
    options: Annotated[TuneOptions, tyro.conf.arg(name="")] = field(default_factory=TuneOptions)


def _tune(argv: list[str]) -> int:
    arguments = _parse(TuneArguments, argv, prog="logsnr tune")
    from logsnr.sampling.tune import curve, plan, tune

    options, out = arguments.options, arguments.out
    if arguments.dry_run:
        print(plan(arguments.model, options, out))
        return 0
    with _interruptible():
        results = tune(arguments.model, options, out)
    print(f"RMSE to the converged images, on held-out noise (less is better):\n{curve(results, options).table()}")
    if dropped := [t.steps for t in results if not t.kept]:
        print(f"Not kept, as the tuned table was not nearer than the untuned one everywhere: {_listed(dropped)}.")
    if kept := [t.steps for t in results if t.kept]:
        where = arguments.model if out is None else out
        print(f"The tables are in {where}. Try: logsnr sample {where} --scheduler few-step --steps {kept[0]}")
    return 0


@dataclass(frozen=True)
class EvaluateArguments:
    """Measure how good a run's model is, into RUN/metrics.json. What was drawn and measured before is reused."""

    run: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="RUN")]]
    """The run folder."""
    source: str | None = None
    """Where the run's images are now, if they moved: as --data.source of `logsnr train`."""
    options: Annotated[EvaluateOptions, tyro.conf.arg(name="")] = field(default_factory=EvaluateOptions)
    dry_run: bool = False
    """Load model and data, say what would be done, and stop."""


def _evaluate(argv: list[str]) -> int:
    arguments = _parse(EvaluateArguments, argv, prog="logsnr evaluate")
    from logsnr.evaluate.report import evaluate, plan

    with _interruptible():
        if arguments.dry_run:
            print(plan(arguments.run, arguments.options, arguments.source))
            return 0
        evaluate(arguments.run, arguments.options, arguments.source)
    print(
        f"The figures are in {arguments.run / 'metrics.json'}, in the place of those before: the options of an earlier "
        "evaluation bring its figures back at once."
    )
    return 0


@dataclass(frozen=True)
class CompareArguments:
    """Train the same network on the same data with several noise schedules, and compare what comes of it."""

    schedules: tuple[str, ...]
    """Two or more: as --schedule.name of `logsnr train`."""
    out: Path
    """The folder: a run for each schedule, compare.json and compare.png."""
    at_steps: tuple[int, ...] = (5, 10, 20, 50)
    """Steps of the sampler at which quality is measured, beside --evaluate.steps."""
    dry_run: bool = False
    """Say what would be done, and stop."""
    data: Any = field(default_factory=DataConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    model: Any = field(default_factory=ModelConfig)
    objective: ObjectiveConfig = field(default_factory=WeightedConfig)
    condition: ConditionConfig = field(default_factory=ClassLabelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    evaluate: EvaluateOptions = field(default_factory=EvaluateOptions)


_COMPARE_USAGE = """usage: logsnr compare PRESET --schedules NAME NAME … --out DIR [--SECTION.SETTING VALUE …]

Train the same network on the same data with several noise schedules, and compare what comes of it. The presets are
those of `logsnr train`:

{choices}

`logsnr compare smoke --help` shows every setting with its value. See what would be done: --dry-run"""


def _compare(argv: list[str]) -> int:
    status = _no_preset(argv, "logsnr compare", _COMPARE_USAGE)
    if status is not None:
        return status
    preset, *rest = argv
    base = presets()[preset]
    with _naming_evaluate():
        arguments = _parse(
            CompareArguments,
            rest,
            prog=f"logsnr compare {preset}",
            description=f"{CompareArguments.__doc__} The preset: {base.text}.",
            default=CompareArguments(tyro.MISSING, tyro.MISSING, **_sections(base.config)),
        )
    config = _configured(base.config, arguments)
    from logsnr.studies.compare import compare, plan

    more = (arguments.schedules, arguments.out, arguments.evaluate, arguments.at_steps)
    with _naming_evaluate(), _interruptible():
        if arguments.dry_run:
            print(plan(config, *more))
            return 0
        with _writing(arguments.out):
            result = compare(config, *more)
    if result.stopped is not None:
        print(f"{result.text} The same command goes on from there.")
        return 128 + (result.stopped.stopped_by or signal.SIGINT)
    print(result.text)
    return 0


@dataclass(frozen=True)
class InspectScheduleArguments:
    """Draw noise schedules, and say whether they do their job."""

    names: tyro.conf.Positional[Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME [NAME ...]")]]
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


def _inspect_schedule(argv: list[str]) -> int:
    parsed = _parse(InspectScheduleArguments, argv, prog="logsnr inspect schedule")
    from logsnr.studies.inspect_schedule import inspect_schedules

    values = vars(parsed) | {"names": list(parsed.names)}
    if values.pop("dry_run"):
        values["out"] = None
    with _writing(parsed.out):
        print(inspect_schedules(values.pop("names"), **values))
    return 0


@dataclass(frozen=True)
class InspectDataArguments:
    """Look at images before training: what they are, and a schedule and weighting to begin with."""

    source: tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="SOURCE")]]
    """As --data.source of `logsnr train`: a folder, a data set id on the Hub or mnist-5k."""
    resolution: int | None = None
    """Height and width to train at; that of the images, up to 64, when not given."""
    channels: Literal[1, 3, 4] | None = None
    """1 gray, 3 RGB, 4 RGBA; 1 where all images are gray and 3 elsewhere when not given."""
    out: Path = Path("data.png")
    """The picture: the spectrum, and what noise hides of it."""
    dry_run: bool = False
    """Print what there is to say and draw nothing."""


def _inspect_data(argv: list[str]) -> int:
    parsed = _parse(InspectDataArguments, argv, prog="logsnr inspect data")
    from logsnr.studies.inspect_data import inspect_data

    out = None if parsed.dry_run else parsed.out
    with _writing(parsed.out):
        print(inspect_data(parsed.source, resolution=parsed.resolution, channels=parsed.channels, out=out))
    return 0


@dataclass(frozen=True)
class InspectRunArguments:
    """Look at a trained model: its loss by log-SNR, where the bits of its ELBO go, how images come out of noise."""

    run: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="RUN")]]
    """The run folder."""
    out: Path | None = None
    """The folder of the three pictures; RUN/inspection when not given."""
    source: str | None = None
    """Where the run's images are now, if they moved: as --data.source of `logsnr train`."""
    elbo_images: int = 250
    """Images whose likelihood is bounded."""
    elbo_timesteps: int = 50
    """KL divergences evaluated an image, of one for each step of the chain."""
    dry_run: bool = False
    """Load model and data, say what would be drawn, and stop."""


def _inspect_run(argv: list[str]) -> int:
    parsed = _parse(InspectRunArguments, argv, prog="logsnr inspect run")
    from logsnr.evaluate.subject import open_subject
    from logsnr.studies.inspect_run import inspect_run

    options = EvaluateOptions(elbo_images=parsed.elbo_images, elbo_timesteps=parsed.elbo_timesteps)
    out = parsed.out or parsed.run / "inspection"
    with _interruptible():
        subject = open_subject(parsed.run, parsed.source)
        if parsed.dry_run:
            print(f"{subject.data.description}\nWould draw loss.png, bits.png and film.png into {out}.")
            return 0
        with _writing(out):
            print(inspect_run(subject, options, out))
    return 0


_SUBJECTS: dict[str, tuple[Callable[[list[str]], int], str]] = {
    "schedule": (_inspect_schedule, "draw noise schedules, and say whether they do their job"),
    "data": (_inspect_data, "say what images are, and what schedule and weighting to begin with"),
    "run": (_inspect_run, "look at a trained model: its loss, its bits, its images on their way out of noise"),
}

_INSPECT_USAGE = """usage: logsnr inspect SUBJECT …

Look before and after training:

{choices}

`logsnr inspect data --help` says more. To begin: logsnr inspect schedule cosine linear"""


def _inspect(argv: list[str]) -> int:
    subjects = {name: text for name, (_, text) in _SUBJECTS.items()}
    status = _no_choice(argv, "logsnr inspect", "subject", subjects, _INSPECT_USAGE)
    if status is not None:
        return status
    subject, _ = _SUBJECTS[argv[0]]
    return subject(argv[1:])


@dataclass(frozen=True)
class DemoArguments:
    """Draw with a trained model in the browser: images, and how they come out of noise."""

    model: tyro.conf.Positional[str]
    """A run folder, a model folder, or a repo of the Hub."""
    port: int = 7860
    """The page is at http://127.0.0.1:PORT, for this machine alone."""
    open: tyro.conf.FlagCreatePairsOff[bool] = False
    """Open the page in a browser."""


def _demo(argv: list[str]) -> int:
    arguments = _parse(DemoArguments, argv, prog="logsnr demo")
    from logsnr.publishing.demo import serve

    serve(arguments.model, arguments.port, arguments.open)
    return 0


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """What keeps all that it has done says so on Ctrl-C."""
    try:
        yield
    except KeyboardInterrupt:
        print("Interrupted. What is finished is kept; the same command goes on.", file=sys.stderr)
        raise


@contextlib.contextmanager
def _naming_evaluate() -> Iterator[None]:
    """Errors name the settings of EvaluateOptions as `logsnr evaluate` has them; here they are --evaluate.NAME."""
    try:
        yield
    except LogsnrError as error:
        names = "|".join(each.name.replace("_", "-") for each in fields(EvaluateOptions))
        raise type(error)(re.sub(rf"^--(?=({names})\b)", "--evaluate.", str(error))) from error


@contextlib.contextmanager
def _writing(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise LogsnrError(f"{out} can't be written: {error}.") from error


COMMANDS: dict[str, tuple[Callable[[list[str]], int], str]] = {
    "train": (_train, "train a model of your images, or go on with one"),
    "distill": (_distill, "make a model of two network evaluations of a trained one"),
    "sample": (_sample, "make images with a trained model"),
    "demo": (_demo, "draw with a model in the browser"),
    "export": (_export, "make a model folder of a run's last checkpoint"),
    "publish": (_publish, "put a trained model on the Hub, with a page that explains it"),
    "tune": (_tune, "fit a model's sampler to few network evaluations"),
    "evaluate": (_evaluate, "measure how good a run's model is"),
    "compare": (_compare, "train with several noise schedules, and compare what comes of it"),
    "inspect": (_inspect, "look at images, noise schedules and trained models"),
}


_USAGE = """usage: logsnr COMMAND …

Train, sample and publish diffusion models of your own images.

{choices}

`logsnr COMMAND --help` says more. To begin: logsnr train smoke --out runs/smoke"""


def run(argv: list[str]) -> int:
    """Run one command. Our own errors become a message on stderr and exit status 1."""
    status = _no_choice(argv, "logsnr", "command", {name: text for name, (_, text) in COMMANDS.items()}, _USAGE)
    if status is not None:
        return status
    command, _ = COMMANDS[argv[0]]
    try:
        return command(argv[1:])
    except LogsnrError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def _no_choice(argv: list[str], prog: str, noun: str, choices: Mapping[str, str], usage: str) -> int | None:
    """None where `argv` begins with one of `choices`; else says what there is, and returns the exit status."""
    width = max(map(len, choices))
    usage = usage.format(choices="\n".join(f"  {name:<{width}}  {text}" for name, text in choices.items()))
    if not argv or argv[0] in ("-h", "--help"):
        print(usage)
        return 0 if argv else 2
    word = argv[0]
    if word in choices:
        return None
    problem = f"there is no {noun} {word!r}.{did_you_mean(word, choices)}"
    if word.startswith("-"):
        problem = f"the {noun} comes first, before {word}."
    print(f"{prog}: {problem}\n\n{usage}", file=sys.stderr)
    return 2


def _no_preset(argv: list[str], prog: str, usage: str) -> int | None:
    return _no_choice(argv, prog, "preset", {name: preset.text for name, preset in presets().items()}, usage)


def _parse(arguments: type[_Arguments], argv: list[str], **more: Any) -> _Arguments:
    """What tyro makes of `argv`, after the members of unions are chosen in the defaults.

    A value that breaks a rule of ours is our error and no box of tyro's, which would be headed by names from inside
    tyro; the error is found behind the exit that tyro makes of it.
    """
    if "default" in more:
        more["default"] = chosen(more["default"], argv)
    box = io.StringIO()
    try:
        with contextlib.redirect_stderr(box):
            parsed: _Arguments = tyro.cli(arguments, args=argv, **more)
            return parsed
    except SystemExit as end:
        behind: BaseException | None = end
        while behind is not None:
            if isinstance(behind, LogsnrError):
                raise behind from None
            behind = behind.__context__
        sys.stderr.write(box.getvalue())
        raise
