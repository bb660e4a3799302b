"""Attention kernels on the CPU: one forward and backward pass of a U-Net's self-attention, plain against flash.

    python benchmarks/attention.py

In one process, alternating. Prints the time of flash as a multiple of the plain kernel's; above 1 plain is faster.
"""

import time

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention


def seconds(backend: SDPBackend, batch: int, places: int, channels: int, head: int) -> float:
    shape = (batch, channels // head, places, head)
    q, k, v = (torch.randn(shape, dtype=torch.bfloat16, requires_grad=True) for _ in range(3))
    with sdpa_kernel(backend):
        start = time.perf_counter()
        scaled_dot_product_attention(q, k, v).sum().backward()
        return time.perf_counter() - start


def main() -> None:
    print("places  batch  channels  head   flash / plain")
    for side, batch, channels, head in [
        (7, 128, 64, 16),
        (7, 128, 64, 64),
        (8, 32, 192, 16),
        (16, 32, 192, 16),
        (16, 32, 192, 64),
        (32, 8, 128, 16),
        (32, 8, 128, 64),
    ]:
        ratios = []
        for trial in range(12):
            plain = seconds(SDPBackend.MATH, batch, side * side, channels, head)
            flash = seconds(SDPBackend.FLASH_ATTENTION, batch, side * side, channels, head)
            if trial >= 2:
                ratios.append(flash / plain)
        print(f"{side:>2}x{side:<4}{batch:>6}{channels:>10}{head:>6}   {sorted(ratios)[len(ratios) // 2]:>12.2f}")


if __name__ == "__main__":
    main()
