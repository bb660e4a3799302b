"""Draw with a trained pixel-space model in the browser: images, and how each of them comes out of noise.

This is the app of a Hub Space (sdk gradio), and it needs gradio, torch and diffusers. The model is the one that the
README.md beside it names under `models`; it is loaded with the pipeline that lies in the model's own repo. A second
tab is filled by the repair.py beside it, or by edit.py of a model that draws by prompt. The page of a model of texts is
that of write.py. `logsnr demo` shows the page of a model on this machine.
"""

from __future__ import annotations

import base64
import copy
import functools
import html
import inspect
import io
import json
import os
import random
import re
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import diffusers
import gradio as gr
import numpy as np
import numpy.typing as npt
import torch
from huggingface_hub import hf_hub_download, list_repo_files, metadata_load
from PIL import Image

MOST_IMAGES, MOST_STEPS, FRAMES = 36, 250, 8
LARGEST_SEED = 2**32 - 1
SDE = "DPMSolverMultistep, with noise"
"""Second-order steps that add noise again, which mends what earlier steps did wrong (arXiv 2211.01095, eq. 19)."""
STEPS, GUIDANCE, SCHEDULER = 20, 2.0, SDE

THEME = gr.themes.Default(  # fonts of the reader's own machine: nothing is fetched from elsewhere
    primary_hue="blue", font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
).set(
    body_text_color_subdued="*neutral_500",
    body_text_color_subdued_dark="*neutral_400",
    block_info_text_color="*neutral_500",
    block_info_text_color_dark="*neutral_400",
)
# Pixels stay squares, captions stand under their images, and a checkerboard shows through where one is transparent.
CSS = """
.gradio-container {max-width: 1240px !important; margin: 0 auto !important}
.heading h1 {margin: 0; font-size: 1.7em; font-weight: 650; overflow-wrap: anywhere}
.heading p, .film p {margin: .2em 0 0; color: var(--body-text-color-subdued)}
.pixels img {
    image-rendering: pixelated;
    background: repeating-conic-gradient(#eee 0 25%, #c4c4c4 0 50%) 0 0 / 16px 16px;
}
.gallery {min-height: 440px}
.gallery .grid-container {grid-template-columns: repeat(auto-fill, minmax(100px, 1fr))}
.gallery .thumbnail-item, .examples .thumbnail-item {aspect-ratio: auto; height: auto}
.gallery .thumbnail-item img, .examples .thumbnail-item img {aspect-ratio: 1; height: auto}
.gallery .caption-label, .examples .caption-label {
    position: static; max-width: none; padding: 2px 4px; border: 0; text-align: center; font-size: .75rem;
    opacity: 1 !important;
}
.gallery.repaired {min-height: 190px}
.repaired .grid-wrap, .examples .grid-wrap {min-height: 0 !important}
.examples .grid-container {grid-template-columns: repeat(3, 110px)}
.repairs > div {display: flex; flex-wrap: wrap; gap: 20px; margin-top: .7em}
.repairs figure {width: 240px; margin: 0}
.repairs figure img {aspect-ratio: auto}
.repairs figcaption {font-size: .85em; color: var(--body-text-color-subdued); margin-top: .3em}
.repairs .bar {display: flex; gap: .5em; align-items: center}
.repairs .bar b {flex: 1; height: .8em; border-radius: 2px}
.repairs p {max-width: 60em; margin-top: .8em}
.film h2 {margin: 0; font-size: 1.15em; font-weight: 600}
.film .strip {overflow-x: auto; margin-top: .7em; max-width: calc(100vw - 4em)}
.film table {border-spacing: 4px; border-collapse: separate; width: 100%; min-width: 720px; table-layout: fixed}
.film table, .film tr, .film th, .film td {border: 0; padding: 0}
.film th {font-weight: 500; font-size: .85em; color: var(--body-text-color-subdued)}
.film th[scope=row] {width: 6em; text-align: right; padding-right: .6em}
.film th[scope=col] {text-align: center}
.film img {width: 100%; aspect-ratio: 1; object-fit: contain; border-radius: 3px; display: block; margin: 0}
"""
LAUNCH: dict[str, Any] = {"theme": THEME, "css": CSS, "run_history": False, "footer_links": []}


warnings.filterwarnings("ignore", module="torchsde")  # of the last digit of an interval

# -- The model --------------------------------------------------------------------------------------------------------


