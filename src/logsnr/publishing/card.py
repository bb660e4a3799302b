"""What is known of a model -> its card, the README.md of its repo: metadata for the Hub, and a page for a reader.

The page is the template `hub_cards/model_card.md.jinja`, rendered by huggingface_hub; here is what it is filled with.
What is said in the words of a kind of data comes from its `Parts`. The same facts give the same text, byte for byte, so
that publishing again what didn't change changes nothing.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from logsnr.base.words import LISTED, listed
from logsnr.media.plots import readable
from logsnr.models.schedules import NoiseSchedule
from logsnr.publishing.figures import figures, protocol_text, results
from logsnr.publishing.markdown import prose
from logsnr.publishing.provenance import base_of, data_origin, hub_url, is_placeholder, training_command
from logsnr.publishing.published import Published, Training
from logsnr.publishing.repair import repair_figures, repair_protocols
from logsnr.publishing.training_words import effort_text, held_out_text, settings_rows, target
from logsnr.sampling.sample import DEFAULT_GUIDANCE
from logsnr.schedulers.scheduling_beta import BetaScheduler
from logsnr.schedulers.scheduling_transition import TransitionScheduler
from logsnr.settings.kind import kind_named
from logsnr.tasks.words import DataOrigin

TEMPLATES = Path(__file__).parent.parent / "hub_cards"
TAG = "logsnr"
"""Says on the Hub that a repo was published by us."""

_FEW = 10_000
"""Examples of which a model may draw some nearly as they were."""
_REFERENCES = {
    "LinearBetaScheduler": "linear (Ho et al., [2006.11239](https://arxiv.org/abs/2006.11239))",
    "CosineBetaScheduler": "cosine (Nichol and Dhariwal, [2102.09672](https://arxiv.org/abs/2102.09672))",
    "SigmoidBetaScheduler": "sigmoid (Jabri et al., [2212.11972](https://arxiv.org/abs/2212.11972))",
    "LaplaceBetaScheduler": "laplace (Hang et al., [2407.03297](https://arxiv.org/abs/2407.03297))",
    "LearnedBetaScheduler": "learned (Kingma et al., [2107.00630](https://arxiv.org/abs/2107.00630))",
}


def render_card(published: Published) -> str:
    """The README.md of the main branch."""
    training, classes, scheduler, noun = (
        published.training,
        published.classes,
        published.scheduler,
        published.parts.noun,
    )
    origin = None if training is None else data_origin(training.config, published.data_license)
    command = [] if training is None else training_command(training.config, f"runs/{published.name}")
    metrics = {} if training is None else training.metrics
    steps, curve = published.steps, published.curve
    return _render(
        "model_card.md.jinja",
        published,
        metadata=_metadata(published, origin),
        summary=_summary(published),
        samples_caption=_samples_caption(published),
        samples_shown=published.samples.num,
        stock=published.stock,
        knows_target=not isinstance(scheduler, BetaScheduler) or scheduler.prediction_type != "x0_minus_noise",
        stock_imports=published.words.stock_imports,
        code=published.code,
        custom_pipeline=None if published.names_code else published.code,
        is_foreign=type(published.pipeline).__module__.split(".")[0] not in ("logsnr", "diffusers"),
        classes=classes,
        brings=_brings(published),
        drawing=_drawing(published, steps) + _then(published),
        drawing_few=_drawing(published, curve.nearest) if curve is not None and curve.tuned_steps else None,
        stock_of=published.words.stock_of if published.stock == "branch" else "",
        curve=curve,
        schedule_text=_schedule_text(published),
        data_text=_data_text(published, origin),
        command=" \\\n    ".join(command),
        placeholders="" if training is None else _placeholders_text(training, command),
        settings=None if training is None else settings_rows(published, training),
        effort_text=None if training is None else effort_text(training, noun),
        held_out=None if training is None else held_out_text(training, noun),
        repairs=published.repairs,
        repair_figures=repair_figures(metrics),
        repair_protocols=repair_protocols(metrics),
        figures=figures(metrics, noun),
        protocol=protocol_text(metrics, noun),
        limits=_limits(published),
        references=_references(published),
    )


def render_stock_card(published: Published) -> str:
    """The README.md of the branch `stock`."""
    return _render("stock_card.md.jinja", published, metadata=_metadata(published, None))


def public_words(published: Published) -> set[str]:
    """Words that a card may hold whatever the author's machine is called: the templates', the classes', the repo's."""
    texts = [path.read_text(encoding="utf-8") for path in sorted(TEMPLATES.glob("*.jinja"))]
    texts += [
        published.repo_id,
        *published.classes,
        *published.prompts,
        published.license or "",
        published.data_license or "",
    ]
    texts += [published.parts.noun, published.words.draws]
    return set(re.findall(r"\w+", " ".join(texts)))


def _render(template: str, published: Published, metadata: ModelCardData, **values: Any) -> str:
    scheduler = published.scheduler
    # stock solvers fail at zero terminal SNR, and most of them at twice the channels
    keep = float(scheduler.betas[-1]) == 1 or _learns_variance(scheduler) or published.distilled
    ancestral = published.steps if published.distilled else min(100, len(scheduler))
    card = ModelCard.from_template(
        metadata,
        template_path=str(TEMPLATES / template),
        name=published.name,
        repo_id=published.repo_id,
        url=hub_url(published.repo_id),
        noun=published.parts.noun,
        distilled=published.distilled,
        stock_class=type(published.stock_form).__name__,
        keep_scheduler=keep,
        drawing_stock=_drawing_stock(published, published.steps),
        drawing_ancestral=_drawing_stock(published, ancestral),
        citation=_citation(published),
        **values,
    )
    return re.sub(r"\n{3,}", "\n\n", str(card)).rstrip() + "\n"


def _learns_variance(scheduler: NoiseSchedule) -> bool:
    return isinstance(scheduler, BetaScheduler) and scheduler.variance_type == "learned_range"


def _metadata(published: Published, origin: DataOrigin | None) -> ModelCardData:
    training, words = published.training, published.words
    conditional = (
        "class-conditional" if published.classes else "text-conditional" if published.prompts else "conditional"
    )
    measured = [] if training is None or origin is None else _results(published, training.metrics, origin)
    base = (
        None
        if training is None or is_placeholder(training.config, base_of(training.config))
        else base_of(training.config)
    )
    return ModelCardData(
        license=published.license,
        library_name="diffusers",
        pipeline_tag=words.task,
        tags=[TAG, "diffusion", *words.tags, conditional if words.asks else "unconditional"],
        datasets=[origin.hub_id] if origin is not None and origin.hub_id is not None else None,
        base_model=base,
        model_name=published.name if measured else None,
        eval_results=measured or None,
    )


def _results(published: Published, metrics: dict[str, Any], origin: DataOrigin) -> list[EvalResult]:
    return [
        EvalResult(
            task_type=published.words.task or "other",
            dataset_type=origin.hub_id or f"{published.parts.noun}s",
            dataset_name=origin.title,
            metric_type=kind,
            metric_name=title,
            metric_value=value,
        )
        for kind, title, value in results(metrics)
    ]


def _drawing(published: Published, steps: int) -> str:
    """Python that draws with `pipe`: some of what can be asked for, or four samples of whatever comes."""
    words, guidance = published.words, published.samples.guidance_scale or DEFAULT_GUIDANCE
    if not words.asks:
        plain = ("batch_size=4", f"num_inference_steps={steps}", words.seeds, words.returned)
        return words.call.format(_arguments(*plain))
    asked = (words.asks, f"guidance_scale={guidance}", f"num_inference_steps={steps}", words.seeds, words.returned)
    return words.call.format(f"\n    {_arguments(*asked)}\n")


def _drawing_stock(published: Published, steps: int) -> str:
    words = published.words
    if words.stock_call:
        return words.stock_call.replace("{repo_id}", published.repo_id)
    asked = (words.asks_stock, f"num_inference_steps={steps}", words.returned)
    given = _arguments(*asked) if words.asks_stock == "batch_size=4" else f"\n    {_arguments(*asked)}\n"
    return words.call.format(given) + _then(published)


def _arguments(*pieces: str) -> str:
    return ", ".join(filter(None, pieces))


def _then(published: Published) -> str:
    return f"\n{published.words.then}" if published.words.then else ""


def _brings(published: Published) -> str:
    """What the model's own code can do that stock's can't."""
    brings = ["classes"] * bool(published.classes) + ["guidance"] * (
        bool(published.words.asks) and not published.prompts
    )
    brings.append(f"a seed for each {published.parts.noun}")
    if hasattr(published.pipeline, "swap_scheduler"):
        swapping = "and `swap_scheduler`, which refuses a scheduler that would use another\nnoise schedule"
        return ", ".join([*brings, swapping])
    return " and ".join(brings)


