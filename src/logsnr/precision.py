"""Which arithmetic this machine does fast."""

from __future__ import annotations

import torch


def resolve_precision(wanted: str) -> str:
    """`auto` as what this machine computes fast: bf16 where it has the instructions, else float32 ("no")."""
    if wanted != "auto":
        return wanted
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "no"
    capabilities = torch.cpu.get_capabilities()
    return "bf16" if capabilities.get("amx_bf16") or capabilities.get("avx512_bf16") else "no"
