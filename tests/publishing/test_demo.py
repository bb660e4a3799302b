"""The page's drawing, the files of a Space, and `logsnr demo` as a command; in a browser: test_demo_browser.py."""

from __future__ import annotations

import inspect
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import Finished
from gaussian_unet import MEAN, GaussianUNet
from huggingface_hub import SpaceCard
from packaging.requirements import Requirement
from tiny_unet import tiny_unet

import logsnr.media.film
from logsnr.pipelines.pipeline_pixel import PixelDiffusionPipeline
from logsnr.pipelines.pipeline_restoration import sources
from logsnr.publishing.demo import GRADIO_VERSION, stage_space
from logsnr.schedulers.scheduling_beta import CosineBetaScheduler

ROOT = Path(__file__).parents[2]
APP = ROOT / "space" / "app.py"
DRAW_ALONE = """
import runpy, sys
for name in ("logsnr", "transformers", "accelerate"):  # not among the requirements of the Space
    sys.modules[name] = None  # any import of it raises ModuleNotFoundError
sys.path.insert(0, sys.argv[1])
import app
app.gr.Blocks.launch = lambda page, **options: print(page.title, *[b.label for b in page.blocks.values()
                                                                   if isinstance(b, app.gr.Tab)], sep=" | ")
runpy.run_path(sys.argv[1] + "/app.py", run_name="__main__")
for model in sys.argv[2:]:
    pipe = app.load(model)
    drawing = app.draw(pipe, number=3, steps=4, scheduler="DPMSolverMultistep", classes=[], guidance=2.0, seed=5,
                       on_step=lambda done, total: None)
    many = len(app.find_schedulers(pipe).offered) > 15
    print(app.describe(pipe), many, drawing.images[0].mode, drawing.images[0].size, *drawing.captions, sep=" | ")
"""
pytest.importorskip("gradio", reason="gradio is missing: pip install logsnr[demo]")
from logsnr.space import app  # noqa: E402  # needs gradio

pytestmark = pytest.mark.filterwarnings(  # stock's numpy 1 habits, and torchsde on the last digit of its interval
    "ignore:__array:DeprecationWarning", "ignore:Should have t:UserWarning"
)


def gaussian(**config: Any) -> Any:
    scheduler = CosineBetaScheduler(prediction_type="v_prediction")
    unet: Any = GaussianUNet(scheduler.alphas_cumprod.tolist(), "v_prediction", sample_size=8, **config)
    return PixelDiffusionPipeline(unet, scheduler)


def random_pipeline(channels: int, id2label: dict[int, str] | None = None) -> Any:
    unet = tiny_unet(None if id2label is None else len(id2label), channels)
    return PixelDiffusionPipeline(unet, CosineBetaScheduler(prediction_type="v_prediction"), id2label)


def draw(pipe: Any, **changes: Any) -> app.Drawing:
    arguments: dict[str, Any] = {"number": 4, "steps": 6, "scheduler": "DPMSolverMultistep", "classes": []}
    arguments |= {"guidance": 2.0, "seed": 0, "on_step": lambda done, total: None} | changes
    return app.draw(pipe, **arguments)


# The app


def test_the_film_is_a_copy() -> None:
    for name in ("Frame", "record"):
        assert inspect.getsource(getattr(app, name)) == inspect.getsource(getattr(logsnr.media.film, name))


def test_every_scheduler_offered_draws_and_every_other_says_why_not() -> None:
    pipe = gaussian()
    before = type(pipe.scheduler)
    found = app.find_schedulers(pipe)
    assert found.offered[0] == "CosineBeta"
    assert {"DDIM", "DPMSolverMultistep", "EulerDiscrete", "UniPCMultistep"} <= set(found.offered)
    assert {"DDIMInverse", "IPNDM"} <= set(found.refused)
    assert all(found.refused.values())
    for name in found.offered:
        drawing = draw(pipe, scheduler=name, steps=20, number=2)
        assert len(drawing.film) == app.FRAMES
        if name not in ("LCM", "TCD"):  # for distilled models
            pixels = np.stack([np.asarray(image) for image in drawing.images])
            assert abs(pixels.mean() / 127.5 - 1 - MEAN) < 0.1, name
    for name in found.refused:
        if not name.endswith("Inverse"):
            with pytest.raises(ValueError, match=f"{name}Scheduler can't sample this model"):
                draw(pipe, scheduler=name)
    assert type(pipe.scheduler) is before
    assert "step" not in vars(pipe.scheduler)


def test_draws_what_the_pipeline_draws_and_counts_the_steps() -> None:
    pipe, steps = random_pipeline(3, {0: "cat", 1: "dog"}), list[tuple[int, int]]()
    drawing = draw(pipe, classes=["dog"], seed=7, on_step=lambda done, total: steps.append((done, total)))
    pipe.swap_scheduler("DPMSolverMultistep")
    arguments: dict[str, Any] = {"class_labels": ["dog"] * 4, "num_inference_steps": 6, "guidance_scale": 2.0}
    expected = pipe(**arguments, generator=7).images
    assert [np.array_equal(a, b) for a, b in zip(drawing.images, expected, strict=True)] == [True] * 4
    assert steps == [(k + 1, 6) for k in range(6)]
    assert drawing.captions == ["dog · seed 7", "dog · seed 8", "dog · seed 9", "dog · seed 10"]
    assert [column.noise for column in drawing.film] == sorted((c.noise for c in drawing.film), reverse=True)
    np.testing.assert_allclose(drawing.film[-1].predicted[2], drawing.images[2], atol=40)


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB"), (4, "RGBA")])
def test_gray_rgb_and_rgba(channels: int, mode: str) -> None:
    drawing = draw(random_pipeline(channels))
    assert {image.mode for image in drawing.images} == {mode}
    assert drawing.captions == ["seed 0", "seed 1", "seed 2", "seed 3"]
    assert drawing.film[0].seen.shape == (4, 8, 8, channels)
    html = app.film_html(drawing, 3)
    assert html.count("data:image/png;base64,") == 2 * len(drawing.film) == 12
    assert f"{mode.replace('L', 'gray')} images, 8×8 pixels" in app.describe(random_pipeline(channels))