def _summary(published: Published) -> str:
    words, network, training = published.words, published.parts.trunk(published.network), published.training
    parameters = sum(p.numel() for p in network.parameters()) / 1e6
    what = f"A diffusion model that {words.verb} {words.draws}"
    if published.classes:
        what += f", of {len(published.classes)} classes on request: {listed(map(prose, published.classes))}"
    start = "" if training is None else " from scratch"
    base = None if training is None else base_of(training.config)
    if published.distilled:
        start = f" to draw in {published.steps} network evaluations, from another model,"
    elif training is not None and base is not None:
        known = not is_placeholder(training.config, base)
        start = f", starting from [{base}]({hub_url(base)})," if known else ", starting from another model,"
    cls = type(network)
    libraries = (diffusers, transformers)
    of = next((f" of {each.__name__}" for each in libraries if getattr(each, cls.__name__, None) is cls), "")
    beside = ", and a text encoder" if published.prompts else ""
    return (
        f"{what}. It is a `{cls.__name__}`{of} with {parameters:.2f} M parameters{beside}, trained{start} with logsnr, "
        "a package for diffusion models of one's own data."
    )


def _samples_caption(published: Published) -> str:
    options, classes = published.samples, published.classes
    command = f"`logsnr sample {published.repo_id} --num {options.num}"
    if published.distilled:
        command += f" --steps {published.steps}"
    if published.prompts:
        prompts = "".join(f" {shlex.quote(prompt)}" for prompt in published.shown or [])
        return (
            f"A row a prompt, the caption of a held-out {published.parts.noun}; not chosen: seeds 0 to "
            f"{options.num - 1}, {published.steps} steps, guidance {options.guidance_scale:g}. {command} "
            f"--prompts{prompts}` makes them again."
        )
    if not classes:
        return f"Not chosen: seeds 0 to {options.num - 1}, {published.steps} steps. {command}` makes them again."
    shown = published.shown or []
    which = (
        "A row a class" if len(shown) == len(classes) else f"A row a class, the first {len(shown)} of {len(classes)}"
    )
    if len(shown) < len(classes):
        command += " --class-labels …"
    drawn = readable(shown)
    numbered = [f"{k} {prose(name)}" for k, name in enumerate(shown) if drawn[k] == str(k) != name]
    if numbered:
        which += f" (by number where its name can't be drawn: {', '.join(numbered)})"
    return (
        f"{which}; not chosen: seeds 0 to {options.num - 1}, {published.steps} steps, guidance "
        f"{options.guidance_scale:g}. {command}` makes them again."
    )


