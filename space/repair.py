"""Repair a picture with a trained model in the browser: several repairs, and where they disagree.

The second tab of the page in the app.py beside it, with which it travels into Hub Spaces; it needs gradio, torch and
diffusers. What repairs is a `RestorationPipeline`, the `restorer` below: `load` makes it by the code that lies in the
repo of a published model, and `logsnr demo` has it at hand.

A measurement is y = A x_0 + σ n: A says what is wrong with the picture, pixel values lie in [0, 1], and σ is stated in
that range. Several repairs are several draws of x_0 given y.
"""

from __future__ import annotations

import base64
import functools
import html
import io
import os
import re
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import gradio as gr
import numpy as np
import numpy.typing as npt
import torch
from diffusers.utils.dynamic_modules_utils import get_class_from_dynamic_module
from huggingface_hub import list_repo_files
from PIL import Image, ImageDraw, ImageOps

MOST_REPAIRS, MOST_STEPS, STEPS, NOISE = 16, 250, 20, 0.02
LARGEST_SEED = 2**32 - 1
ROOM = 2**31
"""Bytes that repairs may take at once; more of them come in turns."""
CANVAS = 448
"""About as many pixels a side has the canvas on which a hole is painted, whatever the model's size."""
PAINT = "#e5399a"
METHODS = [("diffpir: quick", "diffpir"), ("moment: slower, and its map is to be believed more", "moment")]
HEAT = ((0, 0, 4), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164))
"""Colours of the map, from where repairs agree to where they differ most."""
MODES = {1: "L", 3: "RGB", 4: "RGBA"}

Pixels = npt.NDArray[np.uint8]


def load(repo: str, pipe: Any) -> Any:
    """A `RestorationPipeline` of the network and scheduler of `pipe`, by the code in its folder or Hub repo.

    None where that code isn't there: a model distilled for a few steps has none, for it can't repair.
    """
    files = os.listdir(repo) if os.path.isdir(repo) else list_repo_files(repo)
    found = [file for file in files if re.fullmatch(r"pipeline_restoration_[0-9a-f]{8}\.py", file)]
    if not found:
        return None
    code = get_class_from_dynamic_module(repo, found[0], class_name="RestorationPipeline", trust_remote_code=True)
    restorer = code(pipe.unet, pipe.scheduler, pipe.id2label)
    restorer.set_progress_bar_config(disable=True)
    return restorer


# -- The picture ------------------------------------------------------------------------------------------------------


class Damage(NamedTuple):
    """What is wrong with a picture, beside what is painted over."""

    kind: str
    """"missing", "noise", "blur", "half" or "quarter"."""
    noise: float
    """σ of the noise, of pixel values in [0, 1]."""
    blur: float
    """Standard deviation of a Gaussian blur, in pixels of the model."""

    @property
    def factor(self) -> int:
        """How many pixels of the model, a side, stand behind one of the picture."""
        return {"half": 2, "quarter": 4}.get(self.kind, 1)