def load(repo: str) -> Any:
    """The pipeline of a model folder or Hub repo, by the code that lies there."""
    files = os.listdir(repo) if os.path.isdir(repo) else list_repo_files(repo)
    code = re.compile(r"pipeline_(pixel|text_to_image|text)_[0-9a-f]{8}\.py")
    stems = [file.removesuffix(".py") for file in files if code.fullmatch(file)]
    if not stems:
        raise SystemExit(f"{repo} holds no pipeline_pixel_….py, pipeline_text_to_image_….py or pipeline_text_….py.")
    pipe = diffusers.DiffusionPipeline.from_pretrained(
        repo, custom_pipeline=stems[0], trust_remote_code=True, use_safetensors=True
    )
    if "prompts.json" in files:
        path = Path(repo, "prompts.json") if os.path.isdir(repo) else Path(hf_hub_download(repo, "prompts.json"))
        pipe.prompts = json.loads(path.read_text(encoding="utf-8"))
    return pipe.to("cuda" if torch.cuda.is_available() else "cpu")


class Schedulers(NamedTuple):
    """Names, without the ending "Scheduler"."""

    offered: list[str]
    """The model's own, then the stock ones that sample with its noise schedule."""
    refused: dict[str, str]
    """Stock ones that might have, and why they don't."""


def find_schedulers(pipe: Any) -> Schedulers:
    """Try all schedulers of diffusers that take a noise schedule from outside."""
    own = short(type(pipe.scheduler))
    found = Schedulers([own], {})
    for name in sorted(dir(diffusers.schedulers)):
        cls = getattr(diffusers.schedulers, name, None)  # some need packages that this machine may lack
        if not isinstance(cls, type) or short(cls) == own or "trained_betas" not in inspect.signature(cls).parameters:
            continue
        try:
            scheduler = with_scheduler(pipe, short(cls)).scheduler
        except ValueError as error:
            found.refused[short(cls)] = str(error).partition(": ")[2]
            continue
        scheduler.set_timesteps(4)
        if scheduler.timesteps[0] < scheduler.timesteps[-1]:
            found.refused[short(cls)] = "it goes the other way, from an image to noise."
        else:
            found.offered.append(short(cls))
            if short(cls) == "DPMSolverMultistep":
                found.offered.append(SDE)
    return found


def short(scheduler_class: type) -> str:
    """The class's name without its ending."""
    return scheduler_class.__name__.removesuffix("Scheduler")


def with_scheduler(pipe: Any, name: str) -> Any:
    """The pipeline with a scheduler of its own; the network is shared. Raises `ValueError` with the reason if not."""
    alone = copy.copy(pipe)
    if name == short(type(pipe.scheduler)):
        alone.scheduler = copy.deepcopy(pipe.scheduler)
    elif name == SDE:
        alone.swap_scheduler("DPMSolverMultistep", algorithm_type="sde-dpmsolver++")
    else:
        alone.swap_scheduler(name)
    alone.set_progress_bar_config(disable=True)
    return alone


def by_prompt(pipe: Any) -> bool:
    """Whether the model is told words."""
    return hasattr(pipe, "encode_prompt")


def choices(pipe: Any) -> list[str]:
    """Names of the classes, or their numbers; some prompts of a model that is told words; else empty."""
    if by_prompt(pipe):
        return list(pipe.prompts or [])
    names = pipe.id2label or {}
    return [names.get(index, str(index)) for index in range(pipe.num_classes or 0)]


def describe(pipe: Any) -> str:
    """What the model is, in a line."""
    config, classes = pipe.unet.config, None if by_prompt(pipe) else pipe.num_classes
    size = config.sample_size
    height, width = (size, size) if isinstance(size, int) else size
    kind = {1: "gray", 3: "RGB", 4: "RGBA"}.get(config.in_channels, f"{config.in_channels}-channel")
    parameters = sum(p.numel() for p in pipe.unet.parameters())
    of_classes = ", drawn by prompt" if by_prompt(pipe) else f", {classes} classes" if classes else ""
    return f"A diffusion model of {kind} images, {width}×{height} pixels{of_classes} · {parameters:,} parameters"


# -- The film: copied from logsnr/film.py, where its mathematics is told and tested ------------------------------------


class Frame(NamedTuple):
    """One evaluation of the network. Images are (batch, channels, height, width), about in [−1, 1], not clipped; states
    are int64, (batch, length)."""

    timestep: float
    """t; solvers with steps between the steps have fractions."""
    noise: float
    """1 − ᾱ_t, the share of noise in the variance of x_t, or the share of the states that noise took."""
    sample: torch.Tensor
    """x_t."""
    predicted: torch.Tensor
    """x̂_0."""


