"""What is known of a model -> its card, the README.md of its repo: metadata for the Hub, and a page for a reader.

The page is the template `hub_cards/model_card.md.jinja`, rendered by huggingface_hub; here is what it is filled with.
The same facts give the same text, byte for byte, so that publishing again what didn't change changes nothing.
"""

from __future__ import annotations

import dataclasses
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from logsnr.models.schedules import noise_schedule
from logsnr.pipelines.pipeline_pixel import PixelDiffusionPipeline
from logsnr.publishing.provenance import PLACEHOLDERS, DataOrigin, data_origin, hub_url, training_command
from logsnr.sampling.few_evaluations import Curve
from logsnr.schedulers.scheduling_beta import BetaScheduler
from logsnr.schedulers.scheduling_consistency import ConsistencyScheduler
from logsnr.settings.condition import ClassLabelConfig
from logsnr.settings.objective import ConsistencyConfig, HybridConfig, ObjectiveConfig, VlbConfig, WeightedConfig
from logsnr.settings.options import SampleOptions
from logsnr.settings.run import RunConfig
from logsnr.training.effort import Effort
from logsnr.training.monitor import HeldOutLoss

TEMPLATES = Path(__file__).parent.parent / "hub_cards"
TAG = "logsnr"
"""Says on the Hub that a repo was published by us."""

_KINDS = {1: "gray", 3: "RGB", 4: "RGBA"}
_FEW_IMAGES = 10_000
_LISTED = 12
"""Names of classes in a sentence."""
_REFERENCES = {
    "LinearBetaScheduler": "linear (Ho et al., [2006.11239](https://arxiv.org/abs/2006.11239))",
    "CosineBetaScheduler": "cosine (Nichol and Dhariwal, [2102.09672](https://arxiv.org/abs/2102.09672))",
    "SigmoidBetaScheduler": "sigmoid (Jabri et al., [2212.11972](https://arxiv.org/abs/2212.11972))",
    "LaplaceBetaScheduler": "laplace (Hang et al., [2407.03297](https://arxiv.org/abs/2407.03297))",
    "LearnedBetaScheduler": "learned (Kingma et al., [2107.00630](https://arxiv.org/abs/2107.00630))",
}
_TARGETS = {
    "epsilon": "the noise ε",
    "sample": "the clean image x_0",
    "v_prediction": "v = a ε − s x_0",
    "x0_minus_noise": "x_0 − ε",
}
_SYMBOLS = {"gamma": "γ", "bias": "b", "sigma_data": "σ_data"}
"""Of the weightings' settings."""
_FIGURES = {
    "fid": ("FID", "lower is better"),
    "kid": ("KID", "lower is better"),
    "inception_score": ("Inception Score", "higher is better"),
    "precision": ("Precision", "higher is better"),
    "recall": ("Recall", "higher is better"),
    "elbo": ("ELBO, bits per dimension", "lower is better"),
}


@dataclass(frozen=True)
class Training:
    """What a run tells of a model, beside the model itself."""

    record: dict[str, Any]
    """Its config.json."""
    config: RunConfig
    """The configuration as it is published."""
    effort: Effort
    held_out: list[HeldOutLoss]
    metrics: dict[str, Any]
    """Its metrics.json; empty where nothing was measured."""


@dataclass(frozen=True)
class Subject:
    """A model under the name that it is published by."""

    repo_id: str
    pipeline: PixelDiffusionPipeline
    remote_stem: str | None
    """`custom_pipeline` of a repo that stock diffusers loads; None where the repo names its own pipeline."""
    samples: SampleOptions
    """How the grid of samples was made."""
    shown_classes: list[str] | None
    training: Training | None
    curve: Curve | None
    """What its tables for few evaluations are worth; None where it wasn't tuned."""
    license: str | None
    data_license: str | None

    @property
    def scheduler(self) -> BetaScheduler:
        """The noise schedule."""
        scheduler = noise_schedule(self.pipeline.scheduler)
        assert scheduler is not None
        return scheduler

    @property
    def distilled(self) -> bool:
        """Whether it is a consistency model, drawn with in a few steps."""
        return isinstance(self.pipeline.scheduler, ConsistencyScheduler)

    @property
    def stock(self) -> str | None:
        """Where the form for stock diffusers is: in `main`, on a `branch` of its own, or None, nowhere."""
        if self.scheduler.prediction_type == "x0_minus_noise":
            return None
        return "main" if self.pipeline.num_classes is None else "branch"

    @property
    def classes(self) -> list[str] | None:
        """Names of the classes, or their numbers."""
        if self.pipeline.num_classes is None:
            return None
        names = self.pipeline.id2label or {}
        return [names.get(index, str(index)) for index in range(self.pipeline.num_classes)]