def canvas_size(shape: tuple[int, int, int]) -> tuple[int, int]:
    """(height, width) of the canvas: a multiple of the model's."""
    times = max(1, CANVAS // max(shape[1:]))
    return shape[1] * times, shape[2] * times


class Cropped(NamedTuple):
    """The middle of a picture, of the model's proportions, in its channels and as large as the canvas."""

    picture: Image.Image
    seen: tuple[int, int]
    """(height, width) that the middle had before."""


def crop(picture: Image.Image, shape: tuple[int, int, int]) -> Cropped:
    """A picture as it is shown on the canvas."""
    if picture.mode.startswith("I"):  # 16 bit
        picture = Image.fromarray((np.asarray(picture, float) / 257).round().astype(np.uint8))
    rgba, mode = picture.convert("RGBA"), MODES[shape[0]]
    if mode != "RGBA":
        rgba = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    height, width = canvas_size(shape)
    scale = min(rgba.height / height, rgba.width / width)
    resampling = Image.Resampling.LANCZOS if scale > 1 else Image.Resampling.NEAREST
    fitted = ImageOps.fit(rgba.convert(mode), (width, height), resampling)
    return Cropped(fitted, (round(height * scale), round(width * scale)))


def reduce(picture: Pixels, size: tuple[int, int]) -> npt.NDArray[np.float64]:
    """The means of equal blocks: (height, width, channels) of 0 to 255 to (channels, *size) of 0 to 1."""
    (height, width), (high, wide) = size, picture.shape[:2]
    blocks = picture.reshape(height, high // height, width, wide // width, -1)
    means: npt.NDArray[np.float64] = blocks.mean((1, 3)).transpose(2, 0, 1) / 255
    return means


def read(given: Cropped | None, layers: list[Image.Image], damage: Damage, restorer: Any) -> tuple[Any, Any]:
    """What the model is to go by, (1, channels, height, width) in [0, 1] and 0 in the hole, and what isn't missing.

    layers: RGBA, transparent where nothing is painted. Raises `ValueError` in words for the page.
    """
    if given is None:
        raise ValueError("There is no picture. Drop one into the frame, or take one of those beside it.")
    channels, *whole = restorer.image_shape
    height, width = (side // damage.factor for side in whole)
    if given.seen[0] < height or given.seen[1] < width:
        smaller = " Or say that it is half or a quarter of the size." if damage.factor == 1 else ""
        raise ValueError(
            f"The picture has {given.seen[1]}×{given.seen[0]} pixels in the model's proportions, and {width}×{height} "
            f"are needed. Take a larger one.{smaller}"
        )
    measurement = torch.from_numpy(reduce(np.asarray(given.picture), (height, width))).float()
    known = torch.ones(1, height, width, dtype=torch.bool)
    for layer in layers:
        alpha = layer.getchannel("A").resize(given.picture.size, Image.Resampling.NEAREST)
        known &= torch.from_numpy(reduce(np.asarray(alpha), (height, width))) < 0.02
    if damage.kind == "missing" and bool(known.all()):
        raise ValueError("Nothing is painted. Paint over what is missing, or say what else is wrong with the picture.")
    if damage.kind == "noise" and damage.noise == 0:
        raise ValueError("There is nothing to repair: the noise is 0. Say how strong it is.")
    if not bool(known.any()):
        raise ValueError("All of the picture is painted over. Leave some of it.")
    known = known.expand(channels, -1, -1).contiguous()
    return (measurement * known)[None], known


def operator_of(damage: Damage, known: torch.Tensor, restorer: Any) -> Any:
    """A and σ, as an operator on the model's images."""
    kit, noise = restorer.operators, damage.noise
    complete = bool(known.all())
    last = {"noise_std": noise if complete else 0.0}  # the mask comes last, and has the noise
    if damage.factor > 1:
        operator = kit.Downscale(restorer.image_shape, damage.factor, **last)
    elif damage.kind == "blur":
        operator = kit.Blur(restorer.image_shape, kit.gaussian_kernel(damage.blur), **last)
    elif complete:
        return kit.Identity(restorer.image_shape, noise)
    else:
        return kit.Mask(known, noise)
    return operator if complete else kit.Composition(kit.Mask(known, noise), operator)


class Example(NamedTuple):
    """A picture of the model's own with something wrong."""

    given: Cropped
    value: dict[str, Any]
    """The editor's: background, layers and composite."""
    caption: str
    damage: Damage


def examples(restorer: Any, draw: Callable[[int], list[Image.Image]]) -> list[Example]:
    """What can be clicked on by who has no picture: one with a hole, one blurred and one too small.

    draw: as many images of the model as it is asked for.
    """
    shape, (height, width) = restorer.image_shape, canvas_size(restorer.image_shape)
    damages = {"A hole": Damage("missing", NOISE, 1.0), "Blur and noise": Damage("blur", 0.05, 1.0)}
    if shape[1] % 2 == shape[2] % 2 == 0:
        damages["Half the size"] = Damage("half", NOISE, 1.0)
    made = []
    for (caption, damage), picture in zip(damages.items(), draw(len(damages)), strict=True):
        sample = torch.from_numpy(reduce(np.asarray(picture), shape[1:])).float()[None]
        operator = operator_of(damage, torch.ones(shape, dtype=torch.bool), restorer)
        given = crop(to_image(operator.measure(sample, generator=0)[0]), shape)
        background, hole = given.picture.convert("RGBA"), Image.new("RGBA", given.picture.size)
        if damage.kind == "missing":
            ImageDraw.Draw(hole).ellipse((width * 0.15, height * 0.45, width * 0.85, height * 0.95), fill=PAINT)
        composite = Image.alpha_composite(background, hole)
        value = {"background": background, "layers": [hole], "composite": composite}
        made.append(Example(given, value, caption, damage))
    return made


# -- Repairing --------------------------------------------------------------------------------------------------------


class Repairs(NamedTuple):
    """Several repairs of a picture, what is said of each and of all, and a table of what they have in common."""

    images: list[Image.Image]
    captions: list[str]
    summary: str
    report: str


def repair(
    restorer: Any,
    given: Cropped | None,
    layers: list[Image.Image],
    damage: Damage,
    *,
    number: int,
    label: int | None,
    method: str,
    steps: int,
    seed: int | None,
    on_step: Callable[[int, int], None],
) -> Repairs:
    """Repair k has seed `seed + k`. Raises `ValueError` in words for the page.

    on_step: called with the number of steps done and their total after each.
    """
    if seed is None or not 0 <= seed <= LARGEST_SEED:
        raise ValueError(f"The seed must be a whole number from 0 to {LARGEST_SEED}, and is {seed}.")
    measurement, known = read(given, layers, damage, restorer)
    begin, done = time.monotonic(), 0

    def after_step(pipe: Any, step: int, timestep: Any, kept: dict[str, Any]) -> None:
        nonlocal done
        done += 1
        on_step(done, steps * -(-number // at_once))

    try:
        at_once = max(1, min(number, ROOM // restorer.memory(method)))
        out = restorer(
            measurement,
            operator_of(damage, known, restorer),
            method=method,
            num_samples=number,
            num_inference_steps=steps,
            class_labels=label,
            generator=int(seed),
            batch_size=at_once,
            output_type="pt",
            callback_on_step_end=after_step,
        )
    except ValueError:
        raise
    except Exception as error:  # whatever a solver raises is the reason
        what = f"{steps} steps of {method} ended in {type(error).__name__}: {error}."
        raise ValueError(f"{what} Try fewer repairs or the other method.") from error
    fits = [float(fit) for fit in out.fit[0]]
    told = [f" · fit {fit:.2f}" if np.isfinite(fit) else "" for fit in fits]
    of_class = "" if label is None else f" of class {html.escape(class_names(restorer)[label])}"
    return Repairs(
        [to_image(image) for image in out.images[0]],
        [f"seed {seed + k}{told[k]}" for k in range(number)],
        f"{number} {'repair' if number == 1 else 'repairs'}{of_class} in {time.monotonic() - begin:.1f} s: {steps} "
        f"steps of {method}. {tell_fit(fits)}",
        report(transparent(measurement[0], known), out.mean[0], out.std[0], number, method),
    )


def tell_fit(fits: list[float]) -> str:
    """What the figures in the captions mean."""
    if not np.isfinite(fits).all():
        return "Without noise there is no measure of the fit: the repairs keep to what is known."
    fit = float(np.mean(fits))
    meaning = f"Fit {fit:.2f}: damaged as you said, the repairs differ from your picture by {fit:.2f} times the noise."
    if fit > 1.5:
        return f"{meaning} **That is too much.** Something else may be wrong with the picture, or more noise on it."
    return f"{meaning} About 1 is as it should be, or less where noise is cut off, at black and white."


def to_image(image: torch.Tensor) -> Image.Image:
    """(channels, height, width) in [0, 1] to L, RGB or RGBA."""
    pixels = image.float().cpu().mul(255).round().clamp(0, 255).byte().permute(1, 2, 0).numpy()
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def transparent(measurement: torch.Tensor, known: torch.Tensor) -> Image.Image:
    """What the model went by; the hole is transparent."""
    pixels = np.array(to_image(measurement).convert("RGBA"))
    pixels[~known[0].numpy()] = 0
    return Image.fromarray(pixels)


def heat(values: npt.NDArray[np.float64]) -> Pixels:
    """(height, width) in [0, 1] to colours (height, width, 3)."""
    at = values * (len(HEAT) - 1)
    colours = np.stack([np.interp(at, range(len(HEAT)), channel) for channel in zip(*HEAT, strict=True)], -1)
    return colours.round().astype(np.uint8)


def report(measurement: Image.Image, mean: torch.Tensor, std: torch.Tensor, number: int, method: str) -> str:
    """What was given, the mean of the repairs and the map of their standard deviation, side by side."""
    spread = std.double().cpu().square().mean(0).sqrt().numpy()  # over the channels
    most = max(float(spread.max()), 0.05)
    bar = ", ".join(f"rgb{colour}" for colour in HEAT)
    figures = [
        ("Given", measurement, "what the model went by"),
        ("Mean", to_image(mean), f"of the {number} repairs: the best single guess, and smoother than any of them"),
    ]
    words = "Two repairs or more are needed to see where they disagree."
    if number > 1:
        colours = f'<b style="background: linear-gradient(to right, {bar})"></b>'
        scale = f'<span class="bar"><i>0</i>{colours}<i>{most:.2f}</i></span>'
        figures.append(("Where they disagree", Image.fromarray(heat(spread / most)), scale))
        words = (
            f"The map shows the standard deviation of the {number} repairs at each pixel, black being 0 and white 1. "
            "Dark: all repairs agree. Bright: what stands there is a guess, and another draw may look otherwise. The "
            "map tells what this model holds possible. Of a picture unlike those it has learned from it can be wrong "
            "and sure of it."
        )
        if number < 8:
            words += f" From {number} repairs the map is rough; 8 or more show it better."
        if method == "diffpir":
            words += " Those of diffpir vary less than they should: where it matters, look at those of moment."
    cells = "".join(
        f"<figure>{img(shown, name)}<figcaption><strong>{name}</strong> {caption}</figcaption></figure>"
        for name, shown, caption in figures
    )
    head = "<h2>Where they agree, and where they don't</h2>"
    return f'<div class="film repairs pixels">{head}<div>{cells}</div><p>{words}</p></div>'


def img(shown: Image.Image, what: str) -> str:
    """An <img> that holds its pixels itself."""
    file = io.BytesIO()
    shown.save(file, format="PNG")
    return f'<img alt="{what}" src="data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}">'


def class_names(pipe: Any) -> list[str]:
    """Names of the classes, or their numbers; empty without classes."""
    names = pipe.id2label or {}
    return [names.get(index, str(index)) for index in range(pipe.num_classes or 0)]


# -- The tab ----------------------------------------------------------------------------------------------------------


def kinds(shape: tuple[int, int, int]) -> list[tuple[str, str]]:
    """What may be wrong, in words, and the kind of `Damage`."""
    found = [("Parts are missing", "missing"), ("Noise", "noise"), ("Blur", "blur")]
    for kind, factor, words in (("half", 2, "Half the size"), ("quarter", 4, "A quarter of the size")):
        if shape[1] % factor == shape[2] % factor == 0:
            found.append((f"{words}: {shape[2] // factor}×{shape[1] // factor}", kind))
    return found


def told(error: ValueError) -> gr.Error:
    """What the page shows of it."""
    return gr.Error(html.escape(str(error), quote=False), print_exception=False)


def fill(restorer: Any, easel: ModuleType, tab: Any, draw: Callable[[int], list[Image.Image]]) -> None:
    """The contents of the tab `tab`, within which it is called.

    easel: the easel.py beside this file.
    draw: as many images of the model as it is asked for, for the examples; called when the tab is first opened.
    """
    classes, slider, count = class_names(restorer), easel.slider, easel.count
    own = functools.cache(lambda: examples(restorer, draw))
    frames = easel.frames(restorer.image_shape)
    with gr.Row():
        editor = easel.canvas(canvas_size(restorer.image_shape), PAINT, "Paint over what is missing")
        with gr.Column(min_width=320):
            kind = gr.Radio(
                kinds(restorer.image_shape),
                value="missing",
                label="What is wrong with it",
                info="What you paint over counts as missing in any case.",
            )
            with gr.Row():
                words = "Its standard deviation, black being 0 and white 1."
                noise = slider(0, 0.5, value=NOISE, step=0.01, label="Noise", info=words)
                words = "Standard deviation of a Gaussian, in the model's pixels."
                blur = slider(0.3, 4, value=1, step=0.1, label="Blur", info=words, visible=False)
                names, known = ["any", *classes], bool(classes)
                chosen = gr.Dropdown(names, value="any", type="index", label="Class of what it shows", visible=known)
            with gr.Row():
                number = count(1, MOST_REPAIRS, value=4, label="Repairs")
                longest = min(MOST_STEPS, restorer.scheduler.config.num_train_timesteps)
                steps = count(2, longest, value=min(STEPS, longest), label="Steps")
                seed = gr.Number(0, precision=0, label="Seed", min_width=80)
            method = gr.Radio(METHODS, value="diffpir", label="Method")
            button = gr.Button("Repair", variant="primary")
    gallery = easel.gallery(show_label=False, buttons=["download_all"], elem_classes=["pixels", "gallery", "repaired"])
    summary = gr.Markdown("Drop a picture, paint over what is missing, and press Repair.")
    common = gr.HTML()

    def on_open() -> list[tuple[Image.Image, str]]:
        try:
            return [(example.value["composite"], example.caption) for example in own()]
        except ValueError as error:
            raise told(error) from error

    def example(index: int) -> tuple[Any, ...]:
        chosen = own()[index]
        return chosen.value, chosen.given, *chosen.damage

    def on_repair(
        given: Cropped | None,
        value: Any,
        kind: str,
        noise: float,
        blur: float,
        number: int,
        chosen: int,
        method: str,
        steps: int,
        seed: int | None,
        progress: Any = gr.Progress(),  # noqa: B008  # gradio finds it by this default
    ) -> tuple[Any, ...]:
        begin = time.monotonic()

        def on_step(done: int, total: int) -> None:
            left = (time.monotonic() - begin) / done * (total - done)
            progress((done, total), desc=f"Repairing, about {left:.0f} s left")

        try:
            found = repair(
                restorer,
                given,
                [] if value is None else value["layers"],
                Damage(kind, noise, blur),
                number=number,
                label=chosen - 1 if chosen else None,
                method=method,
                steps=steps,
                seed=seed,
                on_step=on_step,
            )
        except ValueError as error:
            raise told(error) from error
        pictures = list(zip(found.images, found.captions, strict=True))
        return gr.Gallery(pictures, selected_index=None), found.summary, found.report

    crop_to = functools.partial(crop, shape=restorer.image_shape)
    easel.connect(tab, frames, editor, crop_to, on_open, example, [kind, noise, blur])
    kind.change(
        lambda kind: gr.Slider(visible=kind == "blur"), kind, blur, show_progress="hidden", api_visibility="private"
    )
    button.click(
        on_repair,
        [frames.kept, editor, kind, noise, blur, number, chosen, method, steps, seed],
        [gallery, summary, common],
        show_progress_on=gallery,
        concurrency_id="network",
        api_visibility="private",
    )
