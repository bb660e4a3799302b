"""A model of texts on the Hub: each program of its card runs where logsnr isn't, and writes what it writes here.

The kernel `absorbing` has a form for stock's `LLaDA2Pipeline`, without trust; with trust, and for other kernels, our
code lies in the repo, and fills in blanks.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import Finished
from loopback_hub import LoopbackHub
from stock_python import link_packages, run_stock_python
from tiny_text import LETTERS, tiny_modern_bert

from logsnr.media.text import character_codec
from logsnr.pipelines.pipeline_text import TextPipeline
from logsnr.pipelines.prefix_tokens import TIME_BUCKETS
from logsnr.schedulers.scheduling_transition import TransitionScheduler

REPO = "ada/letters"
INFILL = "the [blank] of the [blank:4]"
RUN_CARD = """
import json, sys

names = {}
exec(compile(sys.argv[1], "card", "exec"), names)
pipe = names["pipe"]
told = [type(pipe).__name__, type(pipe.scheduler).__name__, names.get("texts")]
if type(pipe).__name__ == "TextPipeline":
    told.append(pipe(infill=sys.argv[2], batch_size=2, length=24, num_inference_steps=5, generator=3).texts)
assert not any(name.split(".")[0] == "logsnr" for name in sys.modules)
print("told", json.dumps(told))
"""


def pipeline(kernel: str, names: tuple[str, ...] = ()) -> Any:
    tokenizer = character_codec(LETTERS).tokenizer
    scheduler = TransitionScheduler(kernel, len(tokenizer), num_train_timesteps=64)
    told = (0 if kernel == "absorbing" else TIME_BUCKETS) + (len(names) + 1 if names else 0)
    config = {"decoder_bias": True, "id2label": dict(enumerate(names))} if names else {"decoder_bias": True}
    pipe: Any = TextPipeline(tiny_modern_bert(len(tokenizer) + told, **config), scheduler, tokenizer)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.mark.parametrize(("kernel", "names"), [("absorbing", ("low", "high")), ("uniform", ())])
def test_the_programs_of_the_card_write_where_logsnr_is_not(
    kernel: str,
    names: tuple[str, ...],
    hub: LoopbackHub,
    logsnr_at_hub: Callable[..., Finished],
    tmp_path: Path,
) -> None:
    pipe = pipeline(kernel, names)
    pipe.save_pretrained(tmp_path / "model")
    end = logsnr_at_hub("publish", tmp_path / "model", REPO)
    assert end.status == 0, end.output
    programs = re.findall(r"```python\n(.*?)```", hub.repo(REPO).files()["README.md"].decode(), re.DOTALL)
    *stock, own, ours = programs
    assert len(stock) == (kernel == "absorbing")
    assert "import logsnr" in ours
    (tmp_path / "site").mkdir()
    site = link_packages(tmp_path / "site", "torch", "diffusers", "transformers")

    def told(program: str, **variables: str) -> list[Any]:
        printed = run_stock_python(
            *(site, RUN_CARD, program, INFILL), cwd=tmp_path, variables=hub.environment(tmp_path / "reader") | variables
        )
        return list(json.loads(printed.split("told ")[1].splitlines()[0]))

    for program in stock:
        assert told(program, DIFFUSERS_DISABLE_REMOTE_CODE="1")[:2] == ["LLaDA2Pipeline", "BlockRefinementScheduler"]
    name, scheduler, texts, filled = told(own)
    assert (name, scheduler) == ("TextPipeline", "TransitionScheduler")
    assert len(texts) == (len(names) or 4)
    assert filled == pipe(infill=INFILL, batch_size=2, length=24, num_inference_steps=5, generator=3).texts
    for text in filled:
        assert re.fullmatch(r"the [a-z ]{0,9} of the [a-z ]{0,4}", text), text
