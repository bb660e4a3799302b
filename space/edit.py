"""Change a picture by prompt in the browser: paint over what is to be drawn anew, and say what shall be there.

The tab of models that draw by prompt, in the page of the app.py beside it, with which it travels into Hub Spaces; it
needs gradio, torch and diffusers. What draws is the model's own `TextToImagePipeline`, by its arguments `image`,
`mask_image` and `strength`. The canvas is that of repair.py, which is handed over as `painting`.
"""

from __future__ import annotations

import functools
import html
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import gradio as gr
import numpy as np
import torch
from PIL import Image, ImageDraw

MOST_EDITS, STEPS, GUIDANCE = 16, 20, 3.0
LARGEST_SEED = 2**32 - 1


class Edits(NamedTuple):
    """Several changes of a picture, and what is said of each and of all."""

    images: list[Image.Image]
    captions: list[str]
    summary: str


def shape_of(pipe: Any) -> tuple[int, int, int]:
    """(channels, height, width) of the model's pictures."""
    channels, size = pipe.unet.config.in_channels, pipe.unet.config.sample_size
    height, width = (size, size) if isinstance(size, int) else size
    return channels, height, width


def edit(
    pipe: Any,
    painting: ModuleType,
    given: Any,
    layers: list[Image.Image],
    *,
    prompt: str,
    strength: float,
    guidance: float,
    number: int,
    steps: int,
    seed: int | None,
    on_step: Callable[[int, int], None],
) -> Edits:
    """Change k has seed `seed + k`; by the scheduler of `pipe`. Raises `ValueError` in words for the page.

    painting: the repair.py beside this file.
    given: its `Cropped`; None of no picture.
    layers: RGBA, transparent where nothing is painted; with none painted the whole picture is changed.
    on_step: called with the number of steps done and their total after each.
    """
    if seed is None or not 0 <= seed <= LARGEST_SEED:
        raise ValueError(f"The seed must be a whole number from 0 to {LARGEST_SEED}, and is {seed}.")
    if given is None:
        raise ValueError("There is no picture. Drop one into the frame, or take one of those beside it.")
    _, height, width = shape_of(pipe)
    if given.seen[0] < height or given.seen[1] < width:
        raise ValueError(
            f"The picture has {given.seen[1]}×{given.seen[0]} pixels in the model's proportions, and {width}×{height} "
            "are needed. Take a larger one."
        )
    picture = torch.from_numpy(painting.reduce(np.asarray(given.picture), (height, width))).float()
    mask = torch.zeros(1, height, width, dtype=torch.bool)
    for layer in layers:
        alpha = layer.getchannel("A").resize(given.picture.size, Image.Resampling.NEAREST)
        mask |= torch.from_numpy(painting.reduce(np.asarray(alpha), (height, width))) >= 0.02
    painted = bool(mask.any())
    if strength == 1 and not painted:
        raise ValueError(
            "Nothing is painted, and at strength 1 nothing of the picture would be left. Paint over what is to be "
            "drawn anew, or lower the strength: to 0.7, say."
        )
    begin = time.monotonic()

    def after_step(pipe: Any, step: int, timestep: Any, kept: dict[str, Any]) -> dict[str, Any]:
        on_step(step + 1, pipe.num_timesteps)
        return kept

    try:
        images = pipe(
            prompt,
            image=picture,
            mask_image=mask if painted else None,
            strength=strength,
            batch_size=number,
            num_inference_steps=steps,
            guidance_scale=guidance,
            generator=int(seed),
            output_type="pt",
            callback_on_step_end=after_step,
        ).images
    except ValueError:
        raise
    except Exception as error:  # whatever a solver raises is the reason
        raise ValueError(f"{steps} steps ended in {type(error).__name__}: {error}. Try fewer pictures.") from error
    where = "under the paint" if painted else "as a whole"
    return Edits(
        [painting.to_image(image) for image in images],
        [f"seed {seed + k}" for k in range(number)],
        f"{number} {'change' if number == 1 else 'changes'} {where} to “{html.escape(prompt)}” in "
        f"{time.monotonic() - begin:.1f} s: {pipe.num_timesteps} of {steps} steps, strength {strength:g}, guidance "
        f"{guidance:g}.",
    )


