"""Muon: of each matrix's momentum the orthogonal factor, whatever the shape it comes in."""

from __future__ import annotations

import copy

import pytest
import torch
from tiny_unet import tiny_unet
from torch import Tensor, nn

from logsnr.models.masked_lm import make_masked_language_model
from logsnr.settings.run import TrainConfig
from logsnr.settings.text import TextModelConfig
from logsnr.training.optimizers import Muon, hidden_matrices, make_optimizers, polar


def matrix(rows: int, columns: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def stepped(weight: Tensor, gradient: Tensor, steps: int = 1, **options: float) -> Tensor:
    """What Muon makes of a weight by the same gradient again and again."""
    parameter = nn.Parameter(weight.clone())
    parameter.grad = gradient
    optimizer = Muon([parameter], **options)
    for _ in range(steps):
        optimizer.step()
    return parameter.detach()


def test_polar_keeps_directions_and_evens_out_their_sizes() -> None:
    for rows, columns in [(1, 5), (7, 7), (6, 30)]:
        m = matrix(rows, columns)
        u, _, v = torch.linalg.svd(m, full_matrices=False)
        sizes = u.T @ polar(m[None])[0] @ v.T
        diagonal = sizes.diagonal()
        torch.testing.assert_close(sizes, torch.diag(diagonal), rtol=0, atol=1e-5)
        assert 0.65 < diagonal.min() <= diagonal.max() < 1.25


def test_directions_a_thousand_times_rarer_than_others_count_too() -> None:
    u, _, v = torch.linalg.svd(matrix(16, 16))
    found = torch.linalg.svdvals(polar(((u * torch.logspace(0, -3, 16)) @ v)[None]))
    assert found.min() > 0.1
    assert torch.equal(polar(torch.zeros(1, 2, 3)), torch.zeros(1, 2, 3))


def test_an_update_has_the_size_of_adamw_s_and_no_memory_of_the_gradient_s() -> None:
    """0.2 root mean square times the learning rate, for wide, high and convolution weights alike."""
    for shape in [(8, 64), (64, 8), (16, 4, 3, 3), (16, 8, 5)]:
        gradient = torch.randn(shape, generator=torch.Generator().manual_seed(1))
        update = stepped(torch.zeros(shape), gradient, lr=0.5)
        assert float(update.square().mean().sqrt()) == pytest.approx(0.1, rel=0.25)
        assert float((update * gradient).sum()) < 0
        torch.testing.assert_close(stepped(torch.zeros(shape), 1e-4 * gradient, lr=0.5), update, rtol=1e-3, atol=1e-5)


def test_a_convolution_is_the_matrix_of_its_outputs_and_a_high_matrix_a_wide_one_turned() -> None:
    weight, gradient = matrix(6, 36, 1), matrix(6, 36, 2)
    plain = stepped(weight, gradient, 3, lr=0.1, weight_decay=0.5)
    as_convolution = stepped(weight.view(6, 4, 3, 3), gradient.view(6, 4, 3, 3), 3, lr=0.1, weight_decay=0.5)
    turned = stepped(weight.T.contiguous(), gradient.T.contiguous(), 3, lr=0.1, weight_decay=0.5)
    torch.testing.assert_close(as_convolution.view(6, 36), plain, rtol=0, atol=1e-6)
    torch.testing.assert_close(turned.T, plain, rtol=0, atol=1e-6)


def test_it_is_torch_s_own_but_for_the_precision() -> None:
    """torch.optim.Muon computes in bfloat16, 8 bits."""
    theirs, ours = (nn.Parameter(matrix(12, 40, 3)) for _ in range(2))
    optimizers = (
        torch.optim.Muon([theirs], lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
        Muon([ours], lr=0.02, weight_decay=0.1),
    )
    for seed in range(5):
        theirs.grad = ours.grad = matrix(12, 40, 10 + seed)
        for optimizer in optimizers:
            optimizer.step()
    moved = ours.detach() - matrix(12, 40, 3)
    assert float((theirs - ours).detach().norm()) < 0.03 * float(moved.norm())


def test_a_network_s_first_and_last_weights_its_biases_and_its_classes_are_adamw_s() -> None:
    network = tiny_unet(classes=2)
    matrices = {id(weight) for weight in hidden_matrices(network)}
    names = [name for name, parameter in network.named_parameters() if id(parameter) not in matrices]
    assert {name for name in names if dict(network.named_parameters())[name].ndim > 1} == {
        *("conv_in.weight", "conv_out.weight", "class_embedding.weight")
    }
    adamw, muon = make_optimizers(network, TrainConfig(optimizer="muon"))
    assert isinstance(adamw, torch.optim.AdamW)
    count = sum(len(group["params"]) for optimizer in (adamw, muon) for group in optimizer.param_groups)
    assert count == len(list(network.parameters()))
    assert len(make_optimizers(network, TrainConfig(optimizer="adamw"))) == 1


def test_weights_without_a_gradient_stay() -> None:
    still, moving = nn.Parameter(matrix(3, 4)), nn.Parameter(matrix(3, 4))
    before = copy.deepcopy(still)
    moving.grad = matrix(3, 4, 5)
    Muon([still, moving], weight_decay=0.1).step()
    assert torch.equal(still, before)
    assert not torch.equal(moving, before)


def test_of_a_network_with_a_trunk_the_trunk_s_first_and_last_weights_are_adamw_s() -> None:
    network = torch.nn.ModuleDict({"trunk": tiny_unet(), "beside": torch.nn.Linear(4, 4)})
    trunk = network["trunk"]
    matrices = {id(weight) for weight in hidden_matrices(network, trunk)}
    assert id(network["beside"].weight) in matrices
    assert not {id(trunk.conv_in.weight), id(trunk.conv_out.weight)} & matrices


def test_a_network_that_begins_with_embeddings_has_all_layers_but_the_last_for_muon() -> None:
    network = make_masked_language_model(TextModelConfig(48, 2, 2, 48), 9, 8, None, 0)
    matrices = {id(weight) for weight in hidden_matrices(network)}
    rest = {name for name, parameter in network.named_parameters() if id(parameter) not in matrices}
    assert {name for name in rest if dict(network.named_parameters())[name].ndim > 1} == {
        *("model.embeddings.tok_embeddings.weight", "decoder.weight")
    }
