"""Writing text: the law of an exact denoiser, blanks, the same seed in any batch, and folders that stock loads."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers.pipelines.llada2.pipeline_llada2 import LLaDA2Pipeline
from markov_chain import MarkovChain
from scipy.stats import chi2
from stock_python import link_packages, run_stock_python
from tiny_text import letters, tiny_modern_bert
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel

from logsnr.pipelines.pipeline_text import TextPipeline
from logsnr.pipelines.prefix_tokens import TIME_BUCKETS, time_bucket
from logsnr.schedulers.scheduling_transition import TransitionScheduler

CHAIN = MarkovChain.of_the_facts()


class Exact(PreTrainedModel):  # type: ignore[misc]  # transformers is untyped here
    """The perfect denoiser of the chain, told what a network is told."""

    config_class = PretrainedConfig

    def __init__(self, scheduler: TransitionScheduler) -> None:
        told = TIME_BUCKETS if scheduler.kernel != "absorbing" else 0
        super().__init__(
            PretrainedConfig(vocab_size=scheduler.num_states + told, max_position_embeddings=CHAIN.length + (told > 0))
        )
        self.weight, self.scheduler = torch.nn.Parameter(torch.zeros(1)), scheduler
        self.by_bucket = time_bucket(scheduler.log_snr(torch.arange(len(scheduler)))).tolist()

    def forward(self, input_ids: Tensor) -> Any:
        t = len(self.scheduler) // 2  # of masks any timestep says the same
        if self.scheduler.kernel != "absorbing":
            t = self.by_bucket.index(int(input_ids[0, 0]) - self.scheduler.num_states)
        sample = input_ids[:, -CHAIN.length :]
        said = CHAIN.denoise(sample, self.scheduler.cumulative_matrix(t))
        nothing = torch.zeros(len(input_ids), input_ids.shape[1] - CHAIN.length, said.shape[-1], dtype=said.dtype)
        return SimpleNamespace(logits=torch.cat([nothing, said], 1))


def exact(kernel: str, steps: int) -> Any:
    marks = ("mask",) if kernel == "absorbing" else ()
    scheduler = TransitionScheduler(kernel, 3 + len(marks), num_train_timesteps=steps)  # type: ignore[arg-type]
    return quiet(TextPipeline(Exact(scheduler), scheduler, letters("abc", marks)))


def tiny(classes: int = 0, kernel: str = "absorbing", **config: Any) -> Any:
    tokenizer = letters()
    scheduler = TransitionScheduler(kernel, len(tokenizer), num_train_timesteps=32)  # type: ignore[arg-type]
    told = (0 if kernel == "absorbing" else TIME_BUCKETS) + (classes + 1 if classes else 0)
    return quiet(TextPipeline(tiny_modern_bert(len(tokenizer) + told, **config), scheduler, tokenizer))


def quiet(pipe: Any) -> Any:
    pipe.set_progress_bar_config(disable=True)
    return pipe


def write(pipe: Any, **arguments: Any) -> Any:
    return pipe(**{"num_inference_steps": 6, "generator": 0, "length": 16} | arguments)


def assert_follows(sequences: Tensor, law: Tensor) -> None:
    """Chi-square at 1 in 1000 over `CHAIN.sequences`, cells of fewer than five expected taken together."""
    counts = torch.bincount(sequences @ torch.tensor([9, 3, 1]), minlength=27).double()
    expected = law * len(sequences)
    rare = expected < 5
    counts = torch.cat([counts[~rare], counts[rare].sum()[None]])
    expected = torch.cat([expected[~rare], expected[rare].sum()[None]])
    assert float(counts[-1]) <= float(expected[-1]) + 4 * math.sqrt(float(expected[-1])) + 1
    deviation = float(((counts - expected).square() / expected)[:-1].sum())
    assert deviation < chi2.isf(1e-3, max(1, len(counts) - 2))


def law_of_steps(scheduler: TransitionScheduler) -> Tensor:
    """What ancestral steps draw of the chain with uniform noise, (27,), by enumeration."""
    states = CHAIN.sequences
    now = scheduler.stationary[states].prod(1)
    for t in scheduler.timesteps:
        p = CHAIN.denoise(states, scheduler.cumulative_matrix(t)).exp()
        first, second, third = scheduler.posterior(p, states, t.reshape(1)).unbind(1)
        now = now @ torch.einsum("na,nb,nc->nabc", first, second, third).flatten(1)
    return now


# -- The law -----------------------------------------------------------------------------------------------------------


def test_texts_follow_the_chain() -> None:
    law = CHAIN.log_probability(CHAIN.sequences).exp()
    made = exact("absorbing", 256)(batch_size=2000, num_inference_steps=256, generator=torch.Generator().manual_seed(0))
    assert_follows(made.sequences, law)
    assert made.texts[:2] == ["".join("abc"[state] for state in row) for row in made.sequences[:2].tolist()]


@pytest.mark.parametrize(("infill", "steps"), [("[blank:1]b[blank:1]", 4), ("a[blank]c", 4), ("b[blank]", 256)])
def test_infilling_is_the_conditional_law(infill: str, steps: int) -> None:
    """Given the middle, or all but one, the places left are independent: then a few steps are exact."""
    text = {"[blank:1]b[blank:1]": "?b?", "a[blank]c": "a?c", "b[blank]": "b??"}[infill]
    states = CHAIN.sequences
    agrees = torch.ones(len(states), dtype=torch.bool)
    for place, letter in enumerate(text):
        if letter != "?":
            agrees &= states[:, place] == "abc".index(letter)
    law = CHAIN.log_probability(states).exp() * agrees
    generator = torch.Generator().manual_seed(1)
    made = exact("absorbing", 256)(
        infill=infill, batch_size=2000, length=3, num_inference_steps=steps, generator=generator
    )
    assert_follows(made.sequences, law / law.sum())


@pytest.mark.parametrize("target", ["Transition", "DiscreteDDIM"])
def test_uniform_noise_by_our_steps_and_stock_s(target: str) -> None:
    pipe = exact("uniform", 8).swap_scheduler(target)
    made = pipe(batch_size=3000, num_inference_steps=8, generator=torch.Generator().manual_seed(2))
    own = TransitionScheduler("uniform", 3, num_train_timesteps=8)
    assert_follows(made.sequences, law_of_steps(own))


# -- Words -------------------------------------------------------------------------------------------------------------


def test_what_is_given_stays() -> None:
    pipe = tiny()
    for options in ({}, {"remask": 0.5}, {"corrector_steps": 2}, {"order": "entropy"}, {"temperature": 0.0}):
        (text,) = write(pipe, infill="the [blank] of [blank:3]", length=20, **options).texts
        assert len(text) == 20
        assert text.startswith("the ")
        assert text[13:17] == " of "
        (text,) = write(pipe, prompt="a cat", **options).texts
        assert text.startswith("a cat")


def test_lengths() -> None:
    pipe = tiny()
    assert write(pipe, infill="ab[blank:3]c", length=None).sequences.shape == (1, 6)
    assert write(pipe, length=None).sequences.shape == (1, 34)
    (text,) = write(pipe, infill="[blank]x[blank]y[blank]", length=10).texts
    assert (text[3], text[7]) == ("x", "y")  # 3, 3 and 2


def test_marks_are_never_written() -> None:
    for kernel in ("absorbing", "uniform"):
        pipe = tiny(kernel=kernel)
        pipe.model.decoder.bias.data[[pipe.tokenizer.mask_token_id, pipe.tokenizer.pad_token_id]] = 1e3
        found = set(write(pipe, batch_size=4).sequences.flatten().tolist())
        assert not found & {pipe.tokenizer.mask_token_id, pipe.tokenizer.pad_token_id}


@pytest.mark.parametrize("kernel", ["absorbing", "uniform"])
def test_a_text_is_the_same_in_any_batch(kernel: str) -> None:
    pipe = tiny(classes=2, kernel=kernel)
    infill = ["the [blank]", "a [blank:4][blank]", "[blank]"]
    arguments: dict[str, Any] = {"class_labels": [0, 1, 1], "guidance_scale": 2.0}
    whole = write(pipe, infill=infill, generator=5, **arguments).texts
    for k in range(3):
        alone = arguments | {"class_labels": arguments["class_labels"][k]}
        assert write(pipe, infill=infill[k], generator=5 + k, **alone).texts == [whole[k]]


def test_classes_and_guidance() -> None:
    pipe = tiny(classes=2, id2label={0: "prose", 1: "verse"})
    by_number = write(pipe, class_labels=1).texts
    assert write(pipe, class_labels="verse").texts == by_number
    assert write(pipe, class_labels=1, guidance_scale=0.0).texts == write(pipe).texts
    sizes: list[int] = []
    pipe.model.register_forward_hook(
        lambda _m, _a, kwargs, _o: sizes.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    for w, rows in ((0.0, 2), (1.0, 2), (2.0, 4)):
        sizes.clear()
        write(pipe, class_labels=1, guidance_scale=w, batch_size=2, num_inference_steps=2)
        assert sizes == [rows, rows]


def test_output_and_callback() -> None:
    pipe, seen = tiny(), []

    def all_a(_: Any, step: int, t: Any, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        seen.append((step, int(t), tensors["model_output"].shape))
        return {"sample": torch.zeros(1, 4, dtype=torch.int64)} if step == 1 else {}

    sequences, texts = write(
        pipe,
        length=4,
        num_inference_steps=2,
        callback_on_step_end=all_a,
        callback_on_step_end_tensor_inputs=["model_output"],
        return_dict=False,
    )
    assert seen == [(0, 31, (1, 4, 30)), (1, 15, (1, 4, 30))]
    assert (sequences.tolist(), texts) == ([[0] * 4], ["aaaa"])
    assert write(pipe, output_type="seq").texts is None


# -- Folders -----------------------------------------------------------------------------------------------------------

STOCK = """
import sys