def render_card(subject: Subject) -> str:
    """The README.md of the main branch."""
    training, classes, scheduler = subject.training, subject.classes, subject.scheduler
    origin = None if training is None else data_origin(training.config, subject.data_license)
    command = None if training is None else training_command(training.config, f"runs/{_name(subject)}")
    labels = [_label(subject, name) for name in (subject.shown_classes or [])[:4]]
    return _render(
        "model_card.md.jinja",
        subject,
        metadata=_metadata(subject, origin),
        summary=_summary(subject),
        samples_alt=f"{subject.samples.num} images that the model drew",
        samples_caption=_samples_caption(subject),
        stock=subject.stock,
        # stock solvers fail at zero terminal SNR, and most of them at twice the channels
        keep_scheduler=float(scheduler.betas[-1]) == 1
        or scheduler.variance_type == "learned_range"
        or subject.distilled,
        remote_stem=subject.remote_stem,
        classes=classes,
        example_labels=f"[{', '.join(labels)}]",
        example_label=labels[0] if labels else "",
        guidance=subject.samples.guidance_scale,
        steps=subject.samples.steps,
        curve=subject.curve,
        schedule_text=_schedule_text(scheduler),
        data_text=_data_text(subject, origin),
        command=None if command is None else " \\\n    ".join(command),
        placeholders=_placeholders_text(command or []),
        settings=None if training is None else _settings(subject, training),
        effort_text=None if training is None else _effort_text(training),
        held_out=None if training is None else _held_out_text(training),
        figures=[] if training is None else _figures(training.metrics),
        protocol=None if training is None else _protocol_text(training.metrics),
        limits=_limits(subject, training),
        references=_references(subject),
    )


def render_stock_card(subject: Subject) -> str:
    """The README.md of the branch `stock`."""
    return _render("stock_card.md.jinja", subject, metadata=_metadata(subject, None))


def public_words(subject: Subject) -> set[str]:
    """Words that a card may hold whatever the author's machine is called: the templates', the classes', the repo's."""
    texts = [path.read_text(encoding="utf-8") for path in sorted(TEMPLATES.glob("*.jinja"))]
    texts += [subject.repo_id, *(subject.classes or []), subject.license or "", subject.data_license or ""]
    return set(re.findall(r"\w+", " ".join(texts)))


def _render(template: str, subject: Subject, metadata: ModelCardData, **values: Any) -> str:
    card = ModelCard.from_template(
        metadata,
        template_path=str(TEMPLATES / template),
        name=_name(subject),
        repo_id=subject.repo_id,
        url=hub_url(subject.repo_id),
        distilled=subject.distilled,
        ancestral_steps=subject.samples.steps if subject.distilled else min(100, len(subject.scheduler)),
        citation=_citation(subject),
        **values,
    )
    return re.sub(r"\n{3,}", "\n\n", str(card)).rstrip() + "\n"


def _metadata(subject: Subject, origin: DataOrigin | None) -> ModelCardData:
    training = subject.training
    kind = "unconditional" if subject.pipeline.num_classes is None else "class-conditional"
    results = [] if training is None or origin is None else _results(training.metrics, origin)
    base = None if training is None else training.config.model.init_from
    return ModelCardData(
        license=subject.license,
        library_name="diffusers",
        pipeline_tag="unconditional-image-generation",
        tags=[TAG, "diffusion", "pixel-space", kind],
        datasets=[origin.hub_id] if origin is not None and origin.hub_id is not None else None,
        base_model=None if base == PLACEHOLDERS["model.init_from"] else base,
        model_name=_name(subject) if results else None,
        eval_results=results or None,
    )


def _results(metrics: dict[str, Any], origin: DataOrigin) -> list[EvalResult]:
    results = []
    for key, (title, _) in _FIGURES.items():
        value = _value(metrics, key)
        if value is not None:
            results.append(
                EvalResult(
                    task_type="unconditional-image-generation",
                    dataset_type=origin.hub_id or "images",
                    dataset_name=origin.title,
                    metric_type=key,
                    metric_name=title,
                    metric_value=value,
                )
            )
    return results


