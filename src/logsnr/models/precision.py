"""Which arithmetic and which kernels this machine does fast."""

from __future__ import annotations

import contextlib

import torch
from diffusers.models.unets.unet_2d import UNet2DModel
from torch.nn.attention import SDPBackend, sdpa_kernel


def resolve_precision(wanted: str) -> str:
    """`auto` as what this machine computes fast: bf16 where it has the instructions, else float32 ("no")."""
    if wanted != "auto":
        return wanted
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "no"
    capabilities = torch.cpu.get_capabilities()
    return "bf16" if capabilities.get("amx_bf16") or capabilities.get("avx512_bf16") else "no"


def precision_in_words(resolved: str) -> str:
    """What `no` and `bf16` are called where people read it."""
    return "float32" if resolved == "no" else resolved


def fast_attention(unet: UNet2DModel) -> contextlib.AbstractContextManager[None]:
    """The attention kernel to train with: torch's own choice, but on the CPU the plain one for up to 8x8 places.

    There the CPU's flash kernel is slower, nearly all of it in the backward pass (a fifth of a training step at 7x7);
    from 16x16 on it is faster: benchmarks/attention.py.
    """
    has_attention = ["Attn" in block for block in unet.config["down_block_types"]]
    finest = has_attention.index(True) if any(has_attention) else len(has_attention) - 1
    small = unet.config["sample_size"] >> finest <= 8
    return sdpa_kernel(SDPBackend.MATH) if small and unet.device.type == "cpu" else contextlib.nullcontext()
