"""Write with a trained model of texts in the browser: what is given, with blanks, and how the rest of it appears.

The page of a model that writes, for the app.py beside it, with which it travels into Hub Spaces; it needs gradio, torch
and diffusers. The model is a pipeline of logsnr's file pipeline_text, loaded by that app or by logsnr.
"""

from __future__ import annotations

import html
import itertools
import queue
import random
import threading
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import Any

import gradio as gr
import torch

MOST_TEXTS, MOST_STEPS, STEPS, GUIDANCE = 8, 256, 64, 2.0
LARGEST_SEED = 2**32 - 1
NO_CLASS = "no class in particular"
MASK = "░"
"""Shown for each token that isn't known yet."""

STYLE = """<style>
.texts figure {margin: 0 0 1em}
.texts figcaption, .texts .key {font-size: .85em; color: var(--body-text-color-subdued)}
.texts p {
    margin: .2em 0 0; padding: .6em .8em; border: 1px solid var(--border-color-primary); border-radius: 4px;
    font-family: monospace; line-height: 1.5; white-space: pre-wrap; overflow-wrap: anywhere;
}
.texts .given {font-weight: 700}
.texts .written, .texts .new {color: var(--primary-600)}
.dark .texts .written, .dark .texts .new {color: var(--primary-300)}
.texts .new {background: color-mix(in srgb, var(--primary-400) 30%, transparent)}
.texts .mask {color: var(--body-text-color-subdued); opacity: .6}
</style>"""


def writes(pipe: Any) -> bool:
    """Whether the model is one of texts."""
    return hasattr(pipe, "kernel") and hasattr(pipe, "tokenizer")


def choices(pipe: Any) -> list[str]:
    """Names of the classes, or their numbers; empty of a model without."""
    names = pipe.model.config.id2label
    return [names.get(index, str(index)) for index in range(pipe.num_classes or 0)]


def describe(pipe: Any) -> str:
    """What the model is, in a line."""
    parameters, classes = sum(p.numel() for p in pipe.model.parameters()), pipe.num_classes
    of = f", {classes} classes" if classes else ""
    return (
        f"A diffusion model of texts, up to {pipe.max_length} tokens of {len(pipe.tokenizer):,} different ones{of} · "
        f"kernel {pipe.kernel} · {parameters:,} parameters"
    )


# -- Writing ----------------------------------------------------------------------------------------------------------


@dataclass
class Writing:
    """Texts, as they are written."""

    captions: list[str]
    """Of each text."""
    given: torch.Tensor | None = None
    """The states that stand, (texts, length), -1 where there is none."""
    steps: list[torch.Tensor] = field(default_factory=list)
    """The states after each step, (texts, length)."""
    total: int = 0
    """How many steps there will be."""
    summary: str = ""
    """What is said of all, when they are written."""


