"""A page in the browser to draw with a model: on this machine, or as the files of a Hub Space for a published one."""

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
from typing import Any

from huggingface_hub import SpaceCard, SpaceCardData

from logsnr.base.errors import ConfigError, LogsnrError
from logsnr.pipelines.pipeline_pixel import PixelDiffusionPipeline
from logsnr.pipelines.pipeline_restoration import RestorationPipeline
from logsnr.pipelines.pipeline_text_to_image import TextToImagePipeline
from logsnr.publishing.repair import can_repair
from logsnr.sampling.sample import choose_device
from logsnr.tasks.load import load
from logsnr.tasks.parts import parts_of_pipeline

GRADIO_VERSION = "6.31.0"
"""What the app is tested with, and a Space is given."""
_ROOM = Path(__file__).parent.parent / "space"
_HOST = "127.0.0.1"


def serve(source: str, port: int, open_browser: bool) -> None:
    """Load a run, a model folder or a Hub repo, and show it at `port` of this machine alone until Ctrl-C."""
    _require_free(port)
    pipe = load(source)
    require_images(pipe, source)
    if importlib.util.find_spec("gradio") is None:
        raise LogsnrError("logsnr demo needs the package gradio: pip install logsnr[demo]")
    pipe.to(choose_device())
    evaluating, ending, forward = threading.RLock(), threading.Event(), pipe.unet.forward

    def forward_until_the_end(*args: Any, **kwargs: Any) -> Any:
        with evaluating:
            if ending.is_set():
                raise InterruptedError("the demo has ended")
            return forward(*args, **kwargs)

    pipe.unet.forward = forward_until_the_end

    from logsnr.space import app, easel, edit, repair

    restorer = _restorer(pipe, evaluating)
    # gradio looks at its own page, and must not ask a proxy for it
    excepted = os.environ.get("no_proxy") or os.environ.get("NO_PROXY")
    os.environ["no_proxy"] = f"{excepted},{_HOST}" if excepted else _HOST
    repairs = None if restorer is None else functools.partial(repair.fill, restorer, easel)
    edits = functools.partial(edit.fill, pipe, repair, easel) if app.by_prompt(pipe) else None
    page = app.build(pipe, source, repairs, edits)
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


def require_images(pipeline: Any, source: str) -> None:
    """Raise LogsnrError where the page can't draw with the model: what it knows is images."""
    if not isinstance(pipeline, PixelDiffusionPipeline | TextToImagePipeline):
        noun = parts_of_pipeline(pipeline).noun
        raise LogsnrError(
            f"The page draws images, and {source} is a model of {noun}s ({type(pipeline).__name__}). `logsnr sample "
            f"{source}` draws with it."
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


def stage_space(repo_id: str, folder: Path, by_prompt: bool = False) -> list[Path]:
    """Write into `folder` the files of a Space that shows the model `repo_id`; returns their paths.

    by_prompt: whether the model is told words, which needs transformers.
    """
    data = SpaceCardData(
        title=f"Draw with {repo_id.split('/')[-1]}",
        emoji="🎨",
        colorFrom="gray",
        colorTo="blue",
        sdk="gradio",
        sdk_version=GRADIO_VERSION,
        python_version="3.11",
        app_file="app.py",
        models=[repo_id],
        tags=["logsnr", "diffusers"],
        short_description="A pixel-space diffusion model, step by step",
    )
    folder.mkdir(parents=True, exist_ok=True)
    files = ("app.py", "easel.py", "edit.py", "repair.py", "requirements.txt")
    for name in files:
        shutil.copyfile(_ROOM / name, folder / name)
    if by_prompt:
        with (folder / "requirements.txt").open("a", encoding="utf-8") as requirements:
            requirements.write("transformers>=5.0\n")
    card = SpaceCard.from_template(data, template_path=str(_ROOM / "README.md.jinja"), repo_id=repo_id)
    (folder / "README.md").write_text(f"{card}\n", encoding="utf-8")
    return [folder / name for name in ("README.md", *files)]
