"""Masked language models of transformers: made by configuration, and read from a folder of whomever."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import ModernBertConfig, ModernBertForMaskedLM, PreTrainedTokenizerFast

from logsnr.base.errors import ModelError
from logsnr.base.quiet import without_bars
from logsnr.base.words import one_line
from logsnr.folders.model_folder import INDEX, TOKENIZER, read_json_object
from logsnr.settings.text import TextModelConfig

MODEL = "model"
"""What pipelines of texts call their network."""
_MARKS = ("pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id")


def make_masked_language_model(
    config: TextModelConfig, vocab_size: int, longest: int, class_names: list[str] | None, seed: int
) -> Any:
    """A ModernBERT (2412.13663) with weights drawn from `seed`, of all whose layers each place sees every other.

    vocab_size: of its embeddings and logits, all that it is told included. longest: tokens that it reads.

    The logits' weights are their own, not those of the embeddings: of letters there are few, and a checkpoint then has
    every tensor once.
    """
    more: dict[str, Any] = dict.fromkeys(_MARKS)
    if class_names is not None:
        more["id2label"] = dict(enumerate(class_names))
    made = ModernBertConfig(
        vocab_size=vocab_size,
        hidden_size=config.hidden_size,
        num_hidden_layers=config.num_hidden_layers,
        num_attention_heads=config.num_attention_heads,
        intermediate_size=config.intermediate_size,
        max_position_embeddings=longest,
        layer_types=["full_attention"] * config.num_hidden_layers,
        embedding_dropout=config.dropout,
        attention_dropout=config.dropout,
        mlp_dropout=config.dropout,
        tie_word_embeddings=False,
        **more,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return ModernBertForMaskedLM(made)


def of_config(config: Mapping[str, Any]) -> Any:
    """A network of that configuration, as `network.config.to_dict()` has it, whose weights are yet to be filled in."""
    return ModernBertForMaskedLM(ModernBertConfig.from_dict(dict(config)))


def load_masked_language_model(folder: Path, source: str) -> Any:
    """The network of a model folder, of the class of transformers that its index names, from one safetensors file.

    Raises ModelError, naming the folder `source`. No code of the folder runs: an index of several files, and a
    quantization_config, which lead to other files and libraries, are refused.
    """
    place = folder / MODEL
    try:
        library, name = read_json_object(folder / INDEX)[MODEL]
        cls = getattr(transformers, str(name), None)
        fits = isinstance(cls, type) and issubclass(cls, transformers.PreTrainedModel) and name.endswith("ForMaskedLM")
        if library != "transformers" or not fits:
            raise ValueError(f"{library}.{name} is no masked language model of transformers.")
        if any(place.glob("*.index.json")):
            raise ValueError("its weights are in several files.")
        if "quantization_config" in read_json_object(place / "config.json"):
            raise ValueError("its weights are quantized.")
        assert cls is not None
        with without_bars():
            return cls.from_pretrained(place, use_safetensors=True, local_files_only=True)
    except Exception as error:  # what others wrote may be wrong in any way
        raise ModelError(f"{source}: its network can't be loaded: {one_line(error)}") from error


def load_tokenizer(folder: Path, source: str) -> Any:
    """The tokenizer that lies beside a model's index. Raises ModelError, naming the folder `source`."""
    try:
        if not (folder / TOKENIZER).is_file():
            raise ValueError(f"there is no {TOKENIZER}.")
        return PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # what others wrote may be wrong in any way
        raise ModelError(f"{source}: its tokenizer can't be loaded: {one_line(error)}") from error
