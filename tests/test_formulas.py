"""Formulas that are written wrongly here and there: each taken literally and shown to fail, beside ours.

Images here are one Gaussian pixel, x_0 ~ N(MEAN, STD^2), for which everything is known in closed form: the marginals,
the best noise prediction and hence what a sampler must give back.
"""

import math

import pytest
import torch

from logsnr.schedulers.scheduling_beta import ConstantBetaScheduler, LinearBetaScheduler, ScheduleWarning

MEAN, STD = 0.2, 0.25
N = 4000


@pytest.fixture
def linear() -> LinearBetaScheduler:
    return LinearBetaScheduler(clip_sample=False)


def chain(scheduler: LinearBetaScheduler) -> tuple[torch.Tensor, torch.Tensor]:
    """betas and alpha_bar in float64."""
    return scheduler.betas.double(), scheduler.alphas_cumprod.double()


def best_epsilon(x_t: torch.Tensor, alpha_bar: torch.Tensor) -> torch.Tensor:
    """E[eps | x_t], what a perfect network says."""
    return (1 - alpha_bar).sqrt() * (x_t - alpha_bar.sqrt() * MEAN) / (alpha_bar * STD**2 + 1 - alpha_bar)


def normal(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def ours(scheduler: LinearBetaScheduler, eta: float) -> torch.Tensor:
    """Samples of all T steps of `step`."""
    _, alpha_bar = chain(scheduler)
    scheduler.set_timesteps(len(scheduler), eta=eta)
    generator, x = torch.Generator().manual_seed(1), normal(N, 1, 1, 1, seed=0)
    for t in scheduler.timesteps:
        x = scheduler.step(best_epsilon(x, alpha_bar[t]), t, x, generator=generator).prev_sample
    return x.flatten()


# -- the loss ||x_0 - eps - eps_theta(x_t, t)||^2 ---------------------------------------------------------------------


def test_the_simple_loss_compares_noise_with_noise(linear: LinearBetaScheduler) -> None:
    """A network that is perfect for that loss says x_0 - eps; where that is taken for the noise, x_0 is lost."""
    x_0, noise, t = 0.5 * normal(4, 1, 2, 2, seed=0), normal(4, 1, 2, 2, seed=1), torch.tensor([100, 400, 700, 900])
    x_t, learned = linear.add_noise(x_0, noise, t), x_0 - noise
    as_noise = linear.convert(learned, x_t, t, "epsilon", "sample")
    assert ((as_noise - x_0).square().mean((1, 2, 3)) > 0.1).all()
    a = linear.alphas_cumprod.double()[t].sqrt().view(-1, 1, 1, 1)
    s = (1 - a.square()).sqrt()
    by_hand = (x_t + s * learned) / (a + s)  # its own, well-conditioned inversion
    torch.testing.assert_close(by_hand, x_0, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(linear.convert(learned, x_t, t, "x0_minus_noise", "sample"), x_0, rtol=1e-12, atol=1e-12)


def test_the_target_x0_minus_noise_samples_right_with_its_own_inversion() -> None:
    scheduler = LinearBetaScheduler(clip_sample=False, prediction_type="x0_minus_noise")
    _, alpha_bar = chain(scheduler)
    scheduler.set_timesteps(200, eta=0.0)
    x = normal(N, 1, 1, 1, seed=0)
    for t in scheduler.timesteps:
        eps = best_epsilon(x, alpha_bar[t])
        target = (x - (1 - alpha_bar[t]).sqrt() * eps) / alpha_bar[t].sqrt() - eps  # E[x_0 - eps | x_t]
        x = scheduler.step(target, t, x).prev_sample
    assert float(x.mean()) == pytest.approx(MEAN, abs=0.01)
    assert float(x.std()) == pytest.approx(STD, abs=0.01)


# -- the reverse step with eta ----------------------------------------------------------------------------------------


def test_alpha_bar_is_the_product_of_1_minus_beta(linear: LinearBetaScheduler) -> None:
    """The product of the betas themselves underflows, and the sigma that is made of it diverges."""
    betas, alpha_bar = chain(linear)
    for dtype, last in ((torch.float32, 15), (torch.float64, 150)):
        product = torch.cumprod(betas.to(dtype), 0)
        assert (product[last:] == 0).all()
        sigma = (betas.to(dtype) * (1 - product) / product).sqrt()
        assert sigma[:last].max() > 1e10
        assert sigma[last:].isinf().all()
    before = torch.cat([torch.ones(1, dtype=torch.float64), alpha_bar[:-1]])
    right = betas * (1 - before) / (1 - alpha_bar)
    assert (right <= betas).all()
    t = torch.arange(1000)
    ours = linear.posterior(torch.zeros(1000, 1, dtype=torch.float64), torch.zeros(1000, 1, dtype=torch.float64), t)
    torch.testing.assert_close(ours.variance.flatten(), right, rtol=1e-3, atol=0)  # the table's float32


@pytest.mark.parametrize(("eta", "literal_std"), [(1.0, STD), (0.5, 0.12), (0.0, 0.0004)])
def test_eta_belongs_to_the_mean_as_well_as_to_the_noise(
    linear: LinearBetaScheduler, eta: float, literal_std: float
) -> None:
    """The mean of eta = 1 with the noise times eta loses the spread; with DDIM's mean every eta gives the data's."""
    betas, alpha_bar = chain(linear)
    x, z = normal(N, seed=0), normal(1000, N, seed=2)
    for t in reversed(range(1000)):
        mean = (x - betas[t] / (1 - alpha_bar[t]).sqrt() * best_epsilon(x, alpha_bar[t])) / (1 - betas[t]).sqrt()
        before = alpha_bar[t - 1] if t > 0 else torch.ones(())
        x = mean + eta * (betas[t] * (1 - before) / (1 - alpha_bar[t])).sqrt() * z[t]
    assert float(x.std()) == pytest.approx(literal_std, rel=0.1)
    samples = ours(linear, eta)
    assert float(samples.mean()) == pytest.approx(MEAN, abs=0.015)
    assert float(samples.std()) == pytest.approx(STD, rel=0.04)


# -- the constant schedule --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("total", [10, 100, 1000])
def test_a_constant_schedule_that_ends_at_1_minus_beta_min_hardly_adds_noise(total: int) -> None:
    """1 - prod(1 - beta_t) = beta_min whatever T: with 1e-4 the chain ends at an SNR of 9,999, in the image itself."""
    beta = torch.tensor(1 - (1 - 1e-4) ** (1 / total), dtype=torch.float64)
    last = float((1 - beta) ** total)
    assert last / (1 - last) == pytest.approx(9999, rel=1e-6)
    with pytest.warns(ScheduleWarning, match=r"terminal SNR is \d{4}, above 0.002"):
        scheduler = ConstantBetaScheduler(num_train_timesteps=total, beta_min=1e-4)
    table = float(scheduler.alphas_cumprod[-1].double())  # float32 rounds a beta of 1e-7 to 1.2e-7: 8,388 at T = 1000
    assert table / (1 - table) == pytest.approx(9999, rel=0.2)
    image, noise = normal(N, 1, seed=0), normal(N, 1, seed=1)
    end = scheduler.add_noise(image, noise, torch.tensor(total - 1))
    assert float((end - image).std()) < 0.011  # "near the uniform distribution" it is not

    end = ConstantBetaScheduler(num_train_timesteps=total).add_noise(image, noise, torch.tensor(total - 1)).flatten()
    assert abs(float((end * image.flatten()).mean())) < 0.06
    kurtosis = float(end.pow(4).mean() / end.var() ** 2)
    assert kurtosis == pytest.approx(3, abs=0.3)  # the limit is Gaussian; a uniform one would have 1.8


# -- the reverse step, and noising at once ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("with_noise", "literal_divisor", "std"),
    [(False, True, 0.0029), (False, False, 0.0004), (True, True, 0.70), (True, False, STD)],
)
def test_the_reverse_step_needs_its_noise_and_the_divisor(
    linear: LinearBetaScheduler, with_noise: bool, literal_divisor: bool, std: float
) -> None:
    """Without noise the samples collapse on the mean; with sqrt(1 - beta_t) in place of sqrt(1 - alpha_bar_t) too
    little is taken off at small t. Only both cures together give the data's spread back: DDPM's step, which is ours.
    """
    betas, alpha_bar = chain(linear)
    x, z = normal(N, seed=0), normal(1000, N, seed=2)
    for t in reversed(range(1000)):
        divisor = (1 - (betas if literal_divisor else alpha_bar)[t]).sqrt()
        mean = (x - betas[t] / divisor * best_epsilon(x, alpha_bar[t])) / (1 - betas[t]).sqrt()
        if not with_noise:
            x = mean
        elif t > 0:
            x = mean + (betas[t] * (1 - alpha_bar[t - 1]) / (1 - alpha_bar[t])).sqrt() * z[t]
    assert float(x.std()) == pytest.approx(std, rel=0.1)
    assert float(ours(linear, 1.0).std()) == pytest.approx(STD, rel=0.04)


def test_x_t_has_the_noise_of_all_steps_up_to_t(linear: LinearBetaScheduler) -> None:
    """Noised by beta_t alone x_0 is still there at t = T - 1, at an SNR of 49."""
    betas, alpha_bar = chain(linear)
    image, noise, t = normal(N, 1, seed=0), normal(N, 1, seed=1), torch.tensor(999)
    literal = (1 - betas[t]).sqrt() * image + betas[t].sqrt() * noise
    assert float((1 - betas[t]) / betas[t]) == pytest.approx(49, rel=1e-3)
    assert float(torch.corrcoef(torch.cat([literal, image], 1).T)[0, 1]) > 0.98
    right = linear.add_noise(image, noise, t)
    assert float(alpha_bar[t] / (1 - alpha_bar[t])) == pytest.approx(4e-5, rel=0.02)
    assert abs(float(torch.corrcoef(torch.cat([right, image], 1).T)[0, 1])) < 0.06


# -- the ELBO ---------------------------------------------------------------------------------------------------------


def kl(mean: torch.Tensor, var: torch.Tensor, mean_p: torch.Tensor, var_p: torch.Tensor) -> torch.Tensor:
    """KL(N(mean, var) || N(mean_p, var_p)) of scalars, in nats."""
    return 0.5 * ((var + (mean - mean_p).square()) / var_p - 1 + (var_p / var).log())


def test_the_terms_of_the_elbo_compare_with_the_posterior_given_x0(linear: LinearBetaScheduler) -> None:
    """With the exact reverse chain of Gaussian data the ELBO's terms sum to E[log p(x_0)], the data's entropy, when
    they are q(x_{t-1} | x_t, x_0) for t >= 2, E log p(x_0 | x_1), and the prior term. With q(x_{t-1} | x_t),
    without x_0, each KL of the exact chain is 0, and nothing of the data's cost remains.
    """
    _, alpha_bar = chain(linear)
    # 0-based: alpha_bar[t] belongs to the formula's x_{t+1}; exact p(x_{t-1} | x_t) = q(x_{t-1} | x_t) of Gaussian data
    bar = torch.cat([torch.ones(1, dtype=torch.float64), alpha_bar])  # bar[t] of the formula's x_t
    ratio = bar[1:] / bar[:-1]
    marginal = bar * STD**2 + 1 - bar
    prior_var = marginal[:-1]
    gain = prior_var * ratio.sqrt() / marginal[1:]
    reverse_var = prior_var * (1 - ratio) / marginal[1:]  # of q(x_{t-1} | x_t), t = 1..T

    # E over x_0 and x_t of each KL: both are Gaussian with means affine in (x_0, x_t), so it is closed form
    t = torch.arange(1000)
    unit, zero = torch.ones(1000, 1, dtype=torch.float64), torch.zeros(1000, 1, dtype=torch.float64)
    of_x0 = linear.posterior(unit, zero, t)
    of_xt = linear.posterior(zero, unit, t)
    weight_0, weight_t = of_x0.mean.flatten(), of_xt.mean.flatten()
    # mean difference = weight_0 x_0 + weight_t x_t - gain x_t (about the means, which agree), with
    # x_t = sqrt(bar_t) x_0 + sqrt(1 - bar_t) eps
    after = bar[1:]
    by_x0 = (weight_0 + (weight_t - gain) * after.sqrt()).square() * STD**2
    by_eps = (weight_t - gain).square() * (1 - after)
    gap = (by_x0 + by_eps).sqrt()[1:]
    var_q = of_x0.variance.flatten()[1:]
    chain_terms = kl(gap, var_q, torch.zeros(()), reverse_var[1:])
    first = 0.5 * (1 + (2 * math.pi * reverse_var[0]).log())  # -E log p(x_0 | x_1)
    end_mean_square = bar[-1] * (STD**2)
    prior = kl(end_mean_square.sqrt(), 1 - bar[-1], torch.zeros(()), marginal[-1])
    entropy = 0.5 * math.log(2 * math.pi * math.e * STD**2)
    assert float(chain_terms.sum() + first + prior) == pytest.approx(entropy, abs=2e-3)
    assert float(chain_terms.min()) > 0

    # the terms with q(x_{t-1} | x_t) are 0 here: the "bound" would be 3 nats below the entropy, which none can
    literal = kl(torch.zeros(()), reverse_var[1:], torch.zeros(()), reverse_var[1:]).sum() + first + prior
    assert float(literal) < entropy - 3
    # a first term log p(x_0) is the very quantity to be bounded, and a sum from t = 1 counts x_1 -> x_0 too,
    # where the posterior has no variance and the KL is infinite
    at_one = linear.posterior(unit[:1], zero[:1], t[:1])
    assert at_one.variance.item() == 0
    assert torch.isinf(kl(torch.zeros(()), at_one.variance.squeeze(), torch.zeros(()), reverse_var[0]))
    # and leaving the prior term out makes the bound hold of nothing when the chain ends early
    early = 300
    missing = kl((bar[early].sqrt() * STD), 1 - bar[early], torch.zeros(()), torch.ones(()))
    assert float(missing) > 0.01


# -- multiplicative noise ---------------------------------------------------------------------------------------------


def test_multiplicative_noise_is_lognormal_and_never_forgets_the_sign(linear: LinearBetaScheduler) -> None:
    """dX = b X dW gives X_1 = X_0 exp(b W - b^2/2): log X is the Gaussian one, X is skewed and keeps its sign."""
    b, steps = 1.0, 400
    x = torch.ones(20000, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):  # Milstein
        dw = torch.randn(20000, generator=generator, dtype=torch.float64) * steps**-0.5
        x = x * (1 + b * dw + 0.5 * b**2 * (dw.square() - 1 / steps))
    assert (x > 0).all()
    assert float(x.mean()) == pytest.approx(1, abs=0.05)
    assert float(x.log().mean()) == pytest.approx(-(b**2) / 2, abs=0.03)
    assert float(x.log().std()) == pytest.approx(b, abs=0.03)

    def skew(y: torch.Tensor) -> float:
        return float(((y - y.mean()) / y.std()).pow(3).mean())

    assert skew(x) > 2
    assert abs(skew(x.log())) < 0.1
    terms = linear.sde(torch.tensor([[-1.0], [0.0], [2.0]]), torch.full((3,), 0.5))
    assert terms.diffusion.unique().numel() == 1  # additive: g depends on time alone
    ends = linear.add_noise(torch.ones(20000, 1), torch.randn(20000, 1, generator=generator), torch.tensor(999))
    assert abs(skew(ends)) < 0.1
    assert float((ends > 0).float().mean()) == pytest.approx(0.5, abs=0.02)
