"""The page of a model that draws by prompt: its prompts, its changes of a picture, and what goes wrong."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from tiny_prompted import tiny_prompted_unet, tiny_text_encoder, tiny_tokenizer

from logsnr.pipelines.pipeline_text_to_image import TextToImagePipeline
from logsnr.publishing.demo import page_of, stage_space
from logsnr.schedulers.scheduling_beta import CosineBetaScheduler

gradio: Any = pytest.importorskip("gradio", reason="gradio is missing: pip install logsnr[demo]")
from logsnr.space import app, easel, edit, repair  # noqa: E402  # needs gradio

PROMPTS = ["a red fox", "green grass"]
ALONE = """
import runpy, sys
sys.modules["logsnr"] = None  # any import of it raises ModuleNotFoundError
sys.path.insert(0, sys.argv[1])
import app
app.gr.Blocks.launch = lambda page, **options: print(page.title, *[b.label for b in page.blocks.values()
                                                                   if isinstance(b, app.gr.Tab)], sep=" | ")
runpy.run_path(sys.argv[1] + "/app.py", run_name="__main__")
pipe = app.load(sys.argv[2])
drawing = app.draw(pipe, number=3, steps=4, scheduler="DPMSolverMultistep", classes=[], guidance=2.0, seed=5,
                   on_step=lambda done, total: None)
print(app.describe(pipe), *drawing.captions, sep=" | ")
"""


def pipeline(channels: int = 3, prompts: list[str] | None = PROMPTS) -> Any:
    scheduler = CosineBetaScheduler(prediction_type="v_prediction")
    unet = tiny_prompted_unet(channels)
    pipe = TextToImagePipeline(unet, scheduler, tiny_tokenizer(), tiny_text_encoder(), prompts)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def noise(height: int, width: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))


def left_half() -> list[Image.Image]:
    """A layer, painted at the left."""
    layer = Image.new("RGBA", (448, 448))
    ImageDraw.Draw(layer).rectangle((0, 0, 223, 447), fill=repair.PAINT)
    return [layer]


def changed(pipe: Any, **changes: Any) -> edit.Edits:
    arguments: dict[str, Any] = {
        "given": repair.crop(noise(8, 8), (3, 8, 8)),
        "layers": left_half(),
        "prompt": "a <b>cat",
        "strength": 1.0,
        "guidance": 3.0,
        "number": 2,
        "steps": 4,
        "seed": 5,
        "on_step": lambda done, total: None,
    }
    return edit.edit(pipe, repair, **(arguments | changes))


def test_draws_its_own_prompts_in_turn_or_those_that_are_written() -> None:
    pipe = pipeline()
    arguments: dict[str, Any] = {"number": 3, "steps": 4, "guidance": 2.0, "seed": 7, "on_step": lambda *_: None}
    drawing = app.draw(pipe, scheduler="DPMSolverMultistep", classes=[], **arguments)
    assert drawing.captions == ["a red fox · seed 7", "green grass · seed 8", "a red fox · seed 9"]
    assert len(drawing.film) == 4
    written = app.draw(pipe, scheduler="DPMSolverMultistep", classes=["a green cat"], **arguments)
    pipe.swap_scheduler("DPMSolverMultistep")
    expected = pipe("a green cat", batch_size=3, num_inference_steps=4, guidance_scale=2.0, generator=7).images
    assert [np.array_equal(a, b) for a, b in zip(written.images, expected, strict=True)] == [True] * 3
    wordless = app.draw(pipeline(prompts=None), scheduler="DPMSolverMultistep", classes=[], **arguments)
    assert wordless.captions == ["seed 7", "seed 8", "seed 9"]
    assert "RGB images, 8×8 pixels, drawn by prompt" in app.describe(pipe)


def test_changes_what_is_painted_over_and_nothing_else() -> None:
    pipe, steps = pipeline(), list[tuple[int, int]]()
    found = changed(pipe, on_step=lambda done, total: steps.append((done, total)))
    assert steps == [(k + 1, 4) for k in range(4)]
    assert found.captions == ["seed 5", "seed 6"]
    assert found.summary.startswith("2 changes under the paint to “a &lt;b&gt;cat” in ")
    mask = torch.zeros(1, 8, 8)
    mask[:, :, :4] = 1
    how: dict[str, Any] = {"guidance_scale": 3.0, "num_inference_steps": 4, "generator": [5, 6]}
    expected = pipe("a <b>cat", batch_size=2, image=noise(8, 8), mask_image=mask, **how).images
    for image, own in zip(found.images, expected, strict=True):
        np.testing.assert_array_equal(np.asarray(image)[:, 4:], np.asarray(noise(8, 8))[:, 4:])
        np.testing.assert_allclose(np.asarray(image).astype(int), np.asarray(own).astype(int), atol=1)


def test_changes_the_whole_where_nothing_is_painted() -> None:
    pipe, picture = pipeline(), np.asarray(noise(8, 8)).astype(int)
    near, far = (changed(pipe, layers=[], strength=strength) for strength in (0.25, 0.75))
    assert "1 of 4 steps, strength 0.25" in near.summary
    assert "as a whole" in near.summary
    distances = [np.abs(np.asarray(found.images[0]).astype(int) - picture).mean() for found in (near, far)]
    assert 0 < distances[0] < distances[1]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"given": None}, "There is no picture. Drop one"),
        ({"layers": []}, "Nothing is painted, and at strength 1 nothing .* lower the strength"),
        ({"given": repair.crop(noise(6, 9), (3, 8, 8))}, "has 6×6 pixels .* and 8×8 are needed"),
        ({"seed": -1}, "The seed must be a whole number from 0 to 4294967295, and is -1"),
        ({"strength": 0.1}, "strength must leave one or more of the 4 steps"),
        ({"steps": 2000}, "num_inference_steps must be in 1..1000, and is 2000"),
    ],
)
def test_says_what_is_wrong(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        changed(pipeline(), **changes)


def test_examples_are_painted_over_in_the_middle() -> None:
    found = edit.examples(repair, (3, 8, 8), [noise(8, 8)] * 3)
    assert len(found) == 3
    given, value = found[0]
    image = changed(pipeline(), given=given, layers=value["layers"]).images[0]
    same = (np.asarray(image) == np.asarray(noise(8, 8))).all(-1)
    assert same[:2].all()
    assert not same[2:6, 2:6].all()


def test_the_page_has_a_tab_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "find_schedulers", lambda pipe: app.Schedulers(["CosineBeta"], {}))
    pipe = pipeline()
    blocks = app.build(pipe, "title", None, partial(edit.fill, pipe, repair, easel)).blocks.values()
    assert [block.label for block in blocks if isinstance(block, gradio.Tab)] == ["Draw", "Edit"]
    labels = [getattr(block, "label", None) for block in blocks]
    assert {"Prompts", "Prompt", "Strength", "Paint over what is to be drawn anew"} <= set(labels)
    assert page_of(pipe, "run") == "prompts"


def test_it_stands_alone_in_a_space(tmp_path: Path) -> None:
    pipeline().save_pretrained(tmp_path / "model")
    shown = str(tmp_path / "model")
    stage_space(shown, tmp_path / "space", "prompts")
    requirements = (tmp_path / "space" / "requirements.txt").read_text().split()
    assert requirements[-1].startswith("transformers>=")
    command = [sys.executable, "-c", ALONE, str(tmp_path / "space"), shown]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr[-2000:]
    page, drawn = result.stdout.splitlines()
    assert page == f"{shown} | Draw | Edit"
    assert drawn.endswith("a red fox · seed 5 | green grass · seed 6 | a red fox · seed 7")
