"""Diffusion over states: matrices, posteriors and the bound, against brute force and a chain whose entropy is known."""

import itertools
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from markov_chain import MarkovChain
from scipy.stats import chi2
from torch import Tensor

from logsnr.schedulers.scheduling_beta import CosineBetaScheduler
from logsnr.schedulers.scheduling_transition import TransitionScheduler

OWN = torch.distributions.Dirichlet(torch.full((5,), 0.7, dtype=torch.float64))
torch.manual_seed(0)
KERNELS: dict[str, dict[str, Any]] = {
    "absorbing": {"kernel": "absorbing"},
    "uniform": {"kernel": "uniform"},
    "mask_and_replace": {"kernel": "mask_and_replace", "replace_share": 0.3, "mask_token_id": 1},
    "gaussian": {"kernel": "gaussian"},
    "matrix": {"kernel": OWN.sample((5,))},
}
kernels = pytest.mark.parametrize("kernel", KERNELS)
T, K = 6, 5


def made(kernel: str, num_states: int = K, steps: int = T, **options: Any) -> TransitionScheduler:
    return TransitionScheduler(**KERNELS[kernel], num_states=num_states, num_train_timesteps=steps, **options)


def assert_near(actual: Tensor, expected: Tensor, tolerance: float = 1e-10) -> None:
    assert actual.shape == expected.shape
    assert float((actual - expected).abs().max()) <= tolerance


# -- matrices ---------------------------------------------------------------------------------------------------------


@kernels
def test_the_cumulative_matrix_is_the_product_of_the_transition_matrices(kernel: str) -> None:
    scheduler = made(kernel, trained_betas=[0.1, 0.05, 0.3, 0.2, 0.5, 1])
    product = torch.eye(K, dtype=torch.float64)
    for t in range(T):
        step = scheduler.transition_matrix(t)
        assert bool((step >= 0).all())
        assert_near(step.sum(1), torch.ones(K, dtype=torch.float64))
        product = product @ step
        assert_near(scheduler.cumulative_matrix(t), product)
    assert_near(product, scheduler.stationary.expand(K, K))
    assert_near(scheduler.stationary @ scheduler.transition_matrix(2), scheduler.stationary)
    assert_near(scheduler.cumulative_matrix(torch.tensor([1, 3]))[1], scheduler.cumulative_matrix(3))


def test_alpha_bar_is_the_chance_of_survival() -> None:
    for kernel, away in [("absorbing", 0.0), ("uniform", 1 / K), ("mask_and_replace", 0.3 / (K - 1))]:
        scheduler = made(kernel)
        alpha_bar = scheduler.alphas_cumprod
        assert_near(alpha_bar, 1 - torch.arange(1, T + 1, dtype=torch.float64) / T, 1e-12)  # a line
        stays = scheduler.cumulative_matrix(torch.arange(T))[:, 2, 2]
        assert_near(stays, alpha_bar + (1 - alpha_bar) * away)


@pytest.mark.parametrize("kernel", ["gaussian", "matrix"])
def test_alpha_bar_is_what_survives_longest(kernel: str) -> None:
    """The second largest eigenvalue of the cumulative matrix, which for the other kernels is the only one below 1."""
    scheduler = made(kernel)
    for t in range(T - 1):
        real = torch.linalg.eigvals(scheduler.cumulative_matrix(t)).abs().sort().values
        assert float(real[-2]) == pytest.approx(float(scheduler.alphas_cumprod[t]), abs=1e-9)


def test_an_interpolating_matrix_of_ones_own_is_the_closed_form() -> None:
    for kernel in ("absorbing", "uniform", "mask_and_replace"):
        closed = made(kernel)
        own = TransitionScheduler(closed.stationary.expand(K, K), K, T)
        assert_near(own.cumulative_matrix(torch.arange(T)), closed.cumulative_matrix(torch.arange(T)))


