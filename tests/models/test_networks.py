"""Networks before they have learned anything."""

from __future__ import annotations

import torch

from logsnr.models.networks import make_unet
from logsnr.settings.image import DataConfig, ModelConfig


def test_a_new_network_predicts_zero_and_passes_on_what_it_gets() -> None:
    model = ModelConfig(block_out_channels=(8,), attention_levels=(), norm_num_groups=4)
    unet = make_unet(DataConfig(resolution=8, channels=1), model, ["a", "b"], seed=3)
    x = torch.randn(2, 1, 8, 8)
    assert torch.equal(unet(x, torch.tensor([0, 9]), torch.tensor([0, 2])).sample, torch.zeros_like(x))
    hidden = torch.randn(2, 8, 8, 8)
    block = unet.down_blocks[0].resnets[0]
    assert torch.equal(block(hidden, torch.randn(2, 32)), hidden)
    assert any(bool(parameter.any()) for parameter in unet.parameters())
