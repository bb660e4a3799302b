"""Sampling of states with a perfect denoiser, against the sampler's own law by enumeration, and the chain's."""

import math
from typing import Any

import pytest
import torch
from markov_chain import MarkovChain
from scipy.stats import chi2
from torch import Tensor

from logsnr.schedulers.scheduling_transition import TransitionScheduler

CHAIN = MarkovChain.of_the_facts()
KERNELS: dict[str, dict[str, Any]] = {
    "absorbing": {"kernel": "absorbing", "num_states": 4},
    "uniform": {"kernel": "uniform", "num_states": 3},
    "mask_and_replace": {"kernel": "mask_and_replace", "replace_share": 0.3, "num_states": 4},
    "gaussian": {"kernel": "gaussian", "num_states": 3},
    "matrix": {"kernel": [[0.1, 0.9, 0.0], [0.0, 0.2, 0.8], [0.5, 0.0, 0.5]], "num_states": 3},
}


def made(kernel: str, steps: int) -> TransitionScheduler:
    return TransitionScheduler(**KERNELS[kernel], num_train_timesteps=steps)


def all_states(scheduler: TransitionScheduler) -> Tensor:
    return torch.cartesian_prod(*[torch.arange(scheduler.num_states)] * CHAIN.length)


def index(scheduler: TransitionScheduler, sequences: Tensor) -> Tensor:
    """The rows of `all_states` that sequences (n, 3) are."""
    return sequences @ scheduler.num_states ** torch.arange(CHAIN.length - 1, -1, -1)


def sample(scheduler: TransitionScheduler, count: int, **options: Any) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    x = scheduler.sample_stationary((count, CHAIN.length), generator)
    for t in scheduler.timesteps:
        logits = CHAIN.denoise(all_states(scheduler), scheduler.cumulative_matrix(t))
        x = scheduler.step(logits[index(scheduler, x)], t, x, generator=generator, **options).prev_sample
    return x


def together(places: Tensor) -> Tensor:
    """The laws of three independent places (n, 3, K), as laws of the whole (n, K^3)."""
    first, second, third = places.unbind(1)
    return torch.einsum("na,nb,nc->nabc", first, second, third).flatten(1)


def law(scheduler: TransitionScheduler, order: str = "random", remask: float = 0.0, corrector_steps: int = 0) -> Tensor:
    """What `sample` draws, (K^3,), by Bayes' rule from the matrices alone, and for masks by ReMDM's own formula."""
    states, mask = all_states(scheduler), scheduler.num_states - 1
    eye = torch.eye(scheduler.num_states, dtype=torch.float64)
    transitions = scheduler.transition_matrix(torch.arange(len(scheduler)))

    def product(s: int, t: int) -> Tensor:
        return torch.linalg.multi_dot([eye, eye, *transitions[s + 1 : t + 1]])

    chosen = [*scheduler.timesteps.tolist(), -1]
    now = scheduler.stationary[states].prod(1)
    for i, t in enumerate(chosen[:-1]):
        s, below = chosen[i + 1], chosen[min(i + 1 + corrector_steps, len(chosen) - 1)]
        p = CHAIN.denoise(states, product(-1, t)).exp().nan_to_num()
        joint = product(-1, below)[:, None, :] * product(below, t).T[None]  # [x_0, x_t, x_s]
        bayes = (joint / joint.sum(-1, keepdim=True)).nan_to_num()
        places = torch.einsum("nio,onis->nis", p, bayes[:, states])
        seen = (states != mask)[..., None]
        if remask > 0:
            at_s, at_t = (float(product(-1, r)[0, 0]) for r in (below, t))
            sigma = min(remask, (1 - at_s) / at_t) if at_t > 0 else remask
            lifted = (at_s - (1 - sigma) * at_t) / (1 - at_t)
            again, new = (1 - sigma) * eye[states] + sigma * eye[mask], lifted * p + (1 - lifted) * eye[mask]
            places = torch.where(seen, again, new)
        moves = together(places @ product(below, s))
        if order != "random":
            at_s, at_t = (float(product(-1, r)[0, 0]) for r in (below, t))
            lifted, moves = (at_s - at_t) / (1 - at_t), torch.zeros_like(moves)
            score = p.amax(-1) if order == "confidence" else -torch.special.entr(p).sum(-1)
            turn = score.masked_fill(seen[..., 0], -math.inf).argsort(stable=True, dim=1, descending=True).argsort(1)
            masks = (~seen).sum(1)  # (n, 1)
            for count in range(CHAIN.length + 1):
                chance = torch.tensor([math.comb(int(m), count) for m in masks]).double()
                chance *= lifted**count * (1 - lifted) ** (masks[:, 0] - count).clamp(min=0).double()
                moves += chance[:, None] * together(torch.where((turn < count)[..., None], p, eye[states]))
        now = now @ moves
    return now