@pytest.mark.parametrize("count", [32, 200])
def test_the_gaussian_is_one_for_any_number_of_states(count: int) -> None:
    """From the middle it is a normal density of variance -log(alpha_bar) / (1 - cos(pi / K))."""
    scheduler = TransitionScheduler("gaussian", count, 100)
    t = 5
    variance = -math.log(scheduler.alphas_cumprod[t]) / (1 - math.cos(math.pi / count))
    assert math.sqrt(variance) / count == pytest.approx(math.sqrt(-2 * math.log(0.94)) / math.pi, rel=0.01)
    away = torch.arange(count, dtype=torch.float64) - count // 2
    density = torch.exp(-away.square() / (2 * variance)) / math.sqrt(2 * math.pi * variance)
    row = scheduler.cumulative_matrix(t)[count // 2]
    assert_near(row, density, 0.02 * float(density.max()))
    assert_near(scheduler.stationary, torch.full((count,), 1 / count, dtype=torch.float64), 1e-9)


# -- noise ------------------------------------------------------------------------------------------------------------


@kernels
def test_noise_follows_the_cumulative_matrix(kernel: str) -> None:
    scheduler, count, x_0 = made(kernel), 4000, 2
    noise = torch.rand(2, count, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    x_t = scheduler.add_noise(torch.full((2, count), x_0), noise, torch.tensor([1, T - 1]))
    for row, t in enumerate((1, T - 1)):
        law = scheduler.cumulative_matrix(t)[x_0] * count
        counts = torch.bincount(x_t[row], minlength=K)
        assert not counts[law < 1e-9].any()
        deviation = float(((counts - law).square() / law)[law > 1e-9].sum())
        assert deviation < chi2.isf(1e-3, max(int((law > 1e-9).sum()) - 1, 1))


def test_more_noise_changes_more_places_and_never_fewer() -> None:
    scheduler = made("absorbing", 27, 50)
    x_0, noise = torch.randint(26, (1, 300)), torch.rand(1, 300, dtype=torch.float64)
    masked = [scheduler.add_noise(x_0, noise, torch.tensor([t])) == 26 for t in range(50)]
    assert all(bool((later | ~earlier).all()) for earlier, later in itertools.pairwise(masked))
    assert bool(masked[-1].all())


# -- the posterior ----------------------------------------------------------------------------------------------------


def brute_force(scheduler: TransitionScheduler, s: int, t: int) -> Tensor:
    """q(x_s | x_t, x_0) by Bayes' rule from products of transition matrices, [x_0, x_t, x_s]; NaN where it can't be."""
    up_to_s = between = torch.eye(scheduler.num_states, dtype=torch.float64)
    for r in range(t + 1):
        if r <= s:
            up_to_s = up_to_s @ scheduler.transition_matrix(r)
        else:
            between = between @ scheduler.transition_matrix(r)
    joint = up_to_s[:, None, :] * between.T[None]
    return joint / joint.sum(-1, keepdim=True)


@kernels
@pytest.mark.parametrize(("s", "t"), [(-1, 0), (2, 3), (0, 4), (4, 5), (-1, 5)])
def test_the_posterior_is_bayes_rule(kernel: str, s: int, t: int) -> None:
    scheduler = made(kernel)
    x_0, x_t = torch.arange(K)[:, None].expand(K, K), torch.arange(K)[None].expand(K, K)
    true = brute_force(scheduler, s, t)
    can_be = ~true.isnan().any(-1)
    ours = scheduler.posterior(x_0, x_t, torch.tensor([t]), torch.tensor([s]))
    assert_near(ours[can_be], true[can_be])
    if s == t - 1:
        assert torch.equal(scheduler.posterior(x_0, x_t, torch.tensor([t]))[can_be], ours[can_be])


@kernels
def test_of_probabilities_it_is_the_mean_over_x_0(kernel: str) -> None:
    scheduler, t = made(kernel), torch.tensor([3])
    x_t = torch.arange(K)[None]
    p = scheduler.denoise(torch.randn(1, K, K), x_t, t)
    mean = torch.einsum("to,ots->ts", p[0], brute_force(scheduler, 2, 3).nan_to_num())
    assert_near(scheduler.posterior(p, x_t, t)[0], mean)


def test_a_perfect_network_can_t_name_the_mask_nor_change_what_is_seen() -> None:
    scheduler = TransitionScheduler("absorbing", 4, T, mask_token_id=0)
    for t in (2, T - 1):  # where nothing survives too: a state that was given
        p = scheduler.denoise(torch.zeros(1, 2, 4), torch.tensor([[0, 3]]), torch.tensor([t]))
        assert p.tolist() == [[[0, 1 / 3, 1 / 3, 1 / 3], [0, 0, 0, 1]]]


# -- the bound --------------------------------------------------------------------------------------------------------

CHAIN = MarkovChain.of_the_facts()


def excess(scheduler: TransitionScheduler, d3pm: bool = False) -> float:
    """The bound minus the entropy, bits, with the perfect denoiser: every x_0, x_t and t by its probability."""
    total = 0.0
    for t in range(len(scheduler)):
        cumulative, at = scheduler.cumulative_matrix(t), torch.tensor([t])
        clean, noisy, joint = CHAIN.noised(cumulative)
        logits = CHAIN.denoise(noisy, cumulative)
        terms = scheduler.bound(logits, clean, noisy, at)
        if d3pm:
            before = scheduler.cumulative_matrix(t - 1) if t > 0 else torch.eye(len(cumulative), dtype=torch.float64)
            predicted = scheduler.transition_matrix(t).T[noisy] * (logits.exp() @ before)
            predicted = predicted / predicted.sum(-1, keepdim=True)
            true = scheduler.posterior(clean, noisy, at)
            terms = (torch.xlogy(true, true) - torch.xlogy(true, predicted)).sum(-1)
        total += float(joint @ terms.sum(1))
    return total / math.log(2) - CHAIN.entropy()


@pytest.mark.parametrize(
    ("kernel", "states", "expected"),
    [
        ("absorbing", 4, {2: 0.244, 8: 0.059, 32: 0.0147, 128: 0.0037, 512: 0.0009}),
        ("uniform", 3, {2: 0.336, 8: 0.097, 32: 0.026, 128: 0.0070, 512: 0.0018}),
    ],
)
def test_the_bound_reaches_the_entropy_as_one_over_t(kernel: str, states: int, expected: dict[int, float]) -> None:
    assert CHAIN.entropy() == pytest.approx(2.8946, abs=5e-5)
    found = {steps: excess(made(kernel, states, steps)) for steps in expected}
    for steps, figure in expected.items():
        assert abs(found[steps] - figure) <= (5e-4 if steps < 32 or figure == 0.026 else 5e-5), (steps, found)
    assert found[128] / found[512] == pytest.approx(4, rel=0.05)


def test_d3pm_s_formula_is_wrong_but_for_absorbing() -> None:
    """q(x_t | x_{t-1}) sum q(x_{t-1} | x_0) p(x_0 | x_t), with the true p(x_0 | x_t), moves away from the entropy."""
    found = [excess(made("uniform", 3, steps), d3pm=True) for steps in (2, 32, 128)]
    assert found == pytest.approx([0.873, 1.553, 1.621], abs=5e-4)
    assert excess(made("absorbing", 4, 8), d3pm=True) == pytest.approx(excess(made("absorbing", 4, 8)), abs=1e-10)


def test_the_absorbing_bound_is_weighted_cross_entropy_whatever_the_schedule() -> None:
    cosine = TransitionScheduler("absorbing", 4, 64, CosineBetaScheduler(64).betas)
    logits, x_0, t = torch.randn(8, 9, 4), torch.randint(3, (8, 9)), torch.arange(0, 64, 8)
    x_t = cosine.add_noise(x_0, torch.rand(8, 9, dtype=torch.float64), t)
    nats = -logits[..., :3].double().log_softmax(-1).gather(-1, x_0[..., None])[..., 0] * (x_t == 3)
    assert_near(cosine.bound(logits, x_0, x_t, t), cosine.elbo_weights(t)[:, None] * nats)
    assert excess(cosine) == pytest.approx(excess(made("absorbing", 4, 64)), abs=0.01)  # .0073 on a line


@pytest.mark.parametrize(("kernel", "states"), [("absorbing", 5), ("uniform", 4)])
def test_a_longer_chain_by_its_entropy_rate(kernel: str, states: int) -> None:
    """32 places: the bound is the entropy within three standard errors, x_t by chance and x_0 by p(x_0 | x_t)."""
    generator = torch.Generator().manual_seed(1)
    torch.manual_seed(1)
    rows = torch.distributions.Dirichlet(torch.full((4,), 0.5, dtype=torch.float64)).sample((4,))
    chain, scheduler, count = MarkovChain(rows, torch.full_like(rows[0], 0.25), 32), made(kernel, states, 512), 2048
    x_0 = chain.sample(count, generator)
    t = torch.arange(count) * len(scheduler) // count  # every timestep as often
    x_t = scheduler.add_noise(x_0, torch.rand(x_0.shape, generator=generator, dtype=torch.float64), t)
    logits = chain.denoise(x_t, scheduler.cumulative_matrix(t))
    # of the states that can't have become x_t, p is 0 and the bound NaN
    each = [scheduler.bound(logits, torch.full_like(x_0, state), x_t, t).nan_to_num() for state in range(4)]
    terms = (torch.stack(each, -1) * logits.exp()[..., :4]).sum((1, 2))
    bits = terms * len(scheduler) / math.log(2)
    error = float(bits.std()) / math.sqrt(count)
    assert error < 0.02 * chain.entropy()
    assert float(bits.mean()) == pytest.approx(chain.entropy(), abs=3 * error)


@kernels
def test_the_bound_trains(kernel: str) -> None:
    scheduler, t = made(kernel), torch.arange(T)
    x_0 = torch.randint(2, 5, (T, 7)) if kernel != "absorbing" else torch.randint(4, (T, 7))
    logits = torch.zeros(T, 7, K, requires_grad=True)
    x_t = scheduler.add_noise(x_0, torch.rand(T, 7, dtype=torch.float64), t)
    scheduler.bound(logits, x_0, x_t, t).sum().backward()
    assert logits.grad is not None
    assert bool(logits.grad.isfinite().all())
    assert bool((logits.grad != 0).any())


# -- options ----------------------------------------------------------------------------------------------------------


def test_betas_of_pictures_serve() -> None:
    cosine = CosineBetaScheduler(500)
    scheduler = TransitionScheduler(num_train_timesteps=500, trained_betas=cosine.betas.tolist())
    t = torch.arange(499)
    torch.testing.assert_close(scheduler.log_snr(t), cosine.log_snr(t), rtol=1e-4, atol=1e-4)
    assert scheduler.log_snr(torch.tensor([499])).tolist() == [-math.inf]
    assert scheduler.betas[-1] == 1  # .999 for pictures
    with pytest.raises(ValueError, match=r"`trained_betas` must let at most 0\.002 of the states survive.* let 0\.49"):
        TransitionScheduler(num_train_timesteps=250, trained_betas=cosine.betas[:250])


@pytest.mark.parametrize("kernel", ["absorbing", "uniform", "mask_and_replace"])
def test_many_states_need_no_matrix(kernel: str) -> None:
    count = 100_000  # a matrix of theirs has 80 GB
    scheduler = made(kernel, count)
    x_0, t = torch.randint(2, count - 1, (1, 3)), torch.tensor([2])
    x_t = scheduler.add_noise(x_0, torch.tensor([[0.1, 0.7, 0.9]], dtype=torch.float64), t)
    assert (x_t == x_0).tolist() == [[True, False, False]]
    logits = torch.zeros(1, 3, count)
    assert scheduler.step(logits, 2, x_t).prev_sample.shape == (1, 3)
    assert bool(scheduler.bound(logits, x_0, x_t, t).isfinite().all())


@kernels
def test_saves_and_loads_what_it_is(kernel: str, tmp_path: Path) -> None:
    scheduler = made(kernel, trained_betas=[0.1, 0.05, 0.3, 0.2, 0.5, 1])
    scheduler.save_pretrained(tmp_path)
    loaded = TransitionScheduler.from_pretrained(tmp_path)
    assert_near(loaded.cumulative_matrix(torch.arange(T)), scheduler.cumulative_matrix(torch.arange(T)), 1e-14)
    assert loaded.mask_token_id == scheduler.mask_token_id
    config = json.loads((tmp_path / "scheduler_config.json").read_text())
    assert config["trained_betas"] == [0.1, 0.05, 0.3, 0.2, 0.5, 1]
    assert config["kernel"] == (scheduler.kernel if kernel != "matrix" else KERNELS["matrix"]["kernel"].tolist())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kernel": "masked"}, r"`kernel` must be one of absorbing, .*, and is 'masked'"),
        ({"kernel": [[0.5, 0.5], [0.5, 0.5]]}, r"`kernel` must be a matrix of num_states x num_states = 257 x 257"),
        ({"kernel": [[0.5, 0.4], [0.5, 0.5]], "num_states": 2}, r"whose rows add up to 1; .* off by 0\.1"),
        (
            {"kernel": [[1.0, 0.0], [0.0, 1.0]], "num_states": 2},
            r"one stationary distribution.* some states never meet",
        ),
        ({"num_states": 1}, r"`num_states` must be at least 2"),
        ({"mask_token_id": 257}, r"`mask_token_id` must be in \[0, num_states = 257\), and is 257"),
        (
            {"kernel": "uniform", "mask_token_id": 2},
            r"`mask_token_id` is for the kernels absorbing and mask_and_replace",
        ),
        ({"kernel": "mask_and_replace"}, r"`replace_share` must be given for the kernel mask_and_replace"),
        ({"kernel": "uniform", "replace_share": 0.1}, r"and for no other; `kernel` is uniform"),
        ({"kernel": "mask_and_replace", "replace_share": 1}, r"`replace_share` must be in \(0, 1\), and is 1"),
        ({"trained_betas": [0.5, 1.0]}, r"`trained_betas` must hold num_train_timesteps = 1000 values"),
        ({"trained_betas": [1.0, 1.0], "num_train_timesteps": 2}, r"`trained_betas` must lie in \(0, 1\]"),
    ],
)
def test_a_wrong_option_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TransitionScheduler(**options)


