"""Text by discrete diffusion: a masked language model of transformers, a `TransitionScheduler` and a tokenizer.

A text is a sequence of states (tokens). x_T is drawn from the chain's stationary distribution, and then, for each t,

    logits = model([prefix] x)          p(x_0 | x_t) of each place
    x      = scheduler.step(logits, t, x)
    x      = given where there is something given

Whatever is given stands where it stands: a beginning, or a text with blanks. With the kernel `absorbing` that draws
from the model's own conditional distribution, for there a given state is no other than one that has been drawn. With
other kernels it is an approximation: the network takes a given state for one that may be noise.

What the network is told beside the states stands before them, by the file of prefix tokens.

Guidance is between the model's two opinions, p(x_0 | x_t, class)^w p(x_0 | x_t)^(1 - w) but for a factor.

A folder is a `LLaDA2Pipeline` where the kernel is absorbing, and needs no code of ours. The tokenizer lies beside
model_index.json, for that pipeline can't load one: `AutoTokenizer.from_pretrained` of the folder reads it.

This file is copied, with those that it loads, into the folders that it saves.
"""

from __future__ import annotations

import copy
import json
import math
import numbers
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import diffusers
import torch
from diffusers.pipelines.llada2.pipeline_llada2 import LLaDA2Pipeline
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.schedulers.scheduling_block_refinement import BlockRefinementScheduler
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from diffusers.utils.outputs import BaseOutput
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from ..schedulers.scheduling_transition import Order, TransitionScheduler
from .blanks import FREE, given_states
from .call_arguments import Callback, Seed, seeded, tensor_inputs
from .prefix_tokens import TIME_BUCKETS, network_input
from .travelling_folder import OwnCard, forget_machine, rewrite_json, sources

_NEVER = -1e4  # a logit that is never drawn, and finite in half precision
# stock's schedulers of states: the kernel whose noise they take away, and those of their options that say anything here
_SWAPS: dict[str, tuple[str, set[str]]] = {
    "BlockRefinementScheduler": ("absorbing", {"threshold", "editing_threshold"}),
    "DiscreteDDIMScheduler": ("uniform", set()),
}
_CARD = """---
library_name: diffusers
pipeline_tag: text-generation
tags:
- logsnr
---

# {name}

Text by discrete diffusion: a `{model}` of {states} states, and the kernel {kernel}.

```python
{program}
```
"""
_STOCK_CALL = """sequences = pipe(
    input_ids=torch.{start}, gen_length={length}, block_length={length}, num_inference_steps={length}, temperature=1.0,
    threshold=2.0, editing_threshold=None, mask_token_id={mask}, output_type="seq"
).sequences
print(AutoTokenizer.from_pretrained("{repo_id}").batch_decode(sequences))"""
_STOCK_PROGRAM = """import torch
from diffusers import DiffusionPipeline
from transformers import AutoTokenizer

pipe = DiffusionPipeline.from_pretrained("{repo_id}")
{call}
```

That commits what is likeliest first. The model's own steps, and texts with blanks, by the code that lies beside it:

```python
pipe = DiffusionPipeline.from_pretrained("{repo_id}", custom_pipeline="{own}", trust_remote_code=True)
print(pipe(batch_size=4, length={length}, generator=0).texts)"""
_OWN_PROGRAM = """from diffusers import DiffusionPipeline

pipe = DiffusionPipeline.from_pretrained("{repo_id}", trust_remote_code=True)
print(pipe(batch_size=4, length={length}, generator=0).texts)"""


@dataclass
class TextPipelineOutput(BaseOutput):
    """What was written.

    sequences (n, length), int64: the states. texts: the same, decoded; None with output_type "seq".
    """

    sequences: Tensor
    texts: list[str] | None