def _name(subject: Subject) -> str:
    return subject.repo_id.split("/")[1]


def _label(subject: Subject, name: str) -> str:
    """A class as Python code: its name where it has one, else its number."""
    return json.dumps(name, ensure_ascii=False) if subject.pipeline.id2label else name


def _prose(text: str) -> str:
    """Text of others, such as the name of a class, that is to be read and not to be taken for Markdown."""
    return re.sub(r"([\\`*_\[\]<>|&#~])", r"\\\1", " ".join(text.split()))


def _listed(names: list[str]) -> str:
    shown = [_prose(name) for name in names[:_LISTED]]
    return ", ".join(shown) + (f" and {len(names) - len(shown)} more" if len(names) > len(shown) else "")


def _summary(subject: Subject) -> str:
    config = subject.pipeline.unet.config
    size, channels = config["sample_size"], config["in_channels"]
    kind = f"{_KINDS[channels]} images of {size}×{size} pixels"
    parameters = sum(p.numel() for p in subject.pipeline.unet.parameters()) / 1e6
    what = f"A diffusion model that draws {kind}"
    if subject.classes is not None:
        what += f", of {len(subject.classes)} classes on request: {_listed(subject.classes)}"
    start = "" if subject.training is None else " from scratch"
    init = None if subject.training is None else subject.training.config.model.init_from
    if subject.distilled:
        start = f" to draw in {subject.samples.steps} network evaluations, from another model,"
    elif init is not None:
        known = init != PLACEHOLDERS["model.init_from"]
        start = f", starting from [{init}]({hub_url(init)})," if known else ", starting from another model,"
    return (
        f"{what}. It is a `UNet2DModel` of diffusers with {parameters:.2f} M parameters, trained{start} with logsnr, a "
        "package for diffusion models of one's own images."
    )


def _samples_caption(subject: Subject) -> str:
    options, classes = subject.samples, subject.classes
    command = f"`logsnr sample {subject.repo_id} --num {options.num}"
    if subject.distilled:
        command += f" --steps {options.steps}"
    if classes is None:
        return f"Not chosen: seeds 0 to {options.num - 1}, {options.steps} steps. {command}` makes them again."
    shown = subject.shown_classes or []
    which = (
        "A row a class" if len(shown) == len(classes) else f"A row a class, the first {len(shown)} of {len(classes)}"
    )
    if len(shown) < len(classes):
        command += " --class-labels …"
    return (
        f"{which}; not chosen: seeds 0 to {options.num - 1}, {options.steps} steps, guidance "
        f"{options.guidance_scale:g}. {command}` makes them again."
    )


def _schedule_text(scheduler: BetaScheduler) -> str:
    first, last = scheduler.log_snr(torch.tensor([0, len(scheduler) - 1])).tolist()
    name = type(scheduler).__name__
    said = f"{_TARGETS[scheduler.prediction_type]}."
    if scheduler.variance_type == "learned_range":
        said += (
            " Its output has twice the channels: the second half is the variance of the reverse step, which plays its "
            "part where sampling adds noise (`eta` above 0, or stock's `DDPMScheduler`)."
        )
    return (
        f"`{name}`, {len(scheduler):,} steps from image to noise: the log-SNR λ = log(ᾱ / (1 − ᾱ)), the logarithm of "
        f"signal over noise, falls from {first:.1f} to {_number(last)}. The network predicts {said}"
    )


def _number(value: float) -> str:
    return f"{value:.1f}".replace("-", "−").replace("inf", "∞")


def _data_text(subject: Subject, origin: DataOrigin | None) -> str:
    if subject.training is None or origin is None:
        stated = f" Their licence: {_prose(subject.data_license)}." if subject.data_license else ""
        return f"Which images it was trained on isn't recorded.{stated}"
    data = subject.training.record["data"]
    named = origin.title
    if origin.hub_id is not None:
        named += f" (on the Hub: [{origin.hub_id}]({hub_url(origin.hub_id, dataset=True)}))"
    stated = "not stated by the author" if origin.license is None else origin.license
    size = re.sub(r"(\d)x(\d)", r"\1×\2", data["description"])
    text = f"{named[0].upper()}{named[1:]}: {size}. Their licence: {stated}."
    classes = subject.classes or []
    return f"{text} All classes: {', '.join(map(_prose, classes))}." if len(classes) > _LISTED else text