def assert_follows(scheduler: TransitionScheduler, sequences: Tensor, expected: Tensor) -> None:
    """Chi-square at 1 in 1000, cells of fewer than five expected taken together."""
    counts = torch.bincount(index(scheduler, sequences), minlength=len(expected)).double()
    expected = expected * len(sequences)
    rare = expected < 5
    counts = torch.cat([counts[~rare], counts[rare].sum()[None]])
    expected = torch.cat([expected[~rare], expected[rare].sum()[None]])
    assert float(counts[-1]) <= float(expected[-1]) + 4 * math.sqrt(float(expected[-1])) + 1
    deviation = float(((counts - expected).square() / expected)[:-1].sum())
    assert deviation < chi2.isf(1e-3, len(counts) - 1)


def clean_law(scheduler: TransitionScheduler) -> Tensor:
    """The chain's own law among all states of the scheduler."""
    found = torch.zeros(scheduler.num_states**CHAIN.length, dtype=torch.float64)
    found[index(scheduler, CHAIN.sequences)] = CHAIN.log_probability(CHAIN.sequences).exp()
    return found


def divergence(scheduler: TransitionScheduler, **options: Any) -> float:
    """KL of the sampler's law from the chain's, bits."""
    chain, found = clean_law(scheduler), law(scheduler, **options)
    assert float(found.sum()) == pytest.approx(1, abs=1e-9)
    return float((torch.xlogy(chain, chain) - torch.xlogy(chain, found)).sum()) / math.log(2)


@pytest.mark.parametrize(
    ("kernel", "steps", "options"),
    [
        *[(kernel, steps, {}) for kernel in ("absorbing", "uniform") for steps in (8, 32, 128)],
        *[(kernel, 8, {}) for kernel in ("mask_and_replace", "gaussian", "matrix")],
        *[("absorbing", 8, {"remask": remask}) for remask in (0.1, 1)],
        *[(kernel, 8, {"corrector_steps": 2}) for kernel in ("absorbing", "uniform", "matrix")],
        *[("absorbing", 8, {"order": order}) for order in ("confidence", "entropy")],
        ("absorbing", 8, {"remask": 0.2, "corrector_steps": 1}),
    ],
)
def test_samples_follow_the_law_of_the_steps(kernel: str, steps: int, options: dict[str, Any]) -> None:
    scheduler = made(kernel, steps)
    assert_follows(scheduler, sample(scheduler, 4000, **options), law(scheduler, **options))


@pytest.mark.parametrize("kernel", ["absorbing", "uniform"])
def test_fewer_steps_than_were_trained(kernel: str) -> None:
    scheduler = made(kernel, 64)
    scheduler.set_timesteps(5)
    assert scheduler.timesteps.tolist() == [63, 50, 37, 25, 12]
    assert_follows(scheduler, sample(scheduler, 4000), law(scheduler))


@pytest.mark.parametrize(
    ("kernel", "options"),
    [
        ("absorbing", {}),
        ("uniform", {}),
        ("mask_and_replace", {}),
        ("gaussian", {}),
        ("matrix", {}),
        ("absorbing", {"remask": 0.2}),
        ("absorbing", {"corrector_steps": 2}),
        ("absorbing", {"order": "confidence"}),
        ("absorbing", {"order": "entropy"}),
        ("uniform", {"corrector_steps": 2}),
    ],
)
def test_the_law_of_the_steps_reaches_the_chain_s(kernel: str, options: dict[str, Any]) -> None:
    few, many = (divergence(made(kernel, steps), **options) for steps in (8, 32))
    assert 0 <= many < few / 2.5
    assert many < 0.05


def test_with_a_perfect_network_remasking_and_correctors_only_draw_more_at_once() -> None:
    """They are there for networks that err. Bits from the chain at 16 steps."""
    found = {
        str(options): divergence(made("absorbing", 16), **options)
        for options in ({}, {"remask": 0.1}, {"corrector_steps": 1}, {"order": "confidence"}, {"order": "entropy"})
    }
    assert list(found.values()) == pytest.approx([0.0082, 0.0115, 0.0107, 0.0081, 0.0119], abs=1e-4)


def test_remasking_keeps_to_its_bound() -> None:
    """In a step from alpha_bar .9 to .95 a lifted mask comes back with chance .05 / .9 at most."""
    scheduler = TransitionScheduler("absorbing", 4, 3, [0.05, 1 - 0.9 / 0.95, 1])
    x, logits = torch.tensor([[0], [3]]).repeat(1, 100_000), torch.zeros(2, 100_000, 4)
    after = scheduler.step(logits, 1, x, remask=1, generator=torch.Generator().manual_seed(0)).prev_sample == 3
    sigma = 0.05 / 0.9
    lifted = (0.95 - (1 - sigma) * 0.9) / 0.1
    assert after.double().mean(1).tolist() == pytest.approx([sigma, 1 - lifted], abs=4e-3)
    assert not bool((scheduler.step(logits, 0, x, remask=1).prev_sample == 3).any())