class TextPipeline(OwnCard, DiffusionPipeline):
    """Texts, from a masked language model of transformers and a scheduler of states.

    model: such as `ModernBertForMaskedLM`. Its vocab_size is the scheduler's num_states, and 32 more where the kernel
        isn't absorbing, and C + 1 more with C classes, whose names are its `config.id2label`.
    scheduler: a `TransitionScheduler`, or stock's in which `save_pretrained` has kept one.
    tokenizer: of transformers, with at most num_states tokens, and the scheduler's mask where that has one. None: it
        lies where the model was loaded from, beside model_index.json.

    Raises `ValueError` for parts that don't fit together.
    """

    model_cpu_offload_seq: Any = "model"
    _callback_tensor_inputs = ["sample", "model_output", "given"]
    _guidance_scale = 1.0
    _num_timesteps = 0

    def __init__(
        self,
        model: PreTrainedModel,
        scheduler: SchedulerMixin,
        tokenizer: PreTrainedTokenizerBase | None = None,
    ) -> None:
        super().__init__()
        own: Any = scheduler
        if (kept := own.config.get("_transition")) is not None:
            own = TransitionScheduler.from_config(kept)
        if type(own).__name__ != "TransitionScheduler":
            raise ValueError(
                f"scheduler must be a TransitionScheduler, and is a {type(own).__name__}. Swap after it was made."
            )
        if tokenizer is None:
            folder = Path(model.name_or_path or ".").parent
            if not (folder / "tokenizer.json").is_file():
                raise ValueError(f"tokenizer must be given, for there is no tokenizer.json in {folder}.")
            tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
        states, vocabulary = own.num_states, model.config.vocab_size
        self.tells_time = own.kernel != "absorbing"
        more = vocabulary - states - (TIME_BUCKETS if self.tells_time else 0)
        if more < 0 or more == 1:
            told = f" + {TIME_BUCKETS} of noise" if self.tells_time else ""
            raise ValueError(
                f"model.config.vocab_size must be {states}{told} (scheduler.num_states), and C + 1 more with C classes;"
                f" it is {vocabulary}."
            )
        if len(tokenizer) > states:
            raise ValueError(
                f"tokenizer must have at most scheduler.num_states = {states} tokens, and has {len(tokenizer)}."
            )
        if own.mask_token_id is not None and tokenizer.mask_token_id != own.mask_token_id:
            raise ValueError(
                f"tokenizer.mask_token_id must be scheduler.mask_token_id = {own.mask_token_id}, and is "
                f"{tokenizer.mask_token_id}."
            )
        self.register_modules(model=model, scheduler=own)  # type: ignore[no-untyped-call]
        self.tokenizer, self._own_scheduler = tokenizer, own
        self.num_classes: int | None = more - 1 if more else None
        # what ends a text may fill it up too, and is drawn
        marks = {tokenizer.pad_token_id, tokenizer.unk_token_id} - {tokenizer.eos_token_id}
        self._never = sorted({*marks, tokenizer.mask_token_id, *range(len(tokenizer), states)} - {None})

    @property
    def guidance_scale(self) -> float:
        """w of the running or last call."""
        return self._guidance_scale

    @property
    def num_timesteps(self) -> int:
        """Steps of the running or last call."""
        return self._num_timesteps

    @property
    def kernel(self) -> str:
        """Of the noise that it takes away, whatever scheduler was swapped to."""
        return str(self._own_scheduler.kernel)

    @property
    def max_length(self) -> int:
        """How many tokens the network reads, beside those that tell it something."""
        return int(self.model.config.max_position_embeddings - self.tells_time - (self.num_classes is not None))

    # -- Sampling ------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | list[str] | None = None,
        infill: str | list[str] | None = None,
        class_labels: int | str | list[int | str] | None = None,
        batch_size: int | None = None,
        length: int | None = None,
        num_inference_steps: int = 64,
        guidance_scale: float = 1.0,
        generator: Seed | list[Seed] | None = None,
        temperature: float = 1.0,
        order: Order = "random",
        remask: float = 0.0,
        corrector_steps: int = 0,
        output_type: str = "text",
        return_dict: bool = True,
        callback_on_step_end: Callback | None = None,
        callback_on_step_end_tensor_inputs: list[str] | None = None,
    ) -> TextPipelineOutput | tuple[Tensor, list[str] | None]:
        """Write texts. Raises `ValueError` for every argument out of its range.

        prompt: how the text begins; one for all texts, or one for each.
        infill: the text with blanks, "the [blank] of the [blank:12]"; one for all, or one for each. A blank with a
            number is so many tokens long. The others share what length leaves over evenly, the first get one more.
        class_labels: a class, its number or its name, for all texts, or one for each. None is no class.
        batch_size: number of texts, of one prompt, infill and class; of several it is the number of these.
        length: in tokens, of all texts. None: of an infill whose blanks all have numbers its own, else all that the
            network reads (`max_length`).
        num_inference_steps: in 1..T, one evaluation of the network each.
        guidance_scale: w. 1 is the class alone and 0 no class, at one evaluation a step; any other value costs two,
            in one batch, and needs class_labels.
        generator: a `torch.Generator` for the whole batch; or one for each text. An int is a seed: text k then has
            its own generator with seed `generator + k`, on the CPU. With a seed or generator for each text, a text is
            the same in any batch, but where round-off decides.
        temperature: the logits are divided by it; 0 takes the likeliest.
        order: "random", "confidence" or "entropy", which masks are lifted first (kernel `absorbing`).
        remask: chance of a lifted mask to come back in a step (kernel `absorbing`). What is given stays.
        corrector_steps: for each step so many down and up again by the chain; see `TransitionScheduler.step`.
        output_type: "text", or "seq" for states alone.
        callback_on_step_end: called as `f(pipe, step, timestep, {name: tensor})` after each step, with the tensors
            named in `callback_on_step_end_tensor_inputs` ("sample", "model_output", and "given", the states that
            stand, -1 where there is none); returns a dictionary, whose "sample" is taken over.
        """
        inputs = tensor_inputs(callback_on_step_end, callback_on_step_end_tensor_inputs, self._callback_tensor_inputs)
        if output_type not in ("text", "seq"):
            raise ValueError(f'output_type must be "text" or "seq", and is {output_type!r}.')
        batch = _batch(batch_size, prompt=prompt, infill=infill, class_labels=class_labels)
        classes = self._class_ids(class_labels, guidance_scale, batch)
        given = given_states(self.tokenizer, set(self._never), batch, length, self.max_length, prompt, infill)
        generators, device = seeded(generator, batch, "texts"), self._execution_device
        own = {"order": order, "remask": remask, "corrector_steps": corrector_steps}
        timesteps = self._set_timesteps(num_inference_steps, given.shape[1], temperature, own)

        given = given.to(device)
        sample = self._own_scheduler.sample_stationary(tuple(given.shape), generators, device)
        sample = torch.where(given == FREE, sample, given)
        self._guidance_scale, self._num_timesteps = guidance_scale, len(timesteps)
        for i, t in enumerate(self.progress_bar(timesteps)):
            logits = self._logits(sample, self._log_snr(i, t), classes)
            sample = torch.where(given == FREE, self._step(logits, i, t, sample, temperature, own, generators), given)
            if callback_on_step_end is not None:
                tensors = {"sample": sample, "model_output": logits, "given": given}
                returned = callback_on_step_end(self, i, t, {name: tensors[name] for name in inputs})
                sample = returned.pop("sample", sample)
        texts = self.tokenizer.batch_decode(sample, skip_special_tokens=True) if output_type == "text" else None
        self.maybe_free_model_hooks()  # type: ignore[no-untyped-call]
        return TextPipelineOutput(sequences=sample, texts=texts) if return_dict else (sample, texts)

    def get_label_ids(self, class_labels: int | str | list[int | str]) -> list[int]:
        """Numbers of classes, given by number or name."""
        labels = class_labels if isinstance(class_labels, list) else [class_labels]
        count, names = self.num_classes, self.model.config.id2label
        if count is None:
            raise ValueError(f"class_labels must be None, for the model has no classes, and is {class_labels!r}.")
        by_name = {name: int(k) for k, name in names.items()} if len(names) == count else {}
        found = [by_name.get(label) if isinstance(label, str) else label for label in labels]
        for label, number in zip(labels, found, strict=True):
            if isinstance(number, bool) or not isinstance(number, numbers.Integral) or not 0 <= number < count:
                known = f" or one of {', '.join(by_name)}" if by_name else ""
                raise ValueError(f"class_labels must be in 0..{count - 1}{known}, and has {label!r}.")
        return [int(number) for number in found if number is not None]

    def _class_ids(self, class_labels: Any, guidance_scale: float, batch: int) -> list[Tensor] | None:
        """Of each opinion of the network that is asked for, the classes (batch,)."""
        if not math.isfinite(guidance_scale):
            raise ValueError(f"guidance_scale must be finite, and is {guidance_scale}.")
        if class_labels is None:
            if guidance_scale != 1:
                raise ValueError(f"guidance_scale {guidance_scale} needs class_labels. Leave it out.")
            return None if self.num_classes is None else [torch.full((batch,), self.num_classes)]
        found = self.get_label_ids(class_labels)
        told = torch.tensor(found if isinstance(class_labels, list) else found * batch)
        null = torch.full((batch,), self.num_classes or 0)
        return {0.0: [null], 1.0: [told]}.get(float(guidance_scale), [null, told])

    def _set_timesteps(self, steps: int, length: int, temperature: float, own: dict[str, Any]) -> Tensor:
        """The timesteps. Refuses here, before the network is asked, what a step refuses."""
        scheduler: Any = self.scheduler
        if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
            raise ValueError(f"num_inference_steps must be an integer of 1 or more, and is {steps!r}.")
        if scheduler is self._own_scheduler:
            scheduler.set_timesteps(steps)
            start = torch.zeros((1, 1), dtype=torch.int64)
            trial = torch.Generator().manual_seed(0)
            flat = torch.zeros(1, 1, scheduler.num_states)
            # not by the instance's own name, where whoever watches the steps would see one more
            TransitionScheduler.step(
                scheduler, flat, scheduler.timesteps[0], start, temperature, **own, generator=trial
            )
            return torch.as_tensor(scheduler.timesteps)
        if wrong := [name for name, value in own.items() if value not in (0, "random")]:
            raise ValueError(
                f"{wrong[0]} is for TransitionScheduler, and the scheduler is {type(scheduler).__name__}. Leave it "
                "out, or swap_scheduler('Transition')."
            )
        if not 0 <= temperature < math.inf:
            raise ValueError(f"temperature must be 0 or more, and is {temperature}.")
        sized = {"block_length": length} if isinstance(scheduler, BlockRefinementScheduler) else {}
        scheduler.set_timesteps(steps, device=self._execution_device, **sized)
        return torch.as_tensor(scheduler.timesteps)

    def _log_snr(self, step: int, timestep: Tensor) -> Tensor | None:
        """What a network is told of the noise, (1,)."""
        if not self.tells_time:
            return None
        if self.scheduler is self._own_scheduler:
            return torch.as_tensor(self._own_scheduler.log_snr(timestep.reshape(1).cpu()))
        return torch.logit(torch.tensor([step / self._num_timesteps]))  # of stock's line, alpha_bar = 1 - t

    def _logits(self, sample: Tensor, log_snr: Tensor | None, classes: list[Tensor] | None) -> Tensor:
        """Of the states (batch, length, K), guided; what no text has is never drawn."""
        opinions: list[Any] = classes or [None]
        states, noise = self._own_scheduler.num_states, None if log_snr is None else log_snr.expand(len(sample))
        rows = [network_input(sample, states, noise, ids) for ids in opinions]
        output = self.model(input_ids=torch.cat(rows)).logits[:, -sample.shape[1] :, :states]
        every = output.float() if output.dtype != torch.float64 else output
        logits, *told = every.chunk(len(opinions))
        if told:
            logits = logits + self._guidance_scale * (told[0] - logits)
        logits = logits.clone()
        logits[..., self._never] = -math.inf
        return torch.as_tensor(logits)

    def _step(
        self,
        logits: Tensor,
        step: int,
        timestep: Tensor,
        sample: Tensor,
        temperature: float,
        own: dict[str, Any],
        generators: Any,
    ) -> Tensor:
        scheduler: Any = self.scheduler
        if scheduler is self._own_scheduler:
            made = scheduler.step(logits, timestep, sample, temperature, **own, generator=generators)
            return torch.as_tensor(made.prev_sample)
        options: dict[str, Any] = {"temperature": temperature}
        if isinstance(scheduler, BlockRefinementScheduler):
            options["mask_token_id"] = self._own_scheduler.mask_token_id
        if not isinstance(generators, list):
            return torch.as_tensor(scheduler.step(logits, step, sample, **options, generator=generators).prev_sample)
        # stock takes one generator alone
        rows = zip(logits.split(1), sample.split(1), generators, strict=True)
        return torch.cat([scheduler.step(a, step, x, **options, generator=g).prev_sample for a, x, g in rows])

    # -- Other schedulers ----------------------------------------------------------------------------------------

    def swap_scheduler(self, target: str | type[SchedulerMixin], **options: Any) -> Self:
        """Sample with another scheduler from now on; returns the pipeline itself.

        target: a class or its name, with or without the ending "Scheduler". `Transition` is the model's own.
            `DiscreteDDIM` takes away uniform noise by the same law, with alpha_bar on a line, whatever betas the model
            was trained with. `BlockRefinement` lifts masks, as many in each step, those first whose drawn state is
            likeliest: that isn't the model's distribution, but one of less entropy.
        options: of BlockRefinement, `threshold` and `editing_threshold`.

        Raises `ValueError` with the reason for a scheduler that means something else.
        """
        name = target if isinstance(target, str) else target.__name__
        name = name if name.endswith("Scheduler") else f"{name}Scheduler"
        kernel, known = _SWAPS.get(name, ("", set()))
        if name == "EntropyBoundScheduler":
            raise ValueError(
                "target EntropyBoundScheduler can't sample this model: it accepts states by their entropy and draws "
                "all others anew, and no timestep says how much noise there is then, which the network must know."
            )
        if name != "TransitionScheduler" and not kernel:
            listed = ", ".join(each.removesuffix("Scheduler") for each in _SWAPS)
            raise ValueError(f"target {target!r} is no scheduler of states. There are: Transition, {listed}.")
        if kernel and kernel != self._own_scheduler.kernel:
            raise ValueError(
                f"target {name} can't sample this model: it takes away {kernel} noise, and the model's is "
                f"{self._own_scheduler.kernel}."
            )
        if wrong := sorted(options.keys() - known):
            raise ValueError(f"{wrong[0]} says nothing to {name} here. Leave it out.")
        self.scheduler = getattr(diffusers, name)(**options) if kernel else self._own_scheduler
        return self

    # -- Folders that travel -------------------------------------------------------------------------------------

    def to_stock(self) -> LLaDA2Pipeline:
        """The same model as a plain `LLaDA2Pipeline`, without a tokenizer, which that can't save.

        Its logits of what is no token of a text have a bias of -1e4, in new weights. A class is the first token of
        `input_ids`. Raises `ValueError` for any kernel but `absorbing`.
        """
        own, model = self._own_scheduler, copy.deepcopy(self.model)
        if own.kernel != "absorbing":
            raise ValueError(f"the kernel {own.kernel} has no stock form; absorbing has.")
        bias = getattr(model.get_output_embeddings(), "bias", None)
        if bias is None:
            raise ValueError(
                f"model must have a bias of its logits to have a stock form, and {type(model).__name__} has none. "
                "Make it with one (ModernBert: decoder_bias=True)."
            )
        with torch.no_grad():
            bias[[*self._never, *range(own.num_states, len(bias))]] = _NEVER
        scheduler = BlockRefinementScheduler()
        scheduler.register_to_config(_transition=json.loads(own.to_json_string()))
        return LLaDA2Pipeline(model=model, scheduler=scheduler)

    def save_pretrained(self, save_directory: str | os.PathLike[Any], *args: Any, **kwargs: Any) -> None:
        """Write the model; of the kernel `absorbing` as a `LLaDA2Pipeline`, which stock loads without code.

        This file lies beside it, for `from_pretrained(folder, custom_pipeline="<its stem>", trust_remote_code=True)`.
        Any other kernel needs code, `from_pretrained(folder, trust_remote_code=True)`. The scheduler that is written
        is the model's own, whatever was swapped.
        """
        model = self.to_stock().model if self._own_scheduler.kernel == "absorbing" else self.model
        written = type(self)(model, self._own_scheduler, self.tokenizer)
        DiffusionPipeline.save_pretrained(written, save_directory, *args, **kwargs)

    def save_config(self, save_directory: str | os.PathLike[Any], push_to_hub: bool = False, **kwargs: Any) -> None:
        """Write model_index.json, the tokenizer and the source files; `save_pretrained` ends with this."""
        if push_to_hub:
            raise ValueError("save_config alone would push no weights. Use push_to_hub(repo_id) of the pipeline.")
        folder, files, own = Path(save_directory), sources(type(self)), self._own_scheduler
        of_scheduler = sources(type(own))
        if files is None or of_scheduler is None:
            raise ValueError(f"{type(self).__name__} can't be saved: its file doesn't stand alone (see {__name__}).")
        super().save_config(folder)
        self.tokenizer.save_pretrained(folder)
        index: dict[str, Any] = {"_diffusers_version": diffusers.__version__, "model": list(self.config["model"])}
        if own.kernel == "absorbing":
            stock: Any = self.to_stock().scheduler
            stock.save_pretrained(folder / "scheduler")
            index |= {"_class_name": "LLaDA2Pipeline", "scheduler": ["diffusers", "BlockRefinementScheduler"]}
        else:
            files |= {f"scheduler/{name}": content for name, content in of_scheduler.items()}
            index["_class_name"] = [Path(next(iter(files))).stem, type(self).__name__]
            index["scheduler"] = [Path(next(iter(of_scheduler))).stem, type(own).__name__]
        for name, content in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        rewrite_json(folder / "model_index.json", lambda _: index)
        for name in ("model/config.json", "tokenizer_config.json"):
            forget_machine(folder / name)

    def stock_call(self, repo_id: str) -> str:
        """Python that writes with stock's `LLaDA2Pipeline` of a repo, `pipe`, where the kernel is absorbing."""
        own, start = self._own_scheduler, "empty((4, 0), dtype=torch.long)"
        if self.num_classes is not None:
            start = f"full((4, 1), {own.num_states + self.num_classes})"
        length = min(64, self.max_length)
        return _STOCK_CALL.format(repo_id=repo_id, length=length, mask=own.mask_token_id, start=start)

    def _card(self, repo_id: str) -> str:
        own, files = self._own_scheduler, sources(type(self)) or {}
        program = (_STOCK_PROGRAM if own.kernel == "absorbing" else _OWN_PROGRAM).format(
            repo_id=repo_id,
            length=min(64, self.max_length),
            own=Path(next(iter(files))).stem,
            call=self.stock_call(repo_id),
        )
        name, model = repo_id.split("/")[-1], type(self.model).__name__
        return _CARD.format(name=name, model=model, states=own.num_states, kernel=own.kernel, program=program)


def _batch(batch_size: int | None, **given: Any) -> int:
    """The number of texts, of what is given for each of them, else `batch_size` or 1."""
    if batch_size is not None and (isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1):
        raise ValueError(f"batch_size must be an integer of 1 or more, and is {batch_size!r}.")
    found: dict[str, int] = {} if batch_size is None else {"batch_size": batch_size}
    for name, value in given.items():
        if isinstance(value, list):
            if not value:
                raise ValueError(f"{name} must have an entry for each text, and is empty. Leave it out.")
            found[name] = len(value)
        if name == "class_labels" or value is None:
            continue
        if wrong := [each for each in (value if isinstance(value, list) else [value]) if not isinstance(each, str)]:
            raise ValueError(f"{name} must be a string or a list of strings, and has {wrong[0]!r}.")
    if len(set(found.values())) > 1:
        said = ", ".join(f"{name} {count}" for name, count in found.items())
        raise ValueError(f"batch_size, and lists of one entry for each text, must agree, and say: {said}.")
    return next(iter(found.values()), 1)
