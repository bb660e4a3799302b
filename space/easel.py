"""A picture that is dropped or chosen, and painted over: what the tabs of repair and of editing share.

It lies beside their files, travels with them into Hub Spaces, and is handed to their `fill`; it needs gradio.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import gradio as gr
from PIL import Image

gallery = functools.partial(gr.Gallery, format="png", object_fit="contain", allow_preview=False, interactive=False)
slider = functools.partial(gr.Slider, buttons=[], min_width=120)
count = functools.partial(slider, step=1, precision=0)
_FREE = 62
"""Pixels: what gradio's editor leaves free at both sides of a canvas, and its border."""


class Frames(NamedTuple):
    """Where a picture comes from."""

    dropped: Any
    thumbnails: Any
    kept: Any
    """The picture itself, and not what a browser makes of it."""


def frames(shape: tuple[int, int, int]) -> Frames:
    """A row with a frame to drop a picture into, and one for pictures that the model drew.

    shape: (channels, height, width) of its pictures.
    """
    kept = gr.State(None)
    with gr.Row():
        dropped = gr.Image(
            type="pil",
            format="png",
            image_mode=None,
            sources=["upload", "clipboard"],
            height=170,
            buttons=[],
            label="Your picture",
            min_width=240,
            elem_classes=["pixels", "dropped"],
        )
        with gr.Column(scale=2, min_width=320):
            gr.Markdown(
                f"The model knows pictures of {shape[2]}×{shape[1]} pixels. Of a larger one the middle is taken and "
                "brought to that size. Or begin with one that the model drew itself:"
            )
            thumbnails = gallery(show_label=False, columns=3, buttons=[], elem_classes=["pixels", "examples"])
    return Frames(dropped, thumbnails, kept)


def canvas(size: tuple[int, int], paint: str, label: str) -> Any:
    """A column where it is painted over, of that height and width, in that colour.

    The column is as wide as the canvas needs, whatever stands beside it: gradio's editor takes its width once, when the
    page isn't laid out yet, and would hang a canvas of a column that becomes narrower half out of it.
    """
    with gr.Column(scale=0, min_width=size[1] + _FREE):
        return gr.ImageEditor(
            type="pil",
            format="png",
            layers=False,
            transforms=None,
            sources=[],  # a picture that is dropped here would come in any size, and often without an event
            brush=gr.Brush(colors=[paint], color_mode="fixed", default_size=max(size) // 10),
            canvas_size=size[::-1],
            height=max(size) + _FREE,
            buttons=[],
            label=label,
            placeholder="First a picture, in the frame above",
            elem_classes=["pixels", "editor"],
        )


def connect(
    tab: Any,
    where: Frames,
    editor: Any,
    crop: Callable[[Image.Image], Any],
    thumbnails: Callable[[], list[Any]],
    example: Callable[[int], Sequence[Any]],
    beside: Sequence[Any] = (),
) -> None:
    """What happens when a picture is dropped, taken away or chosen, and when the tab is opened.

    crop: makes of a picture what is kept of it, whose `picture` is shown.
    thumbnails: those of the examples; called when the tab is opened.
    example: the editor's value of one, what is kept of it, and the values of the components `beside`.
    """

    def on_upload(picture: Image.Image) -> tuple[Image.Image, Any]:
        given = crop(picture)
        return given.picture, given

    def on_clear(given: Any) -> Image.Image | None:
        return None if given is None else given.picture

    def on_example(event: gr.SelectData) -> tuple[Any, ...]:
        return None, *example(event.index)

    hidden: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    tab.select(thumbnails, None, where.thumbnails, concurrency_id="network", api_visibility="private")
    where.dropped.upload(on_upload, where.dropped, [editor, where.kept], **hidden)
    editor.clear(on_clear, where.kept, editor, **hidden)
    where.thumbnails.select(on_example, None, [where.dropped, editor, where.kept, *beside], **hidden)