def test_a_wrong_call_is_named() -> None:
    scheduler = made("uniform", 4)
    states, logits, t = torch.zeros(2, 3, dtype=torch.int64), torch.zeros(2, 3, 4), torch.tensor([1, 2])
    with pytest.raises(ValueError, match=r"`noise` must be uniform numbers in float64 .* torch\.rand"):
        scheduler.add_noise(states, torch.rand(2, 3), t)
    with pytest.raises(ValueError, match=r"`original_samples` must be states, int64 in \[0, 4\), and is torch.float32"):
        scheduler.add_noise(states.float(), torch.rand(2, 3, dtype=torch.float64), t)
    with pytest.raises(ValueError, match=r"`model_output` must be logits of shape \(2, 3, 4\)"):
        scheduler.step(logits[..., :3], 2, states)
    for wrong in ({"temperature": -1}, {"remask": 2}, {"corrector_steps": -1}):
        with pytest.raises(ValueError, match=rf"`{next(iter(wrong))}`"):
            scheduler.step(logits, 2, states, **wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"`remask` is for the kernel absorbing.* Use `corrector_steps`"):
        scheduler.step(logits, 2, states, remask=0.1)
    with pytest.raises(ValueError, match=r"`order` is for the kernel absorbing"):
        scheduler.step(logits, 2, states, order="entropy")
    with pytest.raises(ValueError, match=r"`elbo_weights` is for the kernel absorbing.* Use `bound`"):
        scheduler.elbo_weights(t)
    scheduler.set_timesteps(2)
    with pytest.raises(ValueError, match=r"`timestep` must be one of `timesteps`, and is 3\. Call `set_timesteps`"):
        scheduler.step(logits, 3, states)
    with pytest.raises(ValueError, match=r"`num_inference_steps` must be in \[1, 6\], and is 7"):
        scheduler.set_timesteps(7)
    with pytest.raises(ValueError, match=r"`timesteps` must be a list of descending integers in \[0, 6\)"):
        scheduler.set_timesteps(timesteps=[6, 2])
