"""The page of a model of texts: what it writes and how it shows it, what goes wrong, and the files of its Space."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import Finished
from huggingface_hub import SpaceCard
from tiny_text import LETTERS, tiny_modern_bert

from logsnr.media.text import byte_codec, character_codec
from logsnr.pipelines.pipeline_text import TextPipeline
from logsnr.pipelines.prefix_tokens import TIME_BUCKETS
from logsnr.publishing.demo import page_of, stage_space
from logsnr.schedulers.scheduling_transition import TransitionScheduler

pytest.importorskip("gradio", reason="gradio is missing: pip install logsnr[demo]")
from logsnr.space import write  # needs gradio

NAMES = {0: "low", 1: "<b>high"}
ALONE = """
import runpy, sys
sys.modules["logsnr"] = None  # any import of it raises ModuleNotFoundError
sys.path.insert(0, sys.argv[1])
import app, write
app.gr.Blocks.launch = lambda page, **options: print(page.title)
runpy.run_path(sys.argv[1] + "/app.py", run_name="__main__")
pipe = app.load(sys.argv[2])
*_, last = write.write(pipe, given="the [blank:3]", label=write.NO_CLASS, guidance=1.0, number=2, length=9, steps=4,
                       temperature=1.0, seed=5)
print(write.describe(pipe), *last.captions, *(pipe.tokenizer.decode(row) for row in last.steps[-1]), sep=" | ")
"""


def pipeline(kernel: str = "absorbing", names: dict[int, str] | None = None) -> Any:
    tokenizer = character_codec(LETTERS).tokenizer
    scheduler = TransitionScheduler(kernel, len(tokenizer), num_train_timesteps=64)
    told = (0 if kernel == "absorbing" else TIME_BUCKETS) + (len(names) + 1 if names else 0)
    config: dict[str, Any] = {"decoder_bias": True} | ({"id2label": names} if names else {})
    model = tiny_modern_bert(len(tokenizer) + told, **config)
    with torch.no_grad():
        model.decoder.bias[tokenizer.eos_token_id] = -1e4  # none of these texts ends
    pipe: Any = TextPipeline(model, scheduler, tokenizer)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def written(pipe: Any, **changes: Any) -> write.Writing:
    arguments: dict[str, Any] = {"given": "", "label": write.NO_CLASS, "guidance": 2.0, "number": 2, "length": 16}
    arguments |= {"steps": 5, "temperature": 1.0, "seed": 3} | changes
    *_, last = write.write(pipe, **arguments)
    return last


def plain(shown: str) -> str:
    """The text of the first paragraph."""
    (text, *_) = re.findall(r"<p>(.*?)</p>", shown, re.DOTALL)
    return re.sub(r"<.*?>", "", text)


@pytest.mark.parametrize(
    ("given", "what"),
    [
        ("", {"length": 16}),
        ("the ", {"prompt": "the ", "length": 16}),
        ("the [blank] of", {"infill": "the [blank] of", "length": 16}),
        ("the [blank:3] of", {"infill": "the [blank:3] of"}),
    ],
)
@pytest.mark.parametrize("kernel", ["absorbing", "uniform"])
def test_it_is_what_the_pipeline_writes(kernel: str, given: str, what: dict[str, Any]) -> None:
    pipe = pipeline(kernel)
    writing = written(pipe, given=given)
    expected = pipe(**what, batch_size=2, num_inference_steps=5, generator=3)
    assert torch.equal(writing.steps[-1], expected.sequences)
    assert len(writing.steps) == writing.total == 5
    assert writing.captions == ["seed 3", "seed 4"]
    assert plain(write.texts_html(pipe, writing, 5)) == expected.texts[0]
    assert re.match(r"2 texts in [\d.]+ s: 5 steps, temperature 1, seeds 3 to 4\.", writing.summary)


def test_masks_are_lifted_step_by_step_and_what_is_new_is_marked() -> None:
    pipe = pipeline()
    writing = written(pipe, given="the [blank:3] of", number=1)
    masks = []
    for step in range(1, 6):
        shown = write.texts_html(pipe, writing, step)
        masks.append(plain(shown).count(write.MASK))
        assert re.findall('<span class="given">(.*?)</span>', shown) == ["the ", " of"]
        new = sum(map(len, re.findall('<span class="new">(.*?)</span>', shown.partition("</p>")[0])))
        if step < 5:
            assert new == ([3, *masks][step - 1] - masks[-1])
    assert masks == sorted(masks, reverse=True)
    assert masks[-1] == 0
    assert 'class="new"' not in shown.partition("</p>")[0]


def test_a_class_is_asked_for_and_names_are_no_html() -> None:
    pipe = pipeline(names=NAMES)
    assert write.choices(pipe) == ["low", "<b>high"]
    writing = written(pipe, label="<b>high")
    expected = pipe(class_labels=[1, 1], length=16, num_inference_steps=5, generator=3, guidance_scale=2.0)
    assert torch.equal(writing.steps[-1], expected.sequences)
    assert "class <b>high, guidance 2, " in writing.summary
    assert "2 classes" in write.describe(pipe)


def test_documents_stand_apart_and_bytes_become_letters() -> None:
    tokenizer = byte_codec().tokenizer
    end, mask = tokenizer.eos_token_id, tokenizer.mask_token_id
    sequence = torch.tensor([*"aé<".encode(), end, *b"b", mask, mask, end, end])
    given = torch.tensor([97, *[-1] * 9])
    shown = write.text_html(tokenizer, given, sequence, sequence)
    assert shown == (
        '<span class="given">a</span><span class="written">é&lt;</span><span class="end">\n\n</span>'
        '<span class="written">b</span><span class="mask">░░</span><span class="end"></span>'
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seed": -1}, "The seed must be a whole number from 0 to 4294967295, and is -1"),
        ({"seed": None}, "The seed must be a whole number"),
        ({"given": "The"}, "prompt must be of what the tokenizer knows, and 'The' has 'T'"),
        ({"given": "a[blank:x]"}, r"blanks such as \[blank\] or \[blank:12\], and has \[blank:x\]"),
        ({"steps": 2000}, "num_inference_steps"),
    ],
)
def test_says_what_is_wrong(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        written(pipeline(), **changes)


def test_whatever_the_network_raises_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = pipeline()

    def forward(*args: Any, **kwargs: Any) -> Any:
        raise MemoryError("all of it is full")

    monkeypatch.setattr(pipe.model, "forward", forward)
    with pytest.raises(ValueError, match=r"5 steps ended in MemoryError: all of it is full\. Try fewer texts"):
        written(pipe)


def test_who_stops_looking_stops_the_writing() -> None:
    pipe, calls = pipeline(), list[int]()
    forward = pipe.model.forward

    def counted(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        return forward(*args, **kwargs)

    pipe.model.forward = counted
    how = {"given": "", "label": write.NO_CLASS, "guidance": 2.0, "number": 1, "length": 16, "temperature": 1.0}
    writing = write.write(pipe, **how, steps=64, seed=0)  # type: ignore[arg-type]
    next(writing)
    writing.close()
    assert len(calls) < 64


def test_the_page_asks_for_what_the_model_knows() -> None:
    assert page_of(pipeline(), "run") == "texts"
    for names, shown in ((None, False), (NAMES, True)):
        blocks = list(write.build(pipeline(names=names), "title").blocks.values())
        labels = {getattr(block, "label", None): block for block in blocks}
        assert {"What is given", "Texts", "Tokens", "Steps", "Temperature", "Seed"} <= labels.keys()
        assert labels["Class"].visible is labels["Guidance"].visible is shown
        assert labels["Tokens"].maximum == pipeline().max_length - shown


@pytest.mark.parametrize("kernel", ["absorbing", "uniform"])
def test_it_stands_alone_in_a_space(kernel: str, tmp_path: Path) -> None:
    pipeline(kernel).save_pretrained(tmp_path / "model")
    shown = str(tmp_path / "model")
    stage_space(shown, tmp_path / "space", "texts")
    assert (tmp_path / "space" / "requirements.txt").read_text().split()[-1].startswith("transformers>=")
    card = SpaceCard.load(tmp_path / "space" / "README.md")
    assert card.data.title == "Write with model"
    assert "blanks of a text" in card.text
    command = [sys.executable, "-c", ALONE, str(tmp_path / "space"), shown]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr[-2000:]
    page, told = result.stdout.splitlines()
    assert page == shown
    assert re.search(
        rf"kernel {kernel} · [\d,]+ parameters \| seed 5 \| seed 6 \| the [a-z ]{{3}} \| the [a-z ]{{3}}", told
    )


def test_a_space_is_published_with_it(tmp_path: Path, logsnr: Callable[..., Finished]) -> None:
    pipeline().save_pretrained(tmp_path / "model")
    end = logsnr("publish", tmp_path / "model", "ada/letters", "--space", "--dry-run")
    assert end.status == 0, end.output
    assert re.search(r"write\.py +[\d.]+ kB  the app's page, of a model of texts", end.output)