def test_classes_take_turns_and_names_are_no_html() -> None:
    pipe = random_pipeline(1, {0: "cat", 1: "dog", 2: "<b>bird"})
    assert [c.split(" · ")[0] for c in draw(pipe).captions] == ["cat", "dog", "<b>bird", "cat"]
    drawing = draw(pipe, classes=["<b>bird", "cat"])
    assert [c.split(" · ")[0] for c in drawing.captions] == ["<b>bird", "cat", "<b>bird", "cat"]
    assert "&lt;b&gt;bird · seed 0" in app.film_html(drawing, 0)
    unnamed = PixelDiffusionPipeline(pipe.unet, pipe.scheduler)
    assert [c.split(" · ")[0] for c in draw(unnamed, classes=["2", "0"]).captions] == ["2", "0", "2", "0"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seed": -1}, "The seed must be a whole number from 0 to 4294967295, and is -1"),
        ({"seed": None}, "The seed must be a whole number"),
        ({"scheduler": "EDMEuler"}, "EDMEulerScheduler can't sample this model: it would use|it has no alphas_cumprod"),
        ({"scheduler": "PNDM", "steps": 2}, "2 steps of PNDM ended in ValueError: .* Try another number of steps"),
        ({"scheduler": "EulerAncestralDiscrete", "steps": 3}, "3 steps of EulerAncestralDiscrete diverged"),
        ({"steps": 2000}, "num_inference_steps must be in 1..1000, and is 2000"),
    ],
)
def test_says_what_is_wrong(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        draw(gaussian(), **changes)


# The Space


def test_the_app_stands_alone(tmp_path: Path) -> None:
    models = {"unconditional": random_pipeline(4), "conditional": random_pipeline(1, {0: "cat", 1: "dog"})}
    for name, pipe in models.items():
        pipe.save_pretrained(tmp_path / name)
    for name, content in sources().items():
        (tmp_path / "conditional" / name).write_bytes(content)
    shown = str(tmp_path / "conditional")
    stage_space(shown, tmp_path / "space", "images")
    command = [sys.executable, "-c", DRAW_ALONE, tmp_path / "space", *(tmp_path / name for name in models)]
    result = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr[-2000:]
    page, unconditional, conditional = result.stdout.splitlines()
    assert page == f"{shown} | Draw | Repair"
    assert "RGBA images, 8×8 pixels" in unconditional
    assert unconditional.endswith("True | RGBA | (8, 8) | seed 5 | seed 6 | seed 7")
    assert conditional.endswith("True | L | (8, 8) | cat · seed 5 | dog · seed 6 | cat · seed 7")


def test_the_files_of_a_space(tmp_path: Path) -> None:
    paths = stage_space("ada/digits", tmp_path / "space", "images")
    assert sorted(paths) == sorted((tmp_path / "space").iterdir())
    for name in ("app.py", "easel.py", "edit.py", "repair.py", "write.py", "requirements.txt"):
        assert (tmp_path / "space" / name).read_bytes() == (APP.parent / name).read_bytes()
    card = SpaceCard.load(tmp_path / "space" / "README.md")
    assert (card.data.sdk, card.data.app_file, card.data.models) == ("gradio", "app.py", ["ada/digits"])
    assert card.data.to_dict()["sdk_version"] == GRADIO_VERSION
    assert len(card.data.to_dict()["short_description"]) <= 60  # the Hub's limit
    assert "{{" not in card.text
    assert "trust_remote_code=True" in card.text
    assert "logsnr demo ada/digits" in card.text
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    assert pins["gradio"] == GRADIO_VERSION
    for line in (tmp_path / "space" / "requirements.txt").read_text().splitlines():
        requirement = Requirement(line)
        assert requirement.specifier.contains(pins[requirement.name]), line


# The command; where it goes well: test_demo_browser.py


def without_gradio() -> None:
    sys.modules["gradio"] = None  # type: ignore[assignment]  # as where it isn't installed


def test_the_command_says_what_is_wrong(logsnr: Callable[..., Finished], tmp_path: Path) -> None:
    assert "127.0.0.1:PORT" in logsnr("demo", "--help").output
    assert "There is no folder ./nowhere" in logsnr("demo", "./nowhere", before=without_gradio).message
    random_pipeline(1).save_pretrained(tmp_path / "model")
    message = logsnr("demo", tmp_path / "model", before=without_gradio).message
    assert message == "error: logsnr demo needs the package gradio: pip install logsnr[demo]\n"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        message = logsnr("demo", "run", "--port", port).message
    assert message.startswith(f"error: --port must be free, and {port} can't be had (Address already in use).")
    assert f"try --port {port + 1}" in message
    assert "--port must be in 1..65535, and is 70000" in logsnr("demo", "run", "--port", 70000).message
    assert "There is no folder ./nowhere" in logsnr("demo", "./nowhere", "--port", port).message