def _schedule_text(published: Published) -> str:
    scheduler = published.scheduler
    first, last = scheduler.log_snr(torch.tensor([0, len(scheduler) - 1])).tolist()
    name = type(scheduler).__name__
    falls = f"falls from {first:.1f} to {_number(last)}"
    if isinstance(scheduler, TransitionScheduler):
        return (
            f"`{name}` of the kernel {scheduler.kernel}, {len(scheduler):,} steps from {published.parts.noun} to "
            f"noise: ᾱ is the share of the {scheduler.num_states:,} states that has survived, and the log-SNR "
            f"λ = log(ᾱ / (1 − ᾱ)) {falls}. The network predicts the clean state of each place."
        )
    said = f"{target(scheduler.prediction_type, published.parts.noun)}."
    if _learns_variance(scheduler):
        said += (
            " Its output has twice the channels: the second half is the variance of the reverse step, which plays its "
            "part where sampling adds noise (`eta` above 0, or stock's `DDPMScheduler`)."
        )
    return (
        f"`{name}`, {len(scheduler):,} steps from {published.parts.noun} to noise: the log-SNR λ = log(ᾱ / (1 − ᾱ)), "
        f"the logarithm of signal over noise, {falls}. The network predicts {said}"
    )


def _number(value: float) -> str:
    return f"{value:.1f}".replace("-", "−").replace("inf", "∞")