def _placeholders_text(command: list[str]) -> str:
    found = [name for name in PLACEHOLDERS.values() if any(name in piece for piece in command)]
    return f"`{'` and `'.join(found)}` stand for folders of the author's." if found else ""


def _settings(subject: Subject, training: Training) -> list[tuple[str, str]]:
    """The rows of the short table of settings."""
    config, options = training.config, training.config.train
    channels = subject.pipeline.unet.config["block_out_channels"]
    objective, condition = config.objective, config.condition
    rows = [
        ("schedule", f"{config.schedule.name}, {config.schedule.num_train_timesteps:,} steps"),
        ("target", _TARGETS[config.schedule.prediction_type]),
        ("loss", f"distillation from {objective.teacher_steps} evaluations into one, c = {objective.huber_c:g}")
        if isinstance(objective, ConsistencyConfig)
        else ("loss weighting", _weighting_text(objective)),
        ("channels of the levels", ", ".join(map(str, channels))),
        ("optimiser", f"AdamW, learning rate {options.learning_rate:g}, {options.lr_warmup_steps} steps of warm-up"),
        ("weights", f"averaged, decay {options.ema_decay:g}"),
        ("seed", str(options.seed)),
    ]
    if subject.classes is not None and isinstance(condition, ClassLabelConfig):
        rows.insert(3, ("labels dropped", f"{100 * condition.dropout:g} %, which guidance needs"))
    if isinstance(objective, ConsistencyConfig):
        origin = f"the model {objective.base_digest}, trained for {objective.base_steps:,} steps"
        rows.insert(0, ("distilled from", origin))
    return rows


def _weighting_text(objective: ObjectiveConfig) -> str:
    if not isinstance(objective, WeightedConfig | HybridConfig):
        return "the variational bound's own" if isinstance(objective, VlbConfig) else f"that of {objective.name}"
    weighting = objective.weighting
    own = [(_SYMBOLS[f.name], getattr(weighting, f.name)) for f in dataclasses.fields(weighting) if f.init]
    text = ", ".join([weighting.name, *(f"{symbol} = {value:g}" for symbol, value in own)])
    if isinstance(objective, HybridConfig):
        text += f", and {objective.vlb_weight:g} times the variational bound for the learned variance"
    return text


def _effort_text(training: Training) -> str:
    options, effort = training.config.train, training.effort
    sessions = [s for s in effort.sessions if s.to_step > s.from_step]
    steps = f"{options.num_steps:,} steps"
    if effort.model_step is not None and effort.model_step != options.num_steps:
        steps = f"{effort.model_step:,} of {options.num_steps:,} steps (an unfinished run)"
    if not sessions:
        batch = options.batch_size * options.gradient_accumulation_steps
        return f"It took {steps} of {batch} images a process. On what and for how long isn't recorded."
    images = sum(s.images for s in sessions)
    machines = list(dict.fromkeys(_machine(s.device, s.processes, s.precision) for s in sessions))
    versions = ", ".join(f"{name} {version}" for name, version in sessions[-1].versions.items())
    times = f", in {len(sessions)} sessions" if len(sessions) > 1 else ""
    return (
        f"It took {steps} and {images:,} images, each counted as often as it was seen, "
        f"{_duration(sum(s.seconds for s in sessions))} on {' and '.join(machines)}{times}. Versions: {versions}."
    )


def _machine(device: str, processes: int, precision: str) -> str:
    return f"{f'{processes} processes, each on ' if processes > 1 else ''}{device} in {precision}"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"


def _held_out_text(training: Training) -> str | None:
    if not training.held_out:
        return None
    last = training.held_out[-1]
    return (
        "The loss on images that were kept from training, by noise level (unweighted, of the averaged weights). "
        f"Weighted as in training it is {last.loss:.4f} at step {last.step:,}."
    )


def _value(metrics: dict[str, Any], key: str) -> float | None:
    """The number of a figure in metrics.json, which is under `value`; the ELBO's is the total of its terms."""
    entry = metrics.get(key, {})
    value = entry["bits_per_dim"]["total"] if "bits_per_dim" in entry else entry.get("value")
    return None if value is None else float(value)


def _figures(metrics: dict[str, Any]) -> list[dict[str, str]]:
    """The rows of the table, in the order of metrics.json: of few images, KID comes first."""
    return [figure for key in metrics if key in _FIGURES and (figure := _figure(metrics, key))]


