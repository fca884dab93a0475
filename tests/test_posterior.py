"""Roads to samples: each against the posterior where it is known, and against other libraries.

What is random is compared to within seven standard errors of what is compared, where a normal
variable is but for 3e-12 of the time.  So there is room for effective sizes that are a quarter
too large: 6.2 errors, 6e-10, and no test makes more than 200 such comparisons (1e-7).
"""

import numpy as np
import pytest
import torch
from arviz_stats.base import array_stats
from numpy.testing import assert_allclose
from scipy import optimize, stats
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import DotProduct

from mcunc import posterior
from mcunc.linear import fit_least_squares
from mcunc.posterior import (
    RegressionModel,
    draw_masks,
    effective_sample_size,
    exact_linear,
    find_map_estimates,
    fit_laplace,
    fit_mean_field,
    r_hat,
    sample_hmc,
    train_networks,
)

NOISE = 0.5
ERRORS = 7
LINEAR = RegressionModel((3, 1), NOISE, "none", weight_scale=2.0, bias_scale=1.5)
SMALL = RegressionModel((1, 4, 1), 0.2)


def table(n=20, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 3))
    return x, x @ [1.0, -1.0, 0.5] + 0.3 + NOISE * rng.normal(size=n)


def curve(n=25, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.uniform(-2, 2, (n, 1))
    return x, np.sin(2 * x[:, 0]) + 0.2 * rng.normal(size=n)


# The model -------------------------------------------------------------------------------------


def test_outputs_are_those_of_the_network_written_out():
    z = SMALL.draw_prior(3, seed=1)
    x = np.linspace(-1, 1, 7)[:, None]
    theta = (z * SMALL.scale).numpy()
    for r in range(3):
        hidden = np.tanh(x @ theta[r, None, :4] + theta[r, 4:8])
        expected = hidden @ theta[r, 8:12] + theta[r, 12]
        assert_allclose(SMALL.outputs(z, torch.tensor(x))[r], expected, rtol=1e-12)


def test_the_prior_has_the_stated_scales():
    model = RegressionModel((16, 9, 1), 1.0, weight_scale=3.0, bias_scale=0.7)
    assert len(model) == 16 * 9 + 9 + 9 + 1
    scales = model.scale.numpy()
    assert_allclose(scales, np.r_[np.full(144, 3 / 4), np.full(9, 0.7), np.full(9, 1.0), 0.7])
    squares = (model.draw_prior(4000, seed=0) ** 2).sum(dim=0)
    low, high = stats.chi2.interval(1 - 1e-9, 4000)  # 163 of them
    assert ((low < squares) & (squares < high)).all()


def test_the_joint_density_is_that_of_normal_laws():
    x, y = curve()
    z = SMALL.draw_prior(2)
    means = SMALL.outputs(z, torch.tensor(x)).numpy()
    expected = stats.norm.logpdf(y, means, 0.2).sum(axis=1) + stats.norm.logpdf(z).sum(axis=1)
    got = SMALL.log_joint(z, torch.tensor(x), torch.tensor(y)).numpy()
    assert_allclose(got[1] - got[0], expected[1] - expected[0], rtol=1e-9)


def test_slopes_are_differences_of_outputs():
    x = torch.linspace(-1, 1, 5, dtype=torch.float64)[:, None]
    z = SMALL.draw_prior(2)
    slopes = SMALL.jacobian(z, x)
    for j in range(len(SMALL)):
        step = torch.zeros(len(SMALL), dtype=torch.float64)
        step[j] = 1e-6
        difference = (SMALL.outputs(z + step, x) - SMALL.outputs(z - step, x)) / 2e-6
        torch.testing.assert_close(slopes[..., j], difference, rtol=1e-6, atol=1e-8)


# The linear case, where the answer is known ----------------------------------------------------


def test_the_exact_posterior_is_that_of_scikit_learn():
    """As a Gaussian process: kernel x·x' s² + s_b², noise σ²."""
    x, y = table()
    at = np.random.default_rng(1).normal(size=(4, 3))
    kernel = (2.0**2 / 3) * DotProduct(1.5 / (2 / 3**0.5), sigma_0_bounds="fixed")
    kernel.k1.constant_value_bounds = "fixed"
    theirs = GaussianProcessRegressor(kernel, alpha=NOISE**2, optimizer=None).fit(x, y)
    mean, covariance = theirs.predict(at, return_cov=True)
    found = exact_linear(LINEAR, x, y)
    design = np.c_[at, np.ones(4)] * LINEAR.scale.numpy()
    assert_allclose(design @ found.mean.numpy(), mean, rtol=1e-8)
    assert_allclose(design @ found.covariance.numpy() @ design.T, covariance, rtol=1e-7)


def test_with_a_wide_prior_the_exact_posterior_is_least_squares():
    x, y = table()
    wide = RegressionModel((3, 1), NOISE, "none", weight_scale=1e5, bias_scale=1e5)
    found = exact_linear(wide, x, y)
    theirs = fit_least_squares(np.c_[x, np.ones(20)], y, noise_variance=NOISE**2)
    assert_allclose(found.mean * wide.scale, theirs.coefficients, rtol=1e-5)
    covariance = found.covariance * wide.scale * wide.scale[:, None]
    assert_allclose(covariance, theirs.covariance, rtol=1e-4)


def test_modes_and_laplace_are_exact_where_the_model_is_linear():
    x, y = table()
    exact = exact_linear(LINEAR, x, y)
    modes = find_map_estimates(LINEAR, x, y, LINEAR.draw_prior(3))
    assert_allclose(modes, exact.mean.repeat(3, 1), atol=1e-8)
    for last_layer in (False, True):  # the last layer is all there is
        found = fit_laplace(LINEAR, x, modes[0], last_layer)
        assert_allclose(found.posterior.covariance, exact.covariance, rtol=1e-10)
    mean, covariance = found.moments(x[:5])
    samples = found.sample(x[:5], draws=20_000)
    variance = np.diag(covariance)
    assert (np.abs(samples.mean(axis=0) - mean) < ERRORS * np.sqrt(variance / 20_000)).all()
    error = np.sqrt((np.outer(variance, variance) + covariance**2) / 20_000)  # of Wishart's law
    assert (np.abs(np.cov(samples.T) - covariance) < ERRORS * error).all()


def agrees(z, mean, variance, of_mean, of_sd):
    """Whether draws (T, P) have the moments of a normal law, given how many tell each."""
    mean, variance, z = (torch.as_tensor(each).numpy() for each in (mean, variance, z))
    off = np.abs(z.mean(axis=0) - mean) / np.sqrt(variance / of_mean)
    wide = np.abs(z.std(axis=0, ddof=1) / np.sqrt(variance) - 1) * np.sqrt(2 * of_sd)
    return max(off.max(), wide.max()) < ERRORS


def sizes(z):
    """Of chains: the effective sizes for the mean and for the standard deviation."""
    return [effective_sample_size(z, kind) for kind in ("mean", "sd")]


def test_anchored_ensembles_and_chains_draw_from_the_exact_posterior():
    x, y = table()
    exact = exact_linear(LINEAR, x, y)
    moments = exact.mean, exact.covariance.diagonal()
    rng, members = np.random.default_rng(0), 2000
    noisy = y + NOISE * rng.normal(size=(members, len(y)))
    anchored = find_map_estimates(
        LINEAR, x, noisy, LINEAR.draw_prior(members), anchors=LINEAR.draw_prior(members, 1),
        iterations=5,
    )  # fmt: skip
    chains = sample_hmc(LINEAR, x, y, LINEAR.draw_prior(16), draws=150, warm_up=100, leapfrog=8)
    assert agrees(anchored, *moments, members, members)
    assert agrees(chains.z.reshape(-1, 4), *moments, *sizes(chains.z))
    assert 0.8 < chains.accepted.mean() < 0.97  # 0.907 ± 0.004 over seeds


def test_bootstrap_refits_count_cases_as_often_as_drawn():
    x, y = table()
    rng = np.random.default_rng(0)
    weights = rng.multinomial(20, np.full(20, 1 / 20), size=3)
    found = find_map_estimates(LINEAR, x, y, LINEAR.draw_prior(3), weights=weights)
    for z, counts in zip(found, weights, strict=True):
        rows = np.repeat(np.arange(20), counts)
        assert_allclose(z, exact_linear(LINEAR, x[rows], y[rows]).mean, atol=1e-7)


# Networks --------------------------------------------------------------------------------------


def test_members_are_fitted_as_if_alone():
    x, y = curve()
    start = SMALL.draw_prior(3)
    together = find_map_estimates(SMALL, x, y, start, iterations=20)
    for r in range(3):
        alone = find_map_estimates(SMALL, x, y, start[r : r + 1], iterations=20)
        torch.testing.assert_close(together[r], alone[0])
    assert torch.equal(start, SMALL.draw_prior(3))  # not changed behind one's back


def test_modes_are_those_of_another_optimiser():
    """L-BFGS from where Levenberg and Marquardt stopped finds nothing better nearby."""
    x, y = curve()
    start = SMALL.draw_prior(3)
    for z in find_map_estimates(SMALL, x, y, start):

        def loss(z):
            z = torch.tensor(z[None])
            return -SMALL.log_joint(z, torch.tensor(x), torch.tensor(y)).item()

        better = optimize.minimize(loss, z.numpy(), method="L-BFGS-B")
        assert loss(z.numpy()) - better.fun < 1e-5


def test_laplace_of_the_last_layer_is_regression_on_its_features():
    x, y = curve()
    z = find_map_estimates(SMALL, x, y, SMALL.draw_prior(1))[0]
    theta = (z * SMALL.scale).numpy()
    features = np.tanh(x * theta[:4] + theta[4:8])
    head = RegressionModel((4, 1), 0.2, "none")
    exact = exact_linear(head, features, y)
    found = fit_laplace(SMALL, x, z, last_layer=True)
    assert_allclose(found.posterior.covariance, exact.covariance, rtol=1e-9)
    assert_allclose(found.posterior.mean, exact.mean, atol=0.002)  # a mode is one of each layer


def test_a_chain_of_a_network_finds_the_prior_where_there_are_no_data():
    """One case of next to no weight: what comes out is what was put in."""
    vague = RegressionModel((1, 4, 1), 1e6)
    chains = sample_hmc(
        vague, np.zeros((1, 1)), np.zeros(1), vague.draw_prior(16), draws=150, warm_up=100,
        leapfrog=4, seed=1,
    )  # fmt: skip
    P = len(vague)
    assert agrees(chains.z.reshape(-1, P), np.zeros(P), np.ones(P), *sizes(chains.z))


def test_chains_of_several_data_sets_run_side_by_side():
    sets = [table(12, seed) for seed in range(3)]
    x, y = (np.repeat([of[i] for of in sets], 8, axis=0) for i in range(2))
    chains = sample_hmc(LINEAR, x, y, LINEAR.draw_prior(24), draws=150, warm_up=100, leapfrog=8)
    for i, of in enumerate(sets):
        exact = exact_linear(LINEAR, *of)
        z = chains.z[:, 8 * i : 8 * i + 8]
        assert agrees(z.reshape(-1, 4), exact.mean, exact.covariance.diagonal(), *sizes(z))


def test_the_same_seed_draws_the_same():
    x, y = curve()
    one, two, other = (
        sample_hmc(SMALL, x, y, SMALL.draw_prior(2), draws=5, warm_up=5, leapfrog=3, seed=seed).z
        for seed in (1, 1, 2)
    )
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


def test_masks_drop_units_with_all_that_leaves_them():
    model = RegressionModel((1, 5, 3, 1), 0.2)
    masks = draw_masks(model, (4000,), 0.3, torch.Generator().manual_seed(0))
    first, second, third, fourth, fifth, sixth = masks.split([5, 5, 15, 3, 3, 1], dim=1)
    for kept in (first, second, fourth, sixth):  # of the inputs, and biases
        assert (kept == 1).all()
    rows = third.reshape(4000, 5, 3)
    assert (rows == rows[..., :1]).all()
    assert set(np.round(third.unique().tolist(), 6)) == {0, round(1 / 0.7, 6)}
    dropped = (rows[..., 0] == 0).sum().item()
    assert abs(dropped - 0.3 * 20_000) < ERRORS * (20_000 * 0.3 * 0.7) ** 0.5
    # Masked parameters make the network that torch's own dropout makes, unit by unit.
    z, x = model.draw_prior(1, seed=3), torch.linspace(-1, 1, 4).double()[:, None]
    theta = (z * model.scale)[0].split([5, 5, 15, 3, 3, 1])
    hidden = torch.tanh(x @ theta[0][None] + theta[1]) * rows[7, :, 0]
    hidden = torch.tanh(hidden @ theta[2].reshape(5, 3) + theta[3]) * fifth[7]
    expected = hidden @ theta[4] + theta[5]
    torch.testing.assert_close(model.outputs(z * masks[7], x)[0], expected)


def test_under_masks_the_penalty_is_the_published_one():
    model = RegressionModel((1, 6, 1), 0.2)
    z, p = model.draw_prior(1), 0.3
    masks = draw_masks(model, (40_000,), p, torch.Generator().manual_seed(0))
    prior = ((z * masks) ** 2).sum(dim=1) / 2
    keep = torch.ones(len(model), dtype=torch.float64)
    keep[12:18] = 1 - p
    expected = (keep * (z / keep) ** 2).sum() / 2  # p_keep |M|² / 2
    assert abs(prior.mean() - expected) < ERRORS * prior.std() / 200


def test_without_a_prior_training_is_least_squares():
    x, y = table()
    quick = {"steps": 500, "learning_rate": 0.05}
    found = train_networks(LINEAR, x, y, LINEAR.draw_prior(2), prior=0.0, **quick)
    theirs = fit_least_squares(np.c_[x, np.ones(20)], y).coefficients
    assert_allclose(found * LINEAR.scale, np.tile(theirs, (2, 1)), atol=1e-6)
    found = train_networks(LINEAR, x, y, LINEAR.draw_prior(2), **quick)
    assert_allclose(found, exact_linear(LINEAR, x, y).mean.repeat(2, 1), atol=1e-6)


def test_dropout_of_a_linear_model_is_a_penalty_on_its_inputs_squares():
    r"""In the mean over masks: Wager, Wang & Liang (2013), section 2.

    .. math:: |y - X z|^2 + \frac{p}{1 - p} \sum_{ij} x_{ij}^2 z_j^2
    """
    x, y = table()
    p = 0.2
    start = LINEAR.draw_prior(200)
    found = train_networks(LINEAR, x, y, start, drop=p, steps=1500, learning_rate=0.05)
    design = np.c_[x, np.ones(20)] * LINEAR.scale.numpy()
    dropped = np.array([1, 1, 1, 0])  # the bias is not
    variance = dropped * p / (1 - p)
    own = np.diag((design**2).sum(axis=0) * variance) / NOISE**2 + np.diag(1 + variance)
    expected = np.linalg.solve(design.T @ design / NOISE**2 + own, design.T @ y / NOISE**2)
    error = found.std(dim=0).numpy() / np.sqrt(200)
    assert (np.abs(found.mean(dim=0).numpy() - expected) < ERRORS * error).all()


# Diagnostics -----------------------------------------------------------------------------------


def walks(draws, chains, correlation, seed=0):
    """(draws, chains, P) normal autoregressions with variance 1."""
    x = np.random.default_rng(seed).normal(size=(draws, chains, len(correlation)))
    for t in range(1, draws):
        x[t] = correlation * x[t - 1] + np.sqrt(1 - correlation**2) * x[t]
    return x


@pytest.mark.parametrize("draws", [500, 501])
def test_diagnostics_are_those_of_arviz(draws):
    """Number by number; the axes, and the two kinds that differ, are told apart."""
    x = walks(draws, 4, np.array([0, 0.3, 0.9, -0.5, 0.99, 0.7]))
    x[:, 0, 5] += 3  # a chain that stayed elsewhere
    theirs, options = x.transpose(1, 0, 2), {"tail": {"prob": (0.05, 0.95)}}
    expected = [array_stats.rhat(theirs[..., j]) for j in range(6)]
    assert_allclose(r_hat(x), expected, rtol=1e-9)
    assert_allclose(r_hat(x.reshape(draws, 4, 2, 3)).ravel(), expected, rtol=1e-9)
    for kind in ("mean", "sd", "tail"):
        expected = [
            array_stats.ess(theirs[..., j], method=kind, **options.get(kind, {})) for j in range(6)
        ]
        assert_allclose(effective_sample_size(x, kind), expected, rtol=1e-6)


def test_effective_sizes_are_those_of_an_autoregression():
    """Its squares have the correlations ρ^2t: sizes n (1-ρ)/(1+ρ) and n (1-ρ²)/(1+ρ²).

    Over 100 seeds the estimates are off by 5 % at most as a standard deviation.
    """
    rho, n = np.array([0.5, -0.5]), 4 * 5000
    x = walks(5000, 4, rho)
    for kind, r in (("mean", rho), ("sd", rho**2)):
        assert_allclose(effective_sample_size(x, kind), n * (1 - r) / (1 + r), rtol=0.3)


def test_r_hat_is_that_of_the_definition():
    """Two chains of four draws: half chains of ranks (1, 2), (3, 4) and (5, 6), (7, 8)."""
    scores = stats.norm.ppf((np.arange(1, 9) - 3 / 8) / 8.25).reshape(4, 2)
    within, between = scores.var(axis=1, ddof=1).mean(), 2 * scores.mean(axis=1).var(ddof=1)
    expected = np.sqrt((within / 2 + between / 2) / within)
    assert r_hat(np.array([[1, 50], [2, 60], [3, 70], [40, 80]])) == pytest.approx(expected)


@pytest.mark.parametrize("exponent", [-700, -30, 30, 700])
def test_units_do_not_matter(exponent):
    x = walks(100, 4, np.array([0.6]))
    scaled = 2.0**exponent * x
    for kind in ("mean", "sd", "tail"):
        assert effective_sample_size(scaled, kind) == effective_sample_size(x, kind)
    assert r_hat(scaled) == r_hat(x)


def test_what_never_changes_has_no_diagnostics():
    x = np.random.default_rng(0).normal(size=(20, 2, 3))
    x[..., 1] = 0.1
    for found in (r_hat(x), *(effective_sample_size(x, kind) for kind in ("mean", "sd", "tail"))):
        assert np.isnan(found).tolist() == [False, True, False]


def test_r_hat_sees_chains_of_different_spread():
    """Over 100 seeds 1.144, with a standard deviation of 0.010: nine of these above the limit."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1000, 4)) * [1, 1, 1, 3]
    assert r_hat(x) > 1.05


@pytest.mark.parametrize("samples", [np.zeros(10), np.full((10, 2), np.nan), "abc"])
def test_diagnostics_refuse_what_are_no_chains(samples):
    for function in (r_hat, effective_sample_size):
        with pytest.raises(ValueError, match=r"^samples: "):
            function(samples)


def test_too_few_draws_or_chains_have_no_diagnostics():
    x = walks(500, 1, np.array([0.0]))
    assert effective_sample_size(x) > 0
    assert np.isnan(r_hat(x))
    assert np.isnan(r_hat(walks(3, 2, np.array([0.0]))))
    assert np.isnan(effective_sample_size(walks(3, 2, np.array([0.0]))))


def test_there_are_three_kinds_of_effective_size():
    with pytest.raises(ValueError, match=r"^kind: must be one of 'mean', 'sd', 'tail'"):
        effective_sample_size(np.zeros((10, 2)), "median")


# Wrong arguments -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given_", "name"),
    [
        ({"sizes": (3, 2)}, "sizes"), ({"sizes": (1,)}, "sizes"), ({"noise": 0}, "noise"),
        ({"activation": "sine"}, "activation"),
    ],
)  # fmt: skip
def test_wrong_models(given_, name):
    with pytest.raises(ValueError, match=f"^{name}: "):
        RegressionModel(**{"sizes": (3, 1), "noise": 1.0} | given_)


def test_wrong_data_are_named():
    x, y = table()
    z = LINEAR.draw_prior(2)
    for function in (
        lambda *of: exact_linear(LINEAR, *of), lambda *of: find_map_estimates(LINEAR, *of, z),
        lambda *of: train_networks(LINEAR, *of, z), lambda *of: sample_hmc(LINEAR, *of, z),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=r"^x: has 2 columns, the model takes 3"):
            function(x[:, :2], y)
        with pytest.raises(ValueError, match=r"^y: has 19 values for 20"):
            function(x, y[:19])
        with pytest.raises(ValueError, match=r"^y: contains NaN"):
            function(x, y * np.nan)
    with pytest.raises(ValueError, match=r"^model: needs sizes"):
        exact_linear(SMALL, *curve())
    with pytest.raises(ValueError, match=r"^x: "):
        fit_laplace(LINEAR, x, z[0]).sample(x[:, :1])
    for function in (find_map_estimates, train_networks, sample_hmc):
        for start in (z[0], z[:, :3]):
            with pytest.raises(ValueError, match=r"^start: expected \(R, 4\) numbers"):
                function(LINEAR, x, y, start)


def test_old_names_still_work():
    x, z = torch.ones(2, 1), SMALL.draw_prior(1)
    with pytest.warns(DeprecationWarning, match=r"posterior\.find_map_estimates"):
        assert posterior.fit_maps is find_map_estimates
    with pytest.warns(DeprecationWarning, match="slopes is now jacobian"):
        assert torch.equal(SMALL.slopes(z, x), SMALL.jacobian(z, x))
    normal = posterior.Normal(torch.zeros(2), torch.eye(2))
    with pytest.warns(DeprecationWarning, match="draw is now sample"):
        assert torch.equal(normal.draw(3, 1), normal.sample(3, 1))


def test_chains_are_sampled_alike():
    """20,000 of 200 draws: each is expected 100 times; chi-square with p > 1e-8."""
    z = torch.arange(200.0).reshape(50, 4, 1)
    chains = posterior.Chains(z, torch.ones(4), torch.ones(4), 1)
    counts = chains.sample(20_000, seed=1)[:, 0].long().bincount(minlength=200)
    assert stats.chisquare(counts.numpy()).pvalue > 1e-8


@pytest.mark.parametrize("p", [0, 1, 1.5, "a"])
def test_masks_refuse_other_probabilities(p):
    with pytest.raises(ValueError, match=r"^p: "):
        draw_masks(SMALL, (2,), p, torch.Generator())


@pytest.mark.parametrize(
    ("function", "options"),
    [
        (sample_hmc, {"draws": 0}),
        (sample_hmc, {"warm_up": -1}),
        (sample_hmc, {"leapfrog": 0.5}),
        (sample_hmc, {"seed": -1}),
        (train_networks, {"steps": 0}),
        (find_map_estimates, {"iterations": 0}),
    ],
)
def test_wrong_options_are_named(function, options):
    x = np.random.default_rng(0).normal(size=(20, 3))
    start = RegressionModel((3, 1), 0.3, "none").draw_prior(2)
    with pytest.raises(ValueError, match=f"^{next(iter(options))}: "):
        function(RegressionModel((3, 1), 0.3, "none"), x, x[:, 0], start, **options)


# Mean-field variational inference ---------------------------------------------------------------


def test_mean_field_of_a_linear_model_has_the_mean_and_the_diagonal_precisions():
    """Bishop (2006), equations 10.13 to 10.15, with inputs that correlate (0.9)."""
    rng = np.random.default_rng(2)
    x = rng.normal(size=(20, 1)) + 0.3 * rng.normal(size=(20, 3))
    y = x @ [1.0, -1.0, 0.5] + 0.3 + NOISE * rng.normal(size=20)
    exact = exact_linear(LINEAR, x, y)
    found = fit_mean_field(LINEAR, x, y, LINEAR.draw_prior(2), draws=50, steps=3000, seed=1)
    precision = torch.linalg.inv(exact.covariance).diagonal()
    sd = exact.covariance.diagonal().sqrt()
    # Adam's last steps are 1e-2 sd and less; draws ± make the gradient of the mean exact.
    assert_allclose(found.mean, exact.mean.expand(2, 4), atol=0.02 * sd.min())
    assert_allclose(found.stddev, (precision**-0.5).expand(2, 4), rtol=0.03)
    assert (found.stddev < 0.8 * sd).any()  # narrower than the margins of the posterior


def test_mean_field_fits_each_network_to_its_own_data():
    x, y = curve()
    start = find_map_estimates(SMALL, x, y, SMALL.draw_prior(1))
    both = np.stack([x, -x]), np.stack([y, y])
    several = fit_mean_field(SMALL, *both, start.repeat(2, 1), steps=200, draws=5)
    torch.manual_seed(3)
    curves = several.sample((2000,))
    values = SMALL.outputs(curves.flatten(0, 1), x).numpy().reshape(2000, 2, -1).mean(axis=0)
    assert abs(values[0] - y).mean() < 0.25
    assert abs(values[1] - y).mean() > 0.4  # learned from mirrored inputs


def test_mean_field_raises_the_evidence_lower_bound():
    """Estimated by other draws: above that of the start, and below the log evidence."""
    x, y = table()
    found = fit_mean_field(LINEAR, x, y, torch.zeros(1, 4), steps=1500, draws=20)

    def bound(mean, sd):
        z = torch.distributions.Normal(mean, sd).sample((20_000,)).squeeze(1)
        normal = stats.norm.logpdf(y, LINEAR.outputs(z, x).numpy(), NOISE).sum(axis=1).mean()
        divergence = torch.distributions.kl_divergence(
            torch.distributions.Normal(mean, sd), torch.distributions.Normal(0.0, 1.0)
        )
        return normal - divergence.sum().item()

    torch.manual_seed(0)
    design = np.c_[x, np.ones(20)] * LINEAR.scale.numpy()
    covariance = design @ design.T + NOISE**2 * np.eye(20)
    evidence = stats.multivariate_normal.logpdf(y, np.zeros(20), covariance)
    best = bound(found.mean, found.stddev)
    assert bound(torch.zeros(1, 4), torch.full((1, 4), 0.05)) < best - 10
    assert evidence - 3 < best < evidence + 0.1


def test_mean_field_refuses_what_does_not_fit():
    x, y = curve()
    for change, name in (({"steps": 0}, "steps"), ({"draws": 0}, "draws"), ({"seed": -1}, "seed")):
        with pytest.raises(ValueError, match=f"^{name}: "):
            fit_mean_field(SMALL, x, y, SMALL.draw_prior(1), **change)
    with pytest.raises(ValueError, match=r"^start: expected \(R, 13\)"):
        fit_mean_field(SMALL, x, y, torch.zeros(1, 4))
