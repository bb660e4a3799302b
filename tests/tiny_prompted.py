"""What draws by prompt, of a few channels and words: a tokenizer, a text encoder and a U-Net that attends to its words.

It imports torch, diffusers and transformers alone, so it can be made where there is nothing of ours.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "red", "green", "fox", "cat", "on", "grass")
WIDTH = 16


def tiny_tokenizer() -> Any:
    """One token a word of `WORDS`, between [CLS] and [SEP]."""
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", WORDS.index("[CLS]")), ("[SEP]", WORDS.index("[SEP]"))]
    )
    special = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep")}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=77, **special)


def tiny_text_encoder(width: int = WIDTH, layers: int = 1) -> Any:
    """A `BertModel`. Its weights are large enough for words to make a difference."""
    torch.manual_seed(1)
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=2 * width,
        max_position_embeddings=77,
        initializer_range=0.5,
    )
    return BertModel(config).eval()


def tiny_prompted_unet(channels: int = 1, **config: Any) -> Any:
    """A `UNet2DConditionModel` of two levels, the lower of which attends to the words; weights the same each time."""
    made = {
        "sample_size": 8,
        "in_channels": channels,
        "out_channels": channels,
        "block_out_channels": (8, 16),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "cross_attention_dim": WIDTH,
        "attention_head_dim": 2,
    }
    torch.manual_seed(0)
    return UNet2DConditionModel(**(made | config)).eval()