def write(
    pipe: Any,
    *,
    given: str,
    label: str,
    guidance: float,
    number: int,
    length: int,
    steps: int,
    temperature: float,
    seed: int | None,
) -> Generator[Writing, None, None]:
    """Text k has seed `seed + k`; yields the writing after each step, the same object that grows. Raises `ValueError`
    in words for the page.

    given: a text with blanks, or a beginning where it has none. label: a class, or `NO_CLASS`. length: in tokens; of a
        text whose blanks all say how long they are it is its own.
    """
    if seed is None or not 0 <= seed <= LARGEST_SEED:
        raise ValueError(f"The seed must be a whole number from 0 to {LARGEST_SEED}, and is {seed}.")
    what: dict[str, Any] = {"batch_size": number, "num_inference_steps": steps, "temperature": temperature}
    what["infill" if "[blank" in given else "prompt"] = given
    if "[blank]" in given or "[blank" not in given:
        what["length"] = length
    if label != NO_CLASS:
        what |= {"class_labels": [choices(pipe).index(label)] * number, "guidance_scale": guidance}
    begin, told, ended = time.monotonic(), queue.Queue[Any](), threading.Event()

    def after_step(pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        if ended.is_set():
            raise InterruptedError("nobody waits for it any more")
        told.put((tensors["given"].cpu(), tensors["sample"].cpu()))
        return {}

    def run() -> None:
        try:
            pipe(
                **what,
                generator=int(seed),
                output_type="seq",
                callback_on_step_end=after_step,
                callback_on_step_end_tensor_inputs=["sample", "given"],
            )
            told.put(None)
        except ValueError as error:  # it is raised where somebody reads it
            told.put(error)
        except Exception as error:
            told.put(ValueError(f"{steps} steps ended in {type(error).__name__}: {error}. Try fewer texts."))

    writing = Writing([f"seed {seed + k}" for k in range(number)])
    thread = threading.Thread(target=run)
    thread.start()
    try:
        while (news := told.get()) is not None:
            if isinstance(news, Exception):
                raise news
            writing.given, sample = news
            writing.steps.append(sample)
            writing.total = pipe.num_timesteps
            yield writing
    finally:
        ended.set()
        thread.join()
    guided = "" if label == NO_CLASS else f"class {label}, guidance {guidance:g}, "
    writing.summary = (
        f"{number} {'text' if number == 1 else 'texts'} in {time.monotonic() - begin:.1f} s: {writing.total} steps, "
        f"{guided}temperature {temperature:g}, "
        f"{f'seeds {seed} to {seed + number - 1}' if number > 1 else f'seed {seed}'}."
    )
    yield writing


def texts_html(pipe: Any, writing: Writing, step: int) -> str:
    """The texts after that step, from 1; what is new since the step before is marked until the last."""
    sequences, last = writing.steps[step - 1], step == writing.total
    before = writing.steps[step - 2] if step > 1 else torch.full_like(sequences, -1)
    given = writing.given
    assert given is not None
    figures = ""
    for k, caption in enumerate(writing.captions):
        shown = text_html(pipe.tokenizer, given[k], sequences[k], sequences[k] if last else before[k])
        figures += f"<figure><figcaption>{html.escape(caption)}</figcaption><p>{shown}</p></figure>"
    return f"""<div class="texts">{figures}<div class="key">Step {step} of {writing.total}. <b class="given">Bold</b>
was given, <span class="written">blue</span> was written by the model,
<span class="new">on a ground</span> in this step, and <span class="mask">{MASK}</span> isn't known yet.</div></div>"""


def text_html(tokenizer: Any, given: torch.Tensor, sequence: torch.Tensor, before: torch.Tensor) -> str:
    """A text, its tokens (length,) in <span>s by where they come from; between two documents is a blank line."""

    def style(place: int) -> str:
        state = int(sequence[place])
        if state == tokenizer.mask_token_id:
            return "mask"
        if state == tokenizer.eos_token_id:
            return "end"
        if given[place] >= 0:
            return "given"
        return "written" if state == before[place] else "new"

    spans, shown = [], ""
    for name, group in itertools.groupby(range(len(sequence)), style):
        places = list(group)
        if name == "mask":
            text = MASK * len(places)
        elif name == "end":
            text = "" if places[-1] + 1 == len(sequence) else "\n\n"
        else:  # decoders look at what stands before a token
            longer = tokenizer.decode(sequence[: places[-1] + 1], skip_special_tokens=True)
            text, shown = longer[len(shown) :], longer
        spans.append(f'<span class="{name}">{html.escape(text)}</span>')
    return "".join(spans)


# -- The page ---------------------------------------------------------------------------------------------------------


def build(pipe: Any, title: str) -> gr.Blocks:
    """The page of a model; `title` is plain text."""
    pipe.set_progress_bar_config(disable=True)
    with gr.Blocks(title=title, analytics_enabled=False) as page:
        gr.HTML(f'{STYLE}<div class="heading"><h1>{html.escape(title)}</h1><p>{describe(pipe)}</p></div>')
        _fill(pipe)
    return page


def _fill(pipe: Any) -> None:
    names, longest = choices(pipe), min(MOST_STEPS, pipe.scheduler.config.num_train_timesteps)
    kept, bare = gr.State(None), {"buttons": [], "min_width": 120}
    count: dict[str, Any] = {"step": 1, "precision": 0, **bare}
    with gr.Row():
        with gr.Column(scale=5, min_width=400):
            given = gr.Textbox(
                label="What is given",
                placeholder="the [blank] of the [blank:12]",
                info="A text with blanks, which the model fills in; [blank:12] is 12 tokens long. Without a blank it "
                "is a beginning. Empty: all of it is the model's.",
                lines=3,
            )
            with gr.Row():
                classes = [NO_CLASS, *names]
                label = gr.Dropdown(classes, value=NO_CLASS, label="Class", min_width=120, visible=bool(names))
                guidance = gr.Slider(0, 8, value=GUIDANCE, step=0.1, label="Guidance", visible=bool(names), **bare)
            with gr.Row():
                number = gr.Slider(1, MOST_TEXTS, value=4, label="Texts", **count)
                length = gr.Slider(1, pipe.max_length, value=pipe.max_length, label="Tokens", **count)
            with gr.Row():
                steps = gr.Slider(1, longest, value=min(STEPS, longest), label="Steps", **count)
                temperature = gr.Slider(0, 1.5, value=1, step=0.05, label="Temperature", **bare)
            seed = gr.Number(0, precision=0, label="Seed", info="Of the first text; the next has the next seed.")
            with gr.Row():
                again = gr.Button("Other seeds", min_width=120)
                button = gr.Button("Write", variant="primary", min_width=120)
        with gr.Column(scale=7, min_width=320):
            texts = gr.HTML(min_height=200)
            look = gr.Slider(1, 2, value=1, label="Look at an earlier step", visible=False, **count)
            summary = gr.Markdown("Press Write.")

    def on_write(
        given: str,
        label: str,
        guidance: float,
        number: int,
        length: int,
        steps: int,
        temperature: float,
        seed: int | None,
    ) -> Iterator[tuple[Any, ...]]:
        writings = write(
            pipe,
            given=given,
            label=label,
            guidance=guidance,
            number=number,
            length=length,
            steps=steps,
            temperature=temperature,
            seed=seed,
        )
        try:
            for writing in writings:
                done = len(writing.steps)
                shown = texts_html(pipe, writing, done)
                if writing.summary:
                    slider = gr.Slider(maximum=max(done, 2), value=done, visible=done > 1)
                    yield shown, html.escape(writing.summary), writing, slider
                else:
                    yield shown, f"Step {done} of {writing.total}", gr.skip(), gr.skip()
        except ValueError as error:
            raise gr.Error(html.escape(str(error), quote=False), print_exception=False) from error

    def on_look(writing: Writing, step: int) -> str:
        return texts_html(pipe, writing, step)

    written = {
        "fn": on_write,
        "inputs": [given, label, guidance, number, length, steps, temperature, seed],
        "outputs": [texts, summary, kept, look],
        "show_progress": "hidden",
        "concurrency_id": "network",
    }
    button.click(**written, api_name="write")
    again.click(lambda: random.randrange(LARGEST_SEED), None, seed, api_visibility="private").success(
        **written, api_visibility="private"
    )
    look.input(on_look, [kept, look], texts, show_progress="hidden", api_visibility="private")