def record(scheduler: Any, frames: int, on_step: Callable[[int, int], None] = lambda done, total: None) -> list[Frame]:
    """The next sampling run with `scheduler` puts `frames` of its steps, evenly chosen, into the returned list.

    `scheduler.step(model_output, t, sample)` is where x_t and the network's (guided) output meet in any pipeline, so
    it is what is recorded, on this instance alone. Solvers that work on x_t / a_t (Euler, Heun) give the network
    `scale_model_input(sample, t)`, which is x_t again. Between two timesteps the log-SNR is interpolated.

    on_step: called with the number of steps done and their total after each.
    """
    # at zero terminal SNR the log-SNR is −∞, and ε says nothing of x_0: ±60 is as good, and finite
    log_snr = torch.logit(scheduler.alphas_cumprod.double()).clamp(-60, 60)
    step, film, done = scheduler.step, list[Frame](), 0

    def frame(output: torch.Tensor, t: float, x: torch.Tensor) -> Frame:
        low = min(int(t), len(log_snr) - 1)
        at = torch.lerp(log_snr[low], log_snr[min(low + 1, len(log_snr) - 1)], t - low)
        a, s = float(at.sigmoid().sqrt()), float((-at).sigmoid().sqrt())
        m = output[:, : x.shape[1]]  # learned variances come after
        predicted = {
            "epsilon": lambda: (x - s * m) / a,
            "sample": lambda: m,
            "v_prediction": lambda: a * x - s * m,
            "x0_minus_noise": lambda: (x + s * m) / (a + s),
        }[scheduler.config["prediction_type"]]()
        return Frame(t, s**2, x.float().cpu(), predicted.float().cpu())

    @functools.wraps(step)
    def recorded(model_output: torch.Tensor, timestep: Any, sample: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        nonlocal done
        total = len(scheduler.timesteps)
        chosen = done in {round(k * (total - 1) / max(frames - 1, 1)) for k in range(frames)}
        states = not sample.is_floating_point()
        if chosen and not states:
            film.append(frame(model_output, float(timestep), scheduler.scale_model_input(sample, timestep)))
        result = step(model_output, timestep, sample, *args, **kwargs)
        if chosen and states:
            noise = 1 - float(scheduler.alphas_cumprod[int(timestep)])
            film.append(Frame(float(timestep), noise, sample.cpu(), result.pred_original_sample.cpu()))
        done += 1
        on_step(done, total)
        return result

    scheduler.step = recorded
    return film


# -- Drawing ----------------------------------------------------------------------------------------------------------


class Column(NamedTuple):
    """A column of the film strip, for all images: pixels (batch, height, width, channels)."""

    noise: float
    seen: npt.NDArray[np.uint8]
    predicted: npt.NDArray[np.uint8]


class Drawing(NamedTuple):
    """Images, what is said of each and of all, and their film."""

    images: list[Image.Image]
    captions: list[str]
    summary: str
    film: list[Column]


def draw(
    pipe: Any,
    *,
    number: int,
    steps: int,
    scheduler: str,
    classes: list[str],
    guidance: float,
    seed: int | None,
    on_step: Callable[[int, int], None],
) -> Drawing:
    """Image k has seed `seed + k` and the `classes` (or prompts) in turn, all of the model's if none is given. Raises
    `ValueError`."""
    if seed is None or not 0 <= seed <= LARGEST_SEED:
        raise ValueError(f"The seed must be a whole number from 0 to {LARGEST_SEED}, and is {seed}.")
    begin, alone = time.monotonic(), with_scheduler(pipe, scheduler)
    what: dict[str, Any] = {"batch_size": number}
    names = classes or choices(pipe)
    labels = [names[k % len(names)] for k in range(number)] if names else []
    if labels:
        told = {"prompt": labels} if by_prompt(pipe) else {"class_labels": list(map(choices(pipe).index, labels))}
        what = {**told, "guidance_scale": guidance}
    film = record(alone.scheduler, FRAMES, on_step)
    try:
        images = alone(num_inference_steps=steps, generator=int(seed), output_type="np", **what).images
    except Exception as error:  # whatever a solver raises is the reason
        raise ValueError(
            f"{steps} steps of {scheduler} ended in {type(error).__name__}: {error}. Try another number of steps, "
            "another scheduler or fewer images."
        ) from error
    if not np.isfinite(images).all():
        raise ValueError(f"{steps} steps of {scheduler} diverged. Try another number of steps or another scheduler.")
    captions = [f"seed {seed + k}" for k in range(number)]
    if labels:
        captions = [f"{label} · {caption}" for label, caption in zip(labels, captions, strict=True)]
    return Drawing(
        [to_image(image) for image in (images * 255).round().astype(np.uint8)],
        captions,
        f"{number} {'image' if number == 1 else 'images'} in {time.monotonic() - begin:.1f} s: {steps} steps of "
        f"{scheduler}, {f'guidance {guidance:g}, ' if labels else ''}"
        f"{f'seeds {seed} to {seed + number - 1}' if number > 1 else f'seed {seed}'}.",
        [Column(frame.noise, to_pixels(frame.sample), to_pixels(frame.predicted)) for frame in film],
    )


def to_pixels(images: torch.Tensor) -> npt.NDArray[np.uint8]:
    """(batch, channels, height, width) in [−1, 1] to (batch, height, width, channels)."""
    return images.add(1).mul(127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()


def to_image(pixels: npt.NDArray[np.uint8]) -> Image.Image:
    """(height, width, channels) to L, RGB or RGBA."""
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def film_html(drawing: Drawing, k: int) -> str:
    """The film strip of image k as a table."""
    film = drawing.film
    shares = [f"{100 * c.noise:.0f} %" if c.noise >= 0.01 else f"{100 * c.noise:.1g} %" for c in film]
    head = "".join(f'<th scope="col">{share}</th>' for share in shares)
    rows = ""
    for name in ("seen", "predicted"):
        cells = [
            picture(getattr(c, name)[k], f"{name} at {share} noise") for c, share in zip(film, shares, strict=True)
        ]
        rows += f'<tr><th scope="row">{name}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>'
    return f"""<div class="film pixels"><h2>Out of noise: {html.escape(drawing.captions[k])}</h2>
<p>From left to right, under the share of noise that is left: what the network is given at some of the steps, and the
clean image that it makes out in it. Each step goes a little way toward what is predicted.</p>
<div class="strip"><table><tr><th scope="row">noise</th>{head}</tr>{rows}</table></div></div>"""


def picture(pixels: npt.NDArray[np.uint8], what: str) -> str:
    """An <img> that holds its pixels itself."""
    file = io.BytesIO()
    to_image(pixels).save(file, format="PNG")
    return f'<img alt="{what}" src="data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}">'


# -- The page ---------------------------------------------------------------------------------------------------------


def build(
    pipe: Any,
    title: str,
    repair: Callable[[Any, Callable[[int], list[Image.Image]]], None] | None,
    edit: Callable[[Any, Callable[[int], list[Image.Image]], Callable[[], Any]], None] | None = None,
) -> gr.Blocks:
    """The page of a model; `title` is plain text.

    repair: fills a second tab, and is given it and what draws as many images as it asks for; None of a model that can't
        repair.
    edit: fills one too, of a model that draws by prompt, and is also given what makes a pipeline to draw with.
    """
    schedulers = find_schedulers(pipe)
    own, few = schedulers.offered[0], pipe.scheduler.config.get("_consistency")  # a distilled model's number of steps
    best = SCHEDULER if SCHEDULER in schedulers.offered and few is None else own
    longest = min(MOST_STEPS, pipe.scheduler.config.num_train_timesteps)
    usual = few or min(STEPS, longest)

    def some(number: int) -> list[Image.Image]:
        how: dict[str, Any] = {"classes": [], "guidance": GUIDANCE, "seed": 0, "on_step": lambda done, total: None}
        return draw(pipe, number=number, steps=usual, scheduler=best, **how).images

    with gr.Blocks(title=title, analytics_enabled=False, delete_cache=(3600, 3600)) as page:
        gr.HTML(f'<div class="heading"><h1>{html.escape(title)}</h1><p>{describe(pipe)}</p></div>')
        if repair is None and edit is None:
            fill(pipe, schedulers, best, usual, longest)
            return page
        with gr.Tab("Draw"):
            fill(pipe, schedulers, best, usual, longest)
        if repair is not None:
            with gr.Tab("Repair") as tab:
                repair(tab, some)
        if edit is not None:
            with gr.Tab("Edit") as tab:
                edit(tab, some, functools.partial(with_scheduler, pipe, best))
    return page


def fill(pipe: Any, schedulers: Schedulers, best: str, usual: int, longest: int) -> None:
    """The drawing part of the page; it begins with the scheduler `best` and `usual` steps."""
    names, own, worded = choices(pipe), schedulers.offered[0], by_prompt(pipe)
    kept = gr.State(None)
    with gr.Row():
        with gr.Column(scale=4, min_width=320):
            with gr.Row():
                number = gr.Slider(
                    1, MOST_IMAGES, value=16, step=1, precision=0, label="Images", buttons=[], min_width=120
                )
                steps = gr.Slider(
                    1, longest, value=usual, step=1, precision=0, label="Steps", buttons=[], min_width=120
                )
            scheduler = gr.Dropdown(
                [(f"{own} (the model's own)", own), *schedulers.offered[1:]],
                value=best,
                label="Scheduler",
                info="The rule for a step. Few steps go best with a solver of higher order, such as DPMSolver.",
            )
            classes = gr.Dropdown(
                names,
                value=[],
                multiselect=True,
                allow_custom_value=worded,
                label="Prompts" if worded else "Classes",
                info="Several take turns. All of them when none is chosen."
                + " Or write your own, and press Enter." * worded,
                visible=worded or bool(names),
            )
            guidance = gr.Slider(
                0,
                8,
                value=GUIDANCE,
                step=0.1,
                label="Guidance",
                info="1 is the plain model; more keeps nearer to what is asked for and varies less; 0 ignores it.",
                buttons=[],
                visible=worded or bool(names),
            )
            seed = gr.Number(0, precision=0, label="Seed", info="Of the first image; the next has the next seed.")
            with gr.Row():
                again = gr.Button("Other seeds", min_width=120)
                button = gr.Button("Draw", variant="primary", min_width=120)
        with gr.Column(scale=7, min_width=320):
            gallery = gr.Gallery(
                show_label=False,
                format="png",
                object_fit="contain",
                allow_preview=False,
                buttons=["download_all"],
                elem_classes=["pixels", "gallery"],
                interactive=False,
            )
            summary = gr.Markdown("Press Draw. Then click an image to see how it came out of noise.")
    strip = gr.HTML()
    with gr.Accordion(f"{len(schedulers.refused)} schedulers that can't draw with this model", open=False):
        gr.Markdown("\n".join(f"- **{name}**: {reason}" for name, reason in schedulers.refused.items()))

    def on_draw(
        number: int,
        classes: list[str],
        guidance: float,
        steps: int,
        scheduler: str,
        seed: int | None,
        progress: Any = gr.Progress(),  # noqa: B008  # gradio finds it by this default
    ) -> tuple[Any, ...]:
        try:
            drawing = draw(
                pipe,
                number=number,
                steps=steps,
                scheduler=scheduler,
                classes=classes,
                guidance=guidance,
                seed=seed,
                on_step=lambda done, total: progress((done, total), desc="Drawing"),
            )
        except ValueError as error:
            raise gr.Error(html.escape(str(error), quote=False), print_exception=False) from error
        shown = list(zip(drawing.images, drawing.captions, strict=True))
        summary = f"{drawing.summary} Click one to see how it came out of noise."
        return gr.Gallery(shown, selected_index=None), summary, drawing, film_html(drawing, 0)

    def on_select(drawing: Drawing, chosen: gr.SelectData) -> str:
        return film_html(drawing, chosen.index)

    drawn = {
        "fn": on_draw,
        "inputs": [number, classes, guidance, steps, scheduler, seed],
        "outputs": [gallery, summary, kept, strip],
        "show_progress_on": gallery,
        "concurrency_id": "network",
    }
    button.click(**drawn, api_name="draw")
    again.click(lambda: random.randrange(LARGEST_SEED), None, seed, api_visibility="private").success(
        **drawn, api_visibility="private"
    )
    gallery.select(on_select, kept, strip, show_progress="hidden", api_visibility="private")


if __name__ == "__main__":
    import easel  # type: ignore[import-not-found]  # they lie beside this file
    import edit  # type: ignore[import-not-found]
    import repair  # type: ignore[import-not-found]
    import write  # type: ignore[import-not-found]

    metadata = metadata_load(Path(__file__).with_name("README.md"))
    assert metadata is not None
    (model,) = metadata["models"]
    loaded = load(model)
    if write.writes(loaded):
        write.build(loaded, model).launch(**LAUNCH)
    elif by_prompt(loaded):
        build(loaded, model, None, functools.partial(edit.fill, loaded, repair, easel)).launch(**LAUNCH)
    else:
        restorer = repair.load(model, loaded)
        build(loaded, model, restorer and functools.partial(repair.fill, restorer, easel)).launch(**LAUNCH)