@pytest.mark.parametrize("temperature", [0.5, 1, 2])
def test_temperature_is_the_power_of_the_law(temperature: float) -> None:
    scheduler = TransitionScheduler("absorbing", 28, 1)
    p, count = torch.rand(27, dtype=torch.float64) + 0.05, 20_000
    logits = torch.cat([p.log(), torch.zeros(1)]).expand(1, count, 28)
    drawn = scheduler.step(
        logits, 0, torch.full((1, count), 27), temperature, generator=torch.Generator().manual_seed(0)
    )
    expected = p ** (1 / temperature) / (p ** (1 / temperature)).sum() * count
    deviation = (torch.bincount(drawn.prev_sample[0], minlength=27) - expected).square() / expected
    assert float(deviation.sum()) < chi2.isf(1e-3, 26)


@pytest.mark.parametrize("kernel", ["absorbing", "uniform", "gaussian"])
def test_at_temperature_0_the_likeliest_state_is_drawn(kernel: str) -> None:
    scheduler = TransitionScheduler(kernel, 27, 4)
    logits = torch.randn(2, 5, 27).half()
    out = scheduler.step(logits, 0, torch.full((2, 5), 26), temperature=0)
    assert torch.equal(out.prev_sample, out.pred_original_sample)
    assert torch.equal(out.prev_sample, logits[..., : 26 if kernel == "absorbing" else 27].argmax(-1))


@pytest.mark.parametrize("kernel", ["absorbing", "uniform"])
def test_seeds_belong_to_samples(kernel: str) -> None:
    scheduler = TransitionScheduler(kernel, 27, 10)
    logits = torch.randn(1, 12, 27).expand(3, -1, -1)

    def run(seeds: list[int]) -> Tensor:
        generators = [torch.Generator().manual_seed(s) for s in seeds]
        x = scheduler.sample_stationary((len(seeds), 12), generators)
        for t in scheduler.timesteps:
            x = scheduler.step(logits[: len(seeds)], t, x, generator=generators).prev_sample
        return x

    three = run([1, 2, 3])
    assert torch.equal(three[1:2], run([2]))
    assert not torch.equal(three[0], three[1])


def test_what_is_given_stays() -> None:
    """Masks among letters are filled in, from the first step on, where no letter should have survived."""
    scheduler = TransitionScheduler("absorbing", 27, 20)
    x = torch.tensor([[3, 26, 5, 26, 26, 8]])
    given = x != 26
    for t in scheduler.timesteps:
        out = scheduler.step(torch.randn(1, 6, 27), t, x, order="confidence")
        assert torch.equal(out.prev_sample[given], torch.tensor([3, 5, 8]))
        assert torch.equal(out.pred_original_sample[given], torch.tensor([3, 5, 8]))
        x = out.prev_sample
    assert not bool((x == 26).any())


# -- Gumbel noise in float32 ------------------------------------------------------------------------------------------


def gumbel_law(p: Tensor, steps: int) -> Tensor:
    """The law of what the maximum of logarithm and float32 Gumbel noise lifts a mask to, with chance 1 / steps.

    Word i comes where its noise beats the mask's by log(steps / p_i). `torch.rand` has 2^24 values, so that noise ends
    at 16.6; those that beat it are counted, for 512 quantiles of the mask's noise.
    """
    highest = 2**24 - torch.arange(2**18, 0, -1)
    noise = -torch.log(-torch.log(highest.float() / 2**24))  # rising
    of_mask = -torch.log(-torch.log((torch.arange(512, dtype=torch.float64) + 0.5) / 512))
    needed = (of_mask + (steps / p).log()[:, None]).float()
    wins = len(noise) - torch.searchsorted(noise, needed, right=True)
    found = wins.double().mean(1)
    return found / found.sum()


def test_float32_gumbel_noise_lowers_the_entropy_and_this_sampler_doesn_t() -> None:
    words = 2000
    p = 1 / torch.arange(1, words + 1, dtype=torch.float64)  # Zipf's law
    p /= p.sum()
    entropy = float(torch.special.entr(p).sum()) / math.log(2)
    by_gumbel = [gumbel_law(p, steps) for steps in (64, 1024, 8192)]
    drops = [entropy - float(torch.special.entr(g).sum()) / math.log(2) for g in by_gumbel]
    assert drops == pytest.approx([0.015, 0.268, 1.532], abs=0.002)  # of 8.115 bits
    rare = float(p[1000:].sum())
    assert rare == pytest.approx(0.0847, abs=1e-4)
    assert float(by_gumbel[2][1000:].sum()) == pytest.approx(0.0029, abs=1e-4)

    scheduler, count = TransitionScheduler("absorbing", words + 1, 8192), 2000
    scheduler.set_timesteps(timesteps=[8191, 8190, 4000, 1])  # a few of the steps are as short as they come
    logits = torch.cat([p.log(), torch.zeros(1)]).expand(1, count, words + 1)
    x, generator = torch.full((1, count), words), torch.Generator().manual_seed(0)
    for t in scheduler.timesteps:
        x = scheduler.step(logits, t, x, generator=generator).prev_sample
    assert float((x >= 1000).double().mean()) == pytest.approx(rare, abs=4 * math.sqrt(rare / count))
