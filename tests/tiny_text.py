"""What writes text, of a few letters and numbers: a tokenizer, a masked language model and a pipeline's parts.

It imports torch and transformers alone, so it can be made where there is nothing of ours.
"""

from __future__ import annotations

from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import ModernBertConfig, ModernBertForMaskedLM, PreTrainedTokenizerFast

LETTERS = "abcdefghijklmnopqrstuvwxyz "


def letters(alphabet: str = LETTERS, marks: tuple[str, ...] = ("unk", "pad", "mask")) -> Any:
    """One token a letter, and then the marks, [UNK] and so on."""
    states = [*alphabet, *(f"[{mark.upper()}]" for mark in marks)]
    vocabulary = {state: index for index, state in enumerate(states)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, **{f"{mark}_token": f"[{mark.upper()}]" for mark in marks}
    )


def tiny_modern_bert(vocabulary: int, longest: int = 34, **config: Any) -> Any:
    """A `ModernBertForMaskedLM` of two layers, the same each time, whose words make a difference."""
    torch.manual_seed(1)
    made: dict[str, Any] = {
        "vocab_size": vocabulary,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": longest,
        "initializer_range": 0.5,
    }
    none = dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"))
    return ModernBertForMaskedLM(ModernBertConfig(**made | none | config)).eval()