def _figure(metrics: dict[str, Any], key: str) -> dict[str, str] | None:
    """A row of the table: the figure with its interval or error, and what it is to be read beside."""
    value = _value(metrics, key)
    if value is None:
        return None
    entry, beside = metrics[key], ""
    shown = f"{value:.4g}"
    if "interval" in entry:
        shown += " ({:.4g} to {:.4g})".format(*entry["interval"])
    if "same_n" in entry:
        same = entry["same_n"]
        beside = f"{same['generated']:.4g} of {same['n']:,} drawn images, {same['real']:.4g} of as many real ones"
    if "bits_per_dim" in entry:
        terms = entry["bits_per_dim"]
        shown += f" ± {terms['standard_error']:.2g}"
        said = ", ".join(f"{name} {abs(terms[name]):.4f}" for name in ("prior", "kl", "decoder"))
        beside = f"by term: {said} ({entry['decoder']}); of {entry['num_images']} held-out images"
        if "gap" in entry:
            beside += f", {entry['gap']:.2g} ± {entry['gap_standard_error']:.2g} above as many training images"
    title, direction = _FIGURES[key]
    return {"title": f"{title}, {direction}", "value": shown, "beside": beside}


def _pairs(values: dict[str, Any]) -> list[str]:
    return [
        f"{name.replace('_', ' ')}: {f'{value:.4g}' if isinstance(value, float) else _prose(str(value))}"
        for name, value in values.items()
    ]


def _protocol_text(metrics: dict[str, Any]) -> str:
    """How the figures of the table came about, and what is known of copies."""
    text = f"Protocol: {'; '.join(_pairs(metrics['protocol']))}." if "protocol" in metrics else ""
    if "memorisation" in metrics:
        copying = metrics["memorisation"]["copying"]
        text += (
            "\n\nMemorisation: a drawn image is nearer to its nearest training image than a held-out image is to its "
            f"own in {100 * copying:.0f} % of cases; 50 % is chance, much more would be copying."
        )
    return text.strip()


def _limits(subject: Subject, training: Training | None) -> list[str]:
    size = subject.pipeline.unet.config["sample_size"]
    limits = [f"It draws what its data show, at {size}×{size} pixels, and knows nothing else of the world."]
    count = None if training is None else re.match(r"\d+", training.record["data"]["description"])
    if count is None or int(count[0]) < _FEW_IMAGES:
        few = "Trained on few images, a" if count is not None else "A"
        limits.append(f"{few} model may draw some of its training images nearly as they were.")
    if subject.classes is not None:
        limits.append(
            "More guidance brings images nearer to their class, and nearer to each other: it costs variety. Whether an "
            "image is of the class asked for isn't checked."
        )
    if training is not None and "16 bit" in training.record["data"]["description"]:
        limits.append('It was trained at 16 bits; PNGs of the pipeline have 8, and `output_type="np"` gives floats.')
    limits.append("What it draws is made up: nothing follows from it about anything real.")
    return limits


def _references(subject: Subject) -> str:
    used = (
        [f"the noise schedule is {_REFERENCES[name]}"]
        if (name := type(subject.scheduler).__name__) in _REFERENCES
        else []
    )
    if subject.distilled:
        used.append(
            "it is a multistep consistency model (Heek et al., [2403.06807](https://arxiv.org/abs/2403.06807)), "
            "sampled by DDIM (Song et al., [2010.02502](https://arxiv.org/abs/2010.02502))"
        )
    else:
        used.append("sampling is DDIM's (Song et al., [2010.02502](https://arxiv.org/abs/2010.02502))")
    if subject.scheduler.variance_type == "learned_range":
        used.append("the variance is learned (Nichol and Dhariwal, [2102.09672](https://arxiv.org/abs/2102.09672))")
    if subject.classes is not None:
        used.append("guidance is classifier-free (Ho and Salimans, [2207.12598](https://arxiv.org/abs/2207.12598))")
    return f"What it stands on: {'; '.join(used)}."


def _citation(subject: Subject) -> str:
    owner, name = subject.repo_id.split("/")
    key = re.sub(r"\W", "_", f"{owner}_{name}")
    return (
        f"@misc{{{key},\n"
        f"  author = {{{owner}}},\n"
        f"  title = {{{name}, a diffusion model}},\n"
        f"  howpublished = {{\\url{{{hub_url(subject.repo_id)}}}}},\n"
        "}"
    )
