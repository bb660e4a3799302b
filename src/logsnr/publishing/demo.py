"""A page in the browser to draw or write with a model: on this machine, or as the files of a Space of the Hub."""

from __future__ import annotations

import functools
import importlib.util
import os
import shutil
import socket
import threading
import webbrowser
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal

from huggingface_hub import SpaceCard, SpaceCardData

from logsnr.base.errors import ConfigError, LogsnrError
from logsnr.pipelines.pipeline_pixel import PixelDiffusionPipeline
from logsnr.pipelines.pipeline_restoration import RestorationPipeline
from logsnr.pipelines.pipeline_text import TextPipeline
from logsnr.pipelines.pipeline_text_to_image import TextToImagePipeline
from logsnr.publishing.repair import can_repair
from logsnr.sampling.sample import choose_device
from logsnr.tasks.load import load
from logsnr.tasks.parts import parts_of_pipeline

Page = Literal["images", "prompts", "texts"]
"""What a page shows: images of classes or none, images by prompt, texts."""
GRADIO_VERSION = "6.31.0"
"""What the app is tested with, and a Space is given."""
_ROOM = Path(__file__).parent.parent / "space"
_HOST = "127.0.0.1"


def serve(source: str, port: int, open_browser: bool) -> None:
    """Load a run, a model folder or a Hub repo, and show it at `port` of this machine alone until Ctrl-C."""
    _require_free(port)
    pipe = load(source)
    shown = page_of(pipe, source)
    if importlib.util.find_spec("gradio") is None:
        raise LogsnrError("logsnr demo needs the package gradio: pip install logsnr[demo]")
    pipe.to(choose_device())
    network: Any = parts_of_pipeline(pipe).network_of(pipe)
    evaluating, ending, forward = threading.RLock(), threading.Event(), network.forward

    def forward_until_the_end(*args: Any, **kwargs: Any) -> Any:
        with evaluating:
            if ending.is_set():
                raise InterruptedError("the demo has ended")
            return forward(*args, **kwargs)

    network.forward = forward_until_the_end

    from logsnr.space import app, write

    # gradio looks at its own page, and must not ask a proxy for it
    excepted = os.environ.get("no_proxy") or os.environ.get("NO_PROXY")
    os.environ["no_proxy"] = f"{excepted},{_HOST}" if excepted else _HOST
    page = write.build(pipe, source) if shown == "texts" else _page_of_images(pipe, source, evaluating)
    try:
        page.launch(
            **app.LAUNCH,
            server_name=_HOST,
            server_port=port,
            share=False,
            ssr_mode=False,
            quiet=True,
            prevent_thread_lock=True,
        )
    except OSError as error:  # somebody was faster
        raise LogsnrError(f"Port {port} can't be had: {error}") from error
    print(f"{source} is at http://{_HOST}:{port} on this machine. Ctrl-C ends it.", flush=True)
    if open_browser:
        webbrowser.open(f"http://{_HOST}:{port}")
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        ending.set()
        with evaluating:  # a process that ends while torch computes in another thread is aborted
            pass
        page.close(verbose=False)


def _page_of_images(pipe: Any, source: str, evaluating: AbstractContextManager[Any]) -> Any:
    """With the tabs that the model has."""
    from logsnr.space import app, easel, edit, repair

    restorer = _restorer(pipe, evaluating)
    repairs = None if restorer is None else functools.partial(repair.fill, restorer, easel)
    edits = functools.partial(edit.fill, pipe, repair, easel) if app.by_prompt(pipe) else None
    return app.build(pipe, source, repairs, edits)


def _restorer(pipe: Any, evaluating: AbstractContextManager[Any]) -> RestorationPipeline | None:
    """What repairs with the model of `pipe`, gradients and all while it holds `evaluating`; None where it can't be."""

    class Restorer(RestorationPipeline):
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            with evaluating:
                return super().__call__(*args, **kwargs)

    if not can_repair(pipe):
        return None
    restorer = Restorer(pipe.unet, pipe.scheduler, pipe.id2label)
    restorer.set_progress_bar_config(disable=True)  # type: ignore[no-untyped-call]
    return restorer


def page_of(pipeline: Any, source: str) -> Page:
    """What the page of the model shows. Raises LogsnrError where there is none: it knows images and texts."""
    pages: dict[type[Any], Page] = {
        PixelDiffusionPipeline: "images",
        TextToImagePipeline: "prompts",
        TextPipeline: "texts",
    }
    for cls, page in pages.items():
        if isinstance(pipeline, cls):
            return page
    noun = parts_of_pipeline(pipeline).noun
    raise LogsnrError(
        f"The page shows images or texts, and {source} is a model of {noun}s ({type(pipeline).__name__}). `logsnr "
        f"sample {source}` draws with it."
    )


def _require_free(port: int) -> None:
    if not 1 <= port <= 65535:
        raise ConfigError(f"--port must be in 1..65535, and is {port}.")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port closed a moment ago is free
        try:
            probe.bind((_HOST, port))
        except OSError as error:
            raise LogsnrError(
                f"--port must be free, and {port} can't be had ({error.strerror}). Another demo may be running there; "
                f"try --port {port % 65535 + 1}."
            ) from error


def stage_space(repo_id: str, folder: Path, page: Page) -> list[Path]:
    """Write into `folder` the files of a Space that shows the model `repo_id`; returns their paths."""
    verb, emoji, what = ("Write", "📝", "text") if page == "texts" else ("Draw", "🎨", "pixel-space")
    data = SpaceCardData(
        title=f"{verb} with {repo_id.split('/')[-1]}",
        emoji=emoji,
        colorFrom="gray",
        colorTo="blue",
        sdk="gradio",
        sdk_version=GRADIO_VERSION,
        python_version="3.11",
        app_file="app.py",
        models=[repo_id],
        tags=["logsnr", "diffusers"],
        short_description=f"A {what} diffusion model, step by step",
    )
    folder.mkdir(parents=True, exist_ok=True)
    files = ("app.py", "easel.py", "edit.py", "repair.py", "write.py", "requirements.txt")
    for name in files:
        shutil.copyfile(_ROOM / name, folder / name)
    if page != "images":
        with (folder / "requirements.txt").open("a", encoding="utf-8") as requirements:
            requirements.write("transformers>=5.0\n")
    card = SpaceCard.from_template(data, template_path=str(_ROOM / "README.md.jinja"), repo_id=repo_id, page=page)
    (folder / "README.md").write_text(f"{card}\n", encoding="utf-8")
    return [folder / name for name in ("README.md", *files)]