def _data_text(published: Published, origin: DataOrigin | None) -> str:
    if published.training is None or origin is None:
        stated = f" Their licence: {prose(published.data_license)}." if published.data_license else ""
        return f"Which {published.parts.noun}s it was trained on isn't recorded.{stated}"
    named = origin.title
    if origin.hub_id is not None:
        named += f" (on the Hub: [{origin.hub_id}]({hub_url(origin.hub_id, dataset=True)}))"
    stated = "not stated by the author" if origin.license is None else origin.license
    size = re.sub(r"(\d)x(\d)", r"\1×\2", published.training.data)
    text = f"{named[0].upper()}{named[1:]}: {size}. Their licence: {stated}."
    classes = published.classes
    return f"{text} All classes: {', '.join(map(prose, classes))}." if len(classes) > LISTED else text


def _placeholders_text(training: Training, command: list[str]) -> str:
    placeholders = kind_named(training.config.kind).placeholders
    found = [name for name in placeholders.values() if any(name in piece for piece in command)]
    return f"`{'` and `'.join(found)}` stand for folders of the author's." if found else ""


def _limits(published: Published) -> list[str]:
    limits, noun, training = list(published.words.limits), published.parts.noun, published.training
    count = None if training is None else re.match(r"\d+", training.data)
    if count is None or int(count[0]) < _FEW:
        few = f"Trained on few {noun}s, a" if count is not None else "A"
        limits.append(f"{few} model may draw some of its training {noun}s nearly as they were.")
    if published.prompts:
        limits.append(
            f"It knows the words of its training captions, and no others. More guidance brings {noun}s nearer to the "
            "prompt, and nearer to each other: it costs variety."
        )
    if published.classes:
        checked = training is not None and "classes" in training.metrics.get("asked", {})
        limits.append(
            f"More guidance brings {noun}s nearer to their class, and nearer to each other: it costs variety."
            + ("" if checked else f" Whether {_a(noun)} is of the class asked for isn't checked.")
        )
    return [*limits, "What it draws is made up: nothing follows from it about anything real."]


def _a(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def _references(published: Published) -> str:
    used = (
        [f"the noise schedule is {_REFERENCES[name]}"]
        if (name := type(published.scheduler).__name__) in _REFERENCES
        else []
    )
    if published.distilled:
        used.append(
            "it is a multistep consistency model (Heek et al., [2403.06807](https://arxiv.org/abs/2403.06807)), "
            "sampled by DDIM (Song et al., [2010.02502](https://arxiv.org/abs/2010.02502))"
        )
    elif isinstance(published.scheduler, TransitionScheduler):
        used.append(
            "noise and sampling are D3PM's (Austin et al., [2107.03006](https://arxiv.org/abs/2107.03006)), with the "
            "exact posterior"
        )
    else:
        used.append("sampling is DDIM's (Song et al., [2010.02502](https://arxiv.org/abs/2010.02502))")
    if _learns_variance(published.scheduler):
        used.append("the variance is learned (Nichol and Dhariwal, [2102.09672](https://arxiv.org/abs/2102.09672))")
    if published.words.asks:
        used.append("guidance is classifier-free (Ho and Salimans, [2207.12598](https://arxiv.org/abs/2207.12598))")
    return f"What it stands on: {'; '.join(used)}."


def _citation(published: Published) -> str:
    owner, name = published.repo_id.split("/")
    key = re.sub(r"\W", "_", f"{owner}_{name}")
    return (
        f"@misc{{{key},\n"
        f"  author = {{{owner}}},\n"
        f"  title = {{{name}, a diffusion model}},\n"
        f"  howpublished = {{\\url{{{hub_url(published.repo_id)}}}}},\n"
        "}"
    )