def examples(painting: ModuleType, shape: tuple[int, int, int], pictures: list[Image.Image]) -> list[Any]:
    """(what was given, the editor's value) of pictures of the model's own, painted over in the middle."""
    made = []
    for picture in pictures:
        given = painting.crop(picture, shape)
        background, hole = given.picture.convert("RGBA"), Image.new("RGBA", given.picture.size)
        width, height = hole.size
        ImageDraw.Draw(hole).rectangle((width * 0.25, height * 0.25, width * 0.75, height * 0.75), fill=painting.PAINT)
        composite = Image.alpha_composite(background, hole)
        made.append((given, {"background": background, "layers": [hole], "composite": composite}))
    return made


# -- The tab ----------------------------------------------------------------------------------------------------------


def fill(
    pipe: Any,
    painting: ModuleType,
    easel: ModuleType,
    tab: Any,
    draw: Callable[[int], list[Image.Image]],
    ready: Callable[[], Any],
) -> None:
    """The contents of the tab `tab`, within which it is called.

    painting, easel: the repair.py and easel.py beside this file.
    draw: as many images of the model as it is asked for, for the examples; called when the tab is first opened.
    ready: gives the pipeline with a scheduler for one use.
    """
    shape, prompts = shape_of(pipe), pipe.prompts or [""]
    slider, count = easel.slider, easel.count
    own = functools.cache(lambda: examples(painting, shape, draw(3)))
    frames = easel.frames(shape)
    with gr.Row():
        editor = easel.canvas(painting.canvas_size(shape), painting.PAINT, "Paint over what is to be drawn anew")
        with gr.Column(min_width=320):
            prompt = gr.Dropdown(
                prompts,
                value=prompts[0],
                allow_custom_value=True,
                label="Prompt",
                info="What the whole picture shall show, not the painted part alone. Choose one, or write your own.",
            )
            strength = slider(
                0.05,
                1,
                value=1,
                step=0.05,
                label="Strength",
                info="1 draws what is painted over from nothing; less keeps more of it. With nothing painted the whole "
                "picture is changed: begin with 0.7.",
            )
            with gr.Row():
                words = "1 is the plain model; more keeps nearer to the prompt."
                guidance = slider(0, 8, value=GUIDANCE, step=0.1, label="Guidance", info=words)
                number = count(1, MOST_EDITS, value=4, label="Pictures")
            with gr.Row():
                few = pipe.scheduler.config.get("_consistency")  # a distilled model's number of steps
                longest = few or min(painting.MOST_STEPS, pipe.scheduler.config.num_train_timesteps)
                steps = count(few or 2, longest, value=few or min(STEPS, longest), label="Steps")
                seed = gr.Number(0, precision=0, label="Seed", min_width=80)
            button = gr.Button("Change", variant="primary")
    gallery = easel.gallery(show_label=False, buttons=["download_all"], elem_classes=["pixels", "gallery", "repaired"])
    summary = gr.Markdown("Drop a picture, paint over what is to be drawn anew, write a prompt, and press Change.")

    def on_open() -> list[Image.Image]:
        try:
            return [value["composite"] for _, value in own()]
        except ValueError as error:
            raise painting.told(error) from error

    def example(index: int) -> tuple[Any, ...]:
        given, value = own()[index]
        return value, given, prompts[index % len(prompts)]

    def on_change(
        given: Any,
        value: Any,
        prompt: str | None,
        strength: float,
        guidance: float,
        number: int,
        steps: int,
        seed: int | None,
        progress: Any = gr.Progress(),  # noqa: B008  # gradio finds it by this default
    ) -> tuple[Any, ...]:
        try:
            found = edit(
                ready(),
                painting,
                given,
                [] if value is None else value["layers"],
                prompt=prompt or "",
                strength=strength,
                guidance=guidance,
                number=number,
                steps=steps,
                seed=seed,
                on_step=lambda done, total: progress((done, total), desc="Drawing"),
            )
        except ValueError as error:
            raise painting.told(error) from error
        return gr.Gallery(list(zip(found.images, found.captions, strict=True)), selected_index=None), found.summary

    easel.connect(tab, frames, editor, functools.partial(painting.crop, shape=shape), on_open, example, [prompt])
    button.click(
        on_change,
        [frames.kept, editor, prompt, strength, guidance, number, steps, seed],
        [gallery, summary],
        show_progress_on=gallery,
        concurrency_id="network",
        api_visibility="private",
    )