import torch
from diffusers import DiffusionPipeline
from transformers import AutoTokenizer

pipe = DiffusionPipeline.from_pretrained(sys.argv[1])
assert type(pipe).__name__ == "LLaDA2Pipeline", type(pipe)
pipe.set_progress_bar_config(disable=True)
sequences = pipe(
    input_ids=torch.empty((2, 0), dtype=torch.long), gen_length=16, block_length=16, num_inference_steps=16,
    temperature=1.0, threshold=2.0, editing_threshold=None, mask_token_id=29, output_type="seq",
).sequences
assert sequences.shape == (2, 16) and not set(sequences.flatten().tolist()) & {27, 28, 29}, sequences
texts = AutoTokenizer.from_pretrained(sys.argv[1]).batch_decode(sequences)
assert [len(text) for text in texts] == [16, 16], texts
try:
    DiffusionPipeline.from_pretrained(sys.argv[1], custom_pipeline=sys.argv[2], trust_remote_code=True)
except ValueError as error:
    assert "disabled globally" in str(error), error
else:
    raise AssertionError("ran remote code")
assert not any(name.split(".")[0] == "logsnr" for name in sys.modules)
"""


def test_stock_loads_and_writes_without_code(tmp_path: Path) -> None:
    pipe = tiny()
    pipe.save_pretrained(tmp_path / "model")
    (own,) = (tmp_path / "model").glob("pipeline_text_*.py")
    (tmp_path / "site").mkdir()
    printed = run_stock_python(
        link_packages(tmp_path / "site", "torch", "diffusers", "transformers"),
        STOCK,
        *(tmp_path / "model", own.stem),
        cwd=tmp_path,
        variables={"DIFFUSERS_DISABLE_REMOTE_CODE": "1", "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")},
    )
    assert "not expected" not in printed


def test_a_folder_keeps_all(tmp_path: Path) -> None:
    pipe = tiny(classes=2)
    pipe.save_pretrained(tmp_path / "a")
    again = quiet(TextPipeline.from_pretrained(tmp_path / "a"))
    assert type(again.scheduler) is TransitionScheduler
    assert torch.equal(again.scheduler.betas, pipe.scheduler.betas)
    arguments = {"infill": "a [blank]", "class_labels": 1}
    assert write(again, **arguments).texts == write(pipe, **arguments).texts
    again.save_pretrained(tmp_path / "b")
    files = [{path.relative_to(folder) for path in folder.rglob("*")} for folder in (tmp_path / "a", tmp_path / "b")]
    assert files[0] == files[1]
    for path in (tmp_path / "b").rglob("*.json"):
        assert path.read_text() == (tmp_path / "a" / path.relative_to(tmp_path / "b")).read_text(), path


def test_to_stock() -> None:
    pipe = tiny()
    stock = pipe.to_stock()
    assert type(stock) is LLaDA2Pipeline
    assert stock.tokenizer is None
    assert stock.model.decoder.bias[[27, 28, 29]].tolist() == [-1e4] * 3
    assert not pipe.model.decoder.bias.any()
    with pytest.raises(ValueError, match="the kernel uniform has no stock form"):
        tiny(kernel="uniform").to_stock()
    with pytest.raises(ValueError, match="decoder_bias=True"):
        tiny(decoder_bias=False).to_stock()


# -- What is refused, and swaps ----------------------------------------------------------------------------------------


def test_swaps() -> None:
    pipe = tiny().swap_scheduler("BlockRefinement", threshold=2.0)
    infill = ["the [blank]", "a [blank]"]
    whole = write(pipe, infill=infill).texts
    assert [text[:2] for text in whole] == ["th", "a "]
    assert write(pipe, infill=infill[1], generator=1).texts == [whole[1]]
    with pytest.raises(ValueError, match="remask is for TransitionScheduler"):
        write(pipe, remask=0.5)
    assert type(pipe.swap_scheduler("Transition").scheduler) is TransitionScheduler
    for target, message in (
        ("EntropyBound", "no timestep says how much noise"),
        ("DiscreteDDIM", "takes away uniform noise, and the model's is absorbing"),
        ("DDPM", "There are: Transition, BlockRefinement, DiscreteDDIM"),
    ):
        with pytest.raises(ValueError, match=message):
            pipe.swap_scheduler(target)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prompt": "The cat"}, "prompt must be of what the tokenizer knows, and 'The cat' has 'T'"),
        ({"infill": "é[blank]"}, "infill must be of what the tokenizer knows, and 'é' has 'é'"),
        ({"prompt": "a [MASK]"}, r"prompt must not have \[MASK\]"),
        ({"prompt": "a [blank]"}, "Use infill"),
        ({"prompt": "a", "infill": "a[blank]"}, "prompt and infill both"),
        ({"prompt": 5}, "prompt must be a string or a list of strings, and has 5"),
        ({"prompt": []}, "prompt must have an entry for each text"),
        ({"prompt": ["a", "b"], "batch_size": 3}, "must agree, and say: batch_size 3, prompt 2"),
        ({"prompt": "abc", "length": 3}, "takes at least 4 tokens, a blank's at least 1, and length is 3"),
        ({"infill": "abc"}, r"infill must have a \[blank\] in each text"),
        ({"infill": "a[blank:0]"}, r"blanks such as \[blank\] or \[blank:12\], and has \[blank:0\]"),
        ({"infill": "a[blank:3]", "length": 5}, "takes 4 tokens.*length is 5"),
        ({"infill": ["a[blank:3]", "a[blank:4]"], "length": None}, "takes 4 tokens.*length is 5"),
        ({"length": 35}, r"length must be an integer in 1\.\.34"),
        ({"class_labels": 0}, "the model has no classes"),
        ({"guidance_scale": 2.0}, "guidance_scale 2.0 needs class_labels"),
        ({"num_inference_steps": 33}, r"`num_inference_steps` must be in \[1, 32\]"),
        ({"remask": 2.0}, r"`remask` in \[0, 1\]"),
        ({"order": "left"}, "`order` must be one of random, confidence, entropy"),
        ({"output_type": "np"}, 'output_type must be "text" or "seq"'),
        ({"batch_size": 2, "generator": [1]}, "generator must be one, or one for each of 2 texts"),
        ({"callback_on_step_end_tensor_inputs": ["x"]}, "must be among"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], message: str) -> None:
    pipe = tiny()
    with pytest.raises(ValueError, match=message):
        write(pipe, **arguments)


def test_wrong_parts() -> None:
    tokenizer, scheduler = letters(), TransitionScheduler(num_states=30)
    with pytest.raises(ValueError, match=r"vocab_size must be 30 \(scheduler.num_states\), .* it is 31"):
        TextPipeline(tiny_modern_bert(31), scheduler, tokenizer)
    with pytest.raises(ValueError, match=r"mask_token_id must be scheduler.mask_token_id = 0, and is 29"):
        TextPipeline(tiny_modern_bert(30), TransitionScheduler(num_states=30, mask_token_id=0), tokenizer)
    with pytest.raises(ValueError, match=r"at most scheduler.num_states = 29 tokens, and has 30"):
        TextPipeline(tiny_modern_bert(29), TransitionScheduler(num_states=29), tokenizer)
    with pytest.raises(ValueError, match="tokenizer must be given"):
        TextPipeline(tiny_modern_bert(30), scheduler)
