"""logsnr.models.states: what the network is told, and what is heard of it."""

from __future__ import annotations

import pytest
import torch
from tiny_text import tiny_modern_bert

from logsnr.base.errors import ModelError
from logsnr.conditions.class_label import ClassLabel
from logsnr.models.denoiser import Guided
from logsnr.models.states import StateDenoiser
from logsnr.pipelines.prefix_tokens import TIME_BUCKETS, network_input
from logsnr.schedulers.scheduling_beta import CosineBetaScheduler
from logsnr.schedulers.scheduling_transition import TransitionScheduler

K, LENGTH = 5, 6
STATES = torch.randint(0, K, (3, LENGTH), generator=torch.Generator().manual_seed(0))
T = torch.tensor([0, 3, 9])


def test_of_the_absorbing_kernel_it_sees_the_states_alone() -> None:
    scheduler, network = TransitionScheduler("absorbing", K, 10, mask_token_id=1), tiny_modern_bert(K)
    with torch.no_grad():
        logits, variance = StateDenoiser(network, scheduler)(STATES, T, {})
        plain = network(input_ids=STATES).logits
    assert variance is None
    assert logits.shape == (3, LENGTH, K)
    assert bool((logits[..., 1] == -torch.inf).all())  # no clean sequence has the mask
    others = [0, 2, 3, 4]
    torch.testing.assert_close(logits[..., others], plain[..., others])


def test_noise_and_class_stand_before_the_states() -> None:
    scheduler, network = TransitionScheduler("uniform", K, 10), tiny_modern_bert(K + TIME_BUCKETS + 3)
    denoiser = StateDenoiser(network, scheduler, ClassLabel(2))
    with torch.no_grad():
        logits, _ = denoiser(STATES, T, {"class_labels": torch.tensor([0, 1, 2])})
        tokens = network_input(STATES, K, scheduler.log_snr(T), torch.tensor([0, 1, 2]))
        torch.testing.assert_close(logits, network(input_ids=tokens).logits[:, 2:, :K])
        nothing = denoiser(STATES, T, {}).output  # of no class in particular
    torch.testing.assert_close(nothing[2], logits[2])
    assert not torch.allclose(nothing[:2], logits[:2])


@pytest.mark.parametrize("w", [0.0, 0.5, 3.0])
def test_guided_laws_are_multiplied_and_no_state_is_the_mask(w: float) -> None:
    """p(x_0 | x_t, c)^w p(x_0 | x_t)^(1 - w), normalised."""
    scheduler, network = TransitionScheduler("absorbing", K, 10), tiny_modern_bert(K + 3)
    denoiser, condition = StateDenoiser(network, scheduler, ClassLabel(2)), {"class_labels": torch.tensor([0, 1, 1])}
    with torch.no_grad():
        guided = Guided(denoiser, w)(STATES, T, condition).output.softmax(-1)
        told, untold = (denoiser(STATES, T, each).output.softmax(-1) for each in (condition, {}))
    product = told**w * untold ** (1 - w)
    product[..., K - 1] = 0
    torch.testing.assert_close(guided, product / product.sum(-1, keepdim=True))
    assert not torch.allclose(told, untold)


def test_half_precision_is_heard_in_float32() -> None:
    network = tiny_modern_bert(K).bfloat16()
    denoiser = StateDenoiser(network, TransitionScheduler("absorbing", K, 10))
    with torch.no_grad():
        logits = denoiser(STATES, T, {}).output
    assert logits.dtype == torch.float32


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(TypeError, match=r"schedule must be a TransitionScheduler, and is .*Numbers have a Denoiser"):
        StateDenoiser(tiny_modern_bert(K), CosineBetaScheduler())  # type: ignore[arg-type]
    with pytest.raises(ModelError, match=r"logits for the 6 tokens that it is given, at least 7 each, .*\(6, 5\)"):
        StateDenoiser(tiny_modern_bert(K), TransitionScheduler("absorbing", 7, 10))(STATES % 4, T, {})
