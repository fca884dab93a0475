"""Least squares against certified values, statsmodels, scipy, algebra and repeated sampling."""

from fractions import Fraction

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.testing import assert_allclose
from scipy import optimize, stats
from strategies import (
    GARBAGE,
    LEVELS,
    QUANTILES,
    arguments,
    assert_finite,
    designs,
    finite_or_named,
    vectors,
)

from mcunc import linear
from mcunc.linear import (
    covers,
    fit_heteroscedastic,
    fit_least_squares,
    fit_repeated,
    polynomial_features,
    scaled_qr,
)

# NIST Statistical Reference Datasets, https://www.itl.nist.gov/div898/strd/lls/lls.shtml:
# y, x of Norris (a calibration of ozone monitors), and the certified values.
NORRIS = np.array(
    [
        [0.1, 0.2], [338.8, 337.4], [118.1, 118.2], [888.0, 884.6], [9.2, 10.1], [228.1, 226.5],
        [668.5, 666.3], [998.5, 996.3], [449.1, 448.6], [778.9, 777.0], [559.2, 558.2], [0.3, 0.4],
        [0.1, 0.6], [778.1, 775.5], [668.8, 666.9], [339.3, 338.0], [448.9, 447.5], [10.8, 11.6],
        [557.7, 556.0], [228.3, 228.1], [998.0, 995.8], [888.8, 887.6], [119.6, 120.2], [0.3, 0.3],
        [0.6, 0.3], [557.6, 556.8], [339.3, 339.1], [888.0, 887.2], [998.5, 999.0], [778.9, 779.0],
        [10.2, 11.1], [117.6, 118.3], [228.9, 229.2], [668.4, 669.1], [449.2, 448.9], [0.2, 0.5],
    ]
)  # fmt: skip
NORRIS_B = [-0.262323073774029, 1.00211681802045]
NORRIS_SD = [0.232818234301152, 0.429796848199937e-03]
NORRIS_RESIDUAL_SD = 0.884796396144373
# Longley: intercept, GNP deflator, GNP, unemployed, armed forces, population, year.
LONGLEY_B = [
    -3482258.63459582, 15.0618722713733, -0.358191792925910e-01, -2.02022980381683,
    -1.03322686717359, -0.511041056535807e-01, 1829.15146461355,
]  # fmt: skip
LONGLEY_SD = [
    890420.383607373, 84.9149257747669, 0.334910077722432e-01, 0.488399681651699,
    0.214274163161675, 0.226073200069370, 455.478499142212,
]  # fmt: skip
LONGLEY_RESIDUAL_SD = 304.854073561965
# Filip: y and x, for a polynomial of degree 10.
FILIP_Y = [
    0.8116, 0.9072, 0.9052, 0.9039, 0.8053, 0.8377, 0.8667, 0.8809, 0.7975, 0.8162, 0.8515, 0.8766,
    0.8885, 0.8859, 0.8959, 0.8913, 0.8959, 0.8971, 0.9021, 0.909, 0.9139, 0.9199, 0.8692, 0.8872,
    0.89, 0.891, 0.8977, 0.9035, 0.9078, 0.7675, 0.7705, 0.7713, 0.7736, 0.7775, 0.7841, 0.7971,
    0.8329, 0.8641, 0.8804, 0.7668, 0.7633, 0.7678, 0.7697, 0.77, 0.7749, 0.7796, 0.7897, 0.8131,
    0.8498, 0.8741, 0.8061, 0.846, 0.8751, 0.8856, 0.8919, 0.8934, 0.894, 0.8957, 0.9047, 0.9129,
    0.9209, 0.9219, 0.7739, 0.7681, 0.7665, 0.7703, 0.7702, 0.7761, 0.7809, 0.7961, 0.8253, 0.8602,
    0.8809, 0.8301, 0.8664, 0.8834, 0.8898, 0.8964, 0.8963, 0.9074, 0.9119, 0.9228,
]  # fmt: skip
FILIP_X = [
    -6.860120914, -4.324130045, -4.358625055, -4.358426747, -6.955852379, -6.661145254,
    -6.355462942, -6.118102026, -7.115148017, -6.815308569, -6.519993057, -6.204119983,
    -5.853871964, -6.109523091, -5.79832982, -5.482672118, -5.171791386, -4.851705903, -4.517126416,
    -4.143573228, -3.709075441, -3.499489089, -6.300769497, -5.953504836, -5.642065153,
    -5.031376979, -4.680685696, -4.329846955, -3.928486195, -8.56735134, -8.363211311, -8.107682739,
    -7.823908741, -7.522878745, -7.218819279, -6.920818754, -6.628932138, -6.323946875,
    -5.991399828, -8.781464495, -8.663140179, -8.473531488, -8.247337057, -7.971428747,
    -7.676129393, -7.352812702, -7.072065318, -6.774174009, -6.478861916, -6.159517513,
    -6.835647144, -6.53165267, -6.224098421, -5.910094889, -5.598599459, -5.290645224, -4.974284616,
    -4.64454848, -4.290560426, -3.885055584, -3.408378962, -3.13200249, -8.726767166, -8.66695597,
    -8.511026475, -8.165388579, -7.886056648, -7.588043762, -7.283412422, -6.995678626,
    -6.691862621, -6.392544977, -6.067374056, -6.684029655, -6.378719832, -6.065855188,
    -5.752272167, -5.132414673, -4.811352704, -4.098269308, -3.66174277, -3.2644011,
]  # fmt: skip
FILIP_B = [
    -1467.48961422980, -2772.17959193342, -2316.37108160893, -1127.97394098372, -354.478233703349,
    -75.1242017393757, -10.8753180355343, -1.06221498588947, -0.670191154593408e-01,
    -0.246781078275479e-02, -0.402962525080404e-04,
]  # fmt: skip
FILIP_SD = [
    298.084530995537, 559.779865474950, 466.477572127796, 227.204274477751, 71.6478660875927,
    15.2897178747400, 2.23691159816033, 0.221624321934227, 0.142363763154724e-01,
    0.535617408889821e-03, 0.896632837373868e-05,
]  # fmt: skip
FILIP_RESIDUAL_SD = 0.334801051324544e-02

# Chapter 2's worked example: x = ±1, ±2, ±3.
SIX = np.array([-3.0, -2, -1, 1, 2, 3])
SIX_DESIGN = np.column_stack([np.ones(6), SIX])


def line(x):
    return np.column_stack([np.ones(len(x)), x])


def noisy(n=30, k=4, seed=0):
    rng = np.random.default_rng(seed)
    X = np.column_stack([np.ones(n), rng.normal(size=(n, k - 1))])
    return X, X @ rng.normal(size=k) + rng.normal(size=n)


# Certified values -----------------------------------------------------------------------------


def longley():
    data = sm.datasets.longley.load_pandas()
    columns = data.exog[["GNPDEFL", "GNP", "UNEMP", "ARMED", "POP", "YEAR"]].to_numpy(float)
    return np.column_stack([np.ones(16), columns]), data.endog.to_numpy(float)


@pytest.mark.parametrize(
    ("X", "y", "coefficients", "errors", "residual_sd"),
    [
        pytest.param(*longley(), LONGLEY_B, LONGLEY_SD, LONGLEY_RESIDUAL_SD, id="longley"),
        pytest.param(
            line(NORRIS[:, 1]), NORRIS[:, 0], NORRIS_B, NORRIS_SD, NORRIS_RESIDUAL_SD, id="norris"
        ),
    ],
)
def test_certified_values_to_ten_digits(X, y, coefficients, errors, residual_sd):
    fit = fit_least_squares(X, y)
    assert_allclose(fit.coefficients, coefficients, rtol=1e-10)
    assert_allclose(fit.standard_errors, errors, rtol=1e-10)
    assert_allclose(np.sqrt(fit.noise_variance), residual_sd, rtol=1e-10)
    many = fit_repeated(X, np.stack([y, y]))
    assert_allclose(many.coefficients[1], coefficients, rtol=1e-9)
    assert_allclose(many.standard_errors[1], errors, rtol=1e-10)


def rational_least_squares(X, y):
    """The normal equations solved without any rounding."""
    X, y = [[Fraction(v) for v in row] for row in X.tolist()], [Fraction(v) for v in y.tolist()]
    k = len(X[0])
    rows = [
        [sum(r[i] * r[j] for r in X) for j in range(k)]
        + [sum(r[i] * v for r, v in zip(X, y, strict=True))]
        for i in range(k)
    ]
    for i in range(k):
        rows[i] = [value / rows[i][i] for value in rows[i]]
        for j in set(range(k)) - {i}:
            rows[j] = [a - rows[j][i] * b for a, b in zip(rows[j], rows[i], strict=True)]
    return np.array([float(row[k]) for row in rows])


def test_a_badly_conditioned_polynomial_against_exact_fractions():
    """Degree 10 on 0 … 20: LAPACK's least squares keeps three digits, refinement eight or more."""
    X = polynomial_features(np.arange(21.0), 10)
    y = X.sum(axis=1) + np.random.default_rng(0).integers(-(10**5), 10**5, 21)
    extended = np.finfo(np.longdouble).eps < np.finfo(float).eps
    exact = rational_least_squares(X, y)
    assert_allclose(fit_least_squares(X, y).coefficients, exact, rtol=2e-9 if extended else 1e-6)


def test_filip_to_seven_digits():
    """The hardest of NIST's: condition number 5e9 after scaling, where LAPACK keeps few digits."""
    fit = fit_least_squares(polynomial_features(FILIP_X, 10), FILIP_Y)
    extended = np.finfo(np.longdouble).eps < np.finfo(float).eps
    assert_allclose(fit.coefficients, FILIP_B, rtol=1e-7 if extended else 1e-5)
    assert_allclose(fit.standard_errors, FILIP_SD, rtol=1e-7)
    assert_allclose(np.sqrt(fit.noise_variance), FILIP_RESIDUAL_SD, rtol=1e-7)


@pytest.mark.parametrize("gap", [1.0, 0.1, 0.03, 0.01, 1e-3, 1e-5])
def test_nearly_dependent_columns_against_exact_fractions(gap):
    """On both sides of the condition number at which the factorisation changes."""
    rng = np.random.default_rng(0)
    x = rng.integers(-50, 50, 40) / 64
    X = np.column_stack([np.ones(40), x, x + gap * rng.normal(size=40)])
    y = rng.integers(-9, 9, 40) / 4
    exact = rational_least_squares(X, y)
    assert_allclose(fit_least_squares(X, y).coefficients, exact, rtol=1e-12 / gap)


# The worked example ---------------------------------------------------------------------------


def worked_example():
    """Data on x = ±1, ±2, ±3 with coefficients (1.254, .731) and RSS = 4 by construction."""
    pattern = np.array([1.0, -2, 1, 1, -2, 1])  # orthogonal to 1 and to x
    assert (pattern @ SIX_DESIGN == 0).all()
    residuals = 2 * pattern / np.linalg.norm(pattern)
    return SIX_DESIGN @ [1.254, 0.731] + residuals


def test_worked_example():
    y = worked_example()
    known = fit_least_squares(SIX_DESIGN, y, noise_variance=1.0)
    assert_allclose(known.covariance, np.diag([1 / 6, 1 / 28]), atol=1e-15)
    fit = fit_least_squares(SIX_DESIGN, y)
    assert_allclose(fit.coefficients, [1.254, 0.731], rtol=1e-14)
    assert fit.degrees_of_freedom == 4
    assert_allclose(fit.noise_variance, 1.0, rtol=1e-14)
    assert_allclose(fit.interval(0.95, "normal")[1].round(2), [0.36, 1.10])
    assert_allclose(fit.interval(0.95, "t")[1].round(2), [0.21, 1.26])


def test_known_noise_variance_makes_t_and_normal_agree():
    X, y = noisy()
    fit = fit_least_squares(X, y, noise_variance=2.0)
    assert fit.degrees_of_freedom == np.inf
    assert_allclose(fit.interval(0.9, "t"), fit.interval(0.9, "normal"), rtol=1e-14)
    many = fit_repeated(X, np.stack([y, 2 * y]), noise_variance=2.0)
    assert_allclose(many.interval(0.9, "t"), many.interval(0.9, "normal"), rtol=1e-14)
    square = fit_least_squares([[1.0, 0], [1, 1]], [3.0, 5.0], noise_variance=1.0)  # n = k
    assert_allclose(square.coefficients, [3, 2])


# Other libraries ------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_intervals_equal_statsmodels(seed):
    X, y = noisy(seed=seed)
    new = np.random.default_rng(9).normal(size=(7, 4))
    fit, reference = fit_least_squares(X, y), sm.OLS(y, X).fit()
    assert_allclose(fit.covariance, reference.cov_params(), rtol=1e-10)
    assert_allclose(fit.interval(0.9), reference.conf_int(0.1), rtol=1e-10)
    frame = reference.get_prediction(new).summary_frame(alpha=0.1)
    prediction = fit.predict(new)
    mean, observation = prediction.mean_interval(0.9), prediction.observation_interval(0.9)
    assert_allclose(prediction.mean, frame["mean"], atol=1e-10)
    assert_allclose(np.sqrt(prediction.epistemic), frame["mean_se"], atol=1e-10)
    assert_allclose(mean, frame[["mean_ci_lower", "mean_ci_upper"]], atol=1e-10)
    assert_allclose(observation, frame[["obs_ci_lower", "obs_ci_upper"]], atol=1e-10)


@given(designs(min_rows=3), st.data())
def test_residuals_are_orthogonal_to_the_design(X, data):
    """The normal equations, Xᵀ(y - Xβ) = 0, on whatever design is accepted."""
    y = data.draw(hnp.arrays(np.float64, len(X), elements=st.floats(-100, 100)))
    fit = finite_or_named(lambda: fit_least_squares(X, y), ["X", "y"])
    if fit is not None and np.linalg.cond(X / np.linalg.norm(X, axis=0)) < 1e6:
        unit = X / np.linalg.norm(X, axis=0)
        assert np.abs(unit.T @ fit.residuals).max() <= 1e-8 * (1 + np.abs(y).max())


# Repeated sampling ----------------------------------------------------------------------------


@pytest.mark.parametrize("noise_variance", [None, 0.7])
@pytest.mark.parametrize("varying", [False, True])
def test_fit_repeated_equals_a_loop(varying, noise_variance):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(5, 12, 3)) if varying else rng.normal(size=(12, 3))
    Y, new = rng.normal(size=(5, 12)), rng.normal(size=(4, 3))
    many = fit_repeated(X, Y, noise_variance)
    prediction, interval = many.predict(new), many.interval(0.8)
    assert prediction.observation_interval().shape == (5, 4, 2)
    for t in range(5):
        one = fit_least_squares(X[t] if varying else X, Y[t], noise_variance)
        assert_allclose(many.coefficients[t], one.coefficients, rtol=1e-10)
        assert_allclose(many.standard_errors[t], one.standard_errors, rtol=1e-10)
        assert_allclose(many.noise_variance[t], one.noise_variance, rtol=1e-10)
        assert many.degrees_of_freedom == one.degrees_of_freedom
        assert_allclose(interval[t], one.interval(0.8), rtol=1e-10)
        for part in ("mean", "epistemic", "aleatoric", "variance"):
            assert_allclose(
                getattr(prediction, part)[t], getattr(one.predict(new), part), rtol=1e-9
            )


def simulate(n, varying, draws=4000, seed=0):
    rng = np.random.default_rng([seed, n, varying])
    x = rng.normal(size=(draws, n) if varying else n)
    X = np.stack([np.ones_like(x), x], axis=-1)
    return fit_repeated(X, 1.0 + 2.0 * x + 0.5 * rng.normal(size=(draws, n)))


@pytest.mark.parametrize("varying", [False, True])
@pytest.mark.parametrize(("n", "published"), [(5, 0.855), (10, 0.914), (20, 0.934), (100, 0.947)])
def test_coverage(n, published, varying):
    """t covers 95 %; the normal covers what Student's distribution says of 1.96 at n - 2.

    False alarms: 64 binomial comparisons in all, each 1e-8.
    """
    exact = 1 - 2 * stats.t.sf(stats.norm.isf(0.025), n - 2)
    assert exact == pytest.approx(published, abs=6e-4)  # REFERENCES.md
    fits = simulate(n, varying)
    truth, x_new = np.array([1.0, 2.0]), np.array([[1.0, 0.7]])
    prediction = fits.predict(x_new)
    for quantile, nominal in (("t", 0.95), ("normal", exact)):
        noise = 0.5 * np.random.default_rng(1).normal(size=(len(fits.coefficients), 1))
        mean = prediction.mean_interval(0.95, quantile)
        ends = prediction.observation_interval(0.95, quantile)
        hits = np.column_stack([
            covers(fits.interval(0.95, quantile), truth), covers(mean, x_new @ truth),
            covers(ends, x_new @ truth + noise),
        ])  # fmt: skip
        low, high = stats.binom.interval(1 - 1e-8, len(hits), nominal)
        assert ((low <= hits.sum(axis=0)) & (hits.sum(axis=0) <= high)).all()


def test_noise_variance_is_unbiased_and_the_covariance_is_the_truth():
    """Within six standard errors: a false alarm in 10^8."""
    fits = simulate(10, varying=False, draws=20000)
    s2 = fits.noise_variance
    assert abs(s2.mean() - 0.25) < 6 * s2.std() / np.sqrt(len(s2))
    theory = 0.25 * np.square(fits._r_inverse).sum(axis=1)  # σ² diag (XᵀX)⁻¹
    assert_allclose(fits.coefficients.var(axis=0), theory, rtol=6 * np.sqrt(2 / len(s2)))


# Algebra --------------------------------------------------------------------------------------


@given(designs(min_rows=4), st.floats(0.1, 10))
def test_mean_leverage_is_k_over_n(X, noise_variance):
    y = np.zeros(len(X))
    fit = finite_or_named(lambda: fit_least_squares(X, y, noise_variance), ["X", "y"])
    if fit is None:
        return
    n, k = X.shape
    if np.linalg.cond(X / np.linalg.norm(X, axis=0)) < 1e6:
        epistemic = fit.predict(X).epistemic
        assert_allclose(epistemic.mean(), noise_variance * k / n, rtol=1e-6)
        assert (epistemic <= noise_variance * (1 + 1e-6)).all()


@given(
    hnp.arrays(np.float64, 3, elements=st.sampled_from([1e-8, 1e-3, 1.0, 7.0, 1e5, 1e8, -2.0])),
    st.sampled_from([1e-8, 1.0, 1e8]),
)
def test_units_do_not_matter(units, y_unit):
    X, y = noisy(k=3)
    fit, other = fit_least_squares(X, y), fit_least_squares(X * units, y * y_unit)
    assert_allclose(other.coefficients * units, fit.coefficients * y_unit, rtol=1e-9)
    assert_allclose(other.noise_variance, fit.noise_variance * y_unit**2, rtol=1e-9)
    outer = np.outer(units, units)
    assert_allclose(
        other.covariance * outer, fit.covariance * y_unit**2, rtol=1e-8, atol=1e-12 * y_unit**2
    )
    ours = other.predict(X * units).observation_interval()
    assert_allclose(ours, fit.predict(X).observation_interval() * y_unit, rtol=1e-8)


def test_variance_is_the_sum_of_its_parts():
    X, y = noisy()
    prediction = fit_least_squares(X, y).predict(X)
    assert_allclose(prediction.variance, prediction.epistemic + prediction.aleatoric)
    assert (prediction.epistemic > 0).all()
    assert np.ptp(prediction.aleatoric) == 0


# Designs that do not determine the coefficients -----------------------------------------------


def dummies(n=12):
    return np.column_stack([np.ones(n), *(np.arange(n) % 3 == group for group in range(3))])


UNITS = [1.0, 1e-8, 1e8]


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize(
    "X",
    [
        pytest.param(np.column_stack([np.ones(8), np.arange(8), np.arange(8)]), id="duplicate"),
        pytest.param(dummies(), id="dummy trap"),
        pytest.param(
            np.column_stack([np.ones(9), np.arange(9), 3 + 0.1 * np.arange(9)]), id="affine"
        ),
        pytest.param(np.vander(np.arange(12.0) % 4, 5), id="degree 4 on 4 distinct points"),
        pytest.param(np.vander(np.arange(12.0) % 4 / 3, 6), id="degree 5 on 4 distinct points"),
        pytest.param(
            np.column_stack([np.ones(8), np.arange(8), np.arange(8) * (1 + 1e-16)]), id="nearly"
        ),
    ],
)
def test_rank_deficient_designs_are_refused(X, unit):
    rng = np.random.default_rng(0)
    X = X * np.r_[np.ones(X.shape[1] - 1), unit]
    y = rng.normal(size=len(X))
    with pytest.raises(ValueError, match="X: is rank deficient"):
        fit_least_squares(X, y)
    good = rng.normal(size=X.shape)
    with pytest.raises(ValueError, match="X: is rank deficient"):
        fit_repeated(np.stack([good, X]), np.stack([y, y]))
    with pytest.raises(ValueError, match="Z: is rank deficient"):
        fit_heteroscedastic(line(rng.normal(size=len(X))), y, X)


@given(
    st.integers(3, 12).flatmap(
        lambda n: hnp.arrays(np.float64, (n, 2), elements=st.integers(-9, 9).map(float))
    ),
    st.tuples(st.floats(-3, 3), st.floats(-3, 3)),
    st.permutations(range(3)),
)
def test_a_linear_combination_is_always_found(pair, weights, order):
    X = np.column_stack([pair, pair @ weights])[:, list(order)]
    y = np.arange(len(X), dtype=float)
    with pytest.raises(ValueError, match=r"X: (is rank|3 rows|values are too)"):
        fit_least_squares(X, y)


@pytest.mark.parametrize("unit", UNITS)
def test_small_and_large_units_are_no_reason_to_refuse(unit):
    X, y = noisy()
    assert fit_least_squares(X * [1, unit, 1, 1], y).coefficients.shape == (4,)
    close = np.column_stack([np.ones(8), np.arange(8), np.arange(8) + 1e-6 * np.sin(np.arange(8))])
    assert fit_least_squares(close * [1, unit, unit], y[:8]).coefficients.shape == (3,)


def test_too_few_rows_and_zero_columns_are_refused():
    with pytest.raises(ValueError, match="X: 2 rows are too few for 2 coefficients"):
        fit_least_squares([[1.0, 0], [1, 1]], [1.0, 2])
    with pytest.raises(ValueError, match="X: 1 rows are too few for 2 coefficients"):
        fit_least_squares([[1.0, 0]], [1.0], noise_variance=1.0)
    with pytest.raises(ValueError, match=r"X: is rank deficient \(a column is zero"):
        fit_least_squares([[1.0, 0], [1, 0], [1, 0]], [1.0, 2, 3])
    with pytest.raises(ValueError, match="X: 2 rows are too few"):
        fit_repeated(np.ones((2, 2)), np.ones((5, 2)))
    with pytest.raises(ValueError, match="Y: has shape"):
        fit_repeated(np.ones((4, 6, 2)), np.ones((5, 6)))
    with pytest.raises(ValueError, match="X: 2 rows are too few"):
        scaled_qr(np.ones((2, 3)))


def test_residuals_whose_squares_leave_float64_are_refused():
    X, y = noisy()
    with pytest.raises(ValueError, match=r"X or y: .* too large"):
        fit_least_squares(X, y * 1e200)
    with pytest.raises(ValueError, match=r"X or Y: .* too large"):
        fit_repeated(X, np.stack([y, y * 1e200]))


@given(designs(min_rows=3, max_columns=3))
def test_scaled_qr_reassembles(X):
    result = finite_or_named(lambda: scaled_qr(X), ["X"])
    if result is not None:
        Q, R, scale = result
        k = X.shape[1]
        assert_allclose(Q.T @ Q, np.eye(k), atol=1e-13)
        assert (np.tril(R, -1) == 0).all()
        assert_allclose(Q @ R, X / scale, atol=1e-13)


def test_polynomial_features():
    expected = [[1, 2, 4, 8], [1, -3, 9, -27]]
    assert_allclose(polynomial_features([2.0, -3.0], 3), expected)
    assert_allclose(polynomial_features([0.0, 7.0], 0), [[1], [1]])


# Unequal noise --------------------------------------------------------------------------------


def unequal_noise(n, seed=0, gamma=(-1.0, 1.5)):
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1, 1, size=n)
    return line(x), line(x) @ [1.0, 2.0] + np.exp(line(x) @ gamma / 2) * rng.normal(size=n)


@pytest.mark.parametrize("seed", range(3))
def test_heteroscedastic_fit_is_the_maximum_of_the_likelihood(seed):
    """Against a general optimiser of scipy.stats' normal density."""
    X, y = unequal_noise(80, seed)

    def negative(parameters):
        scale = np.exp(X @ parameters[2:] / 2)
        return -stats.norm.logpdf(y, X @ parameters[:2], scale).sum()

    start = np.r_[np.linalg.lstsq(X, y, rcond=None)[0], 0.0, 0.0]
    best = optimize.minimize(negative, start, method="BFGS", options={"gtol": 1e-7})
    fit = fit_heteroscedastic(X, y, X)
    ours = np.r_[fit.coefficients, fit.log_variance_coefficients]
    assert_allclose(ours, best.x, atol=1e-5)
    assert_allclose(fit.log_likelihood, -best.fun, rtol=1e-10)
    assert negative(ours) <= best.fun + 1e-9
    weights = np.exp(-(X @ fit.log_variance_coefficients))
    reference = np.linalg.inv(X.T @ (weights[:, None] * X))
    assert_allclose(fit.covariance, reference, rtol=1e-6)


def test_heteroscedastic_with_constant_noise_is_least_squares():
    X, y = noisy()
    fit, plain = fit_heteroscedastic(X, y, np.ones((len(y), 1))), fit_least_squares(X, y)
    assert_allclose(fit.coefficients, plain.coefficients, rtol=1e-10)
    rss = np.square(plain.residuals).sum()
    assert_allclose(np.exp(fit.log_variance_coefficients), rss / len(y), rtol=1e-6)
    prediction = fit.predict(X, np.ones((len(y), 1)))
    assert_allclose(prediction.aleatoric, rss / len(y), rtol=1e-6)
    reference = sm.OLS(y, X).fit()
    assert_allclose(fit.log_likelihood, reference.llf, rtol=1e-10)


def test_heteroscedastic_finds_the_truth_in_large_samples():
    """Within six standard errors: a false alarm in 10^8."""
    n = 40000
    X, y = unequal_noise(n)
    fit = fit_heteroscedastic(X, y, X)
    assert (np.abs(fit.coefficients - [1, 2]) < 6 * np.sqrt(np.diag(fit.covariance))).all()
    gamma_error = np.sqrt(2 * np.diag(np.linalg.inv(X.T @ X)))  # Harvey (1976): 2 (ZᵀZ)⁻¹
    assert (np.abs(fit.log_variance_coefficients - [-1, 1.5]) < 6 * gamma_error).all()
    prediction = fit.predict([[1.0, 0.5]], [[1.0, 0.5]])
    error = np.sqrt(2 * np.array([1, 0.5]) @ np.linalg.inv(X.T @ X) @ [1, 0.5])
    assert np.abs(np.log(prediction.aleatoric) - (-1 + 1.5 * 0.5)) < 6 * error
    assert prediction.degrees_of_freedom == np.inf


@pytest.mark.parametrize("seed", [0, 14, 16])
def test_heteroscedastic_solves_the_score_equations_with_heavy_tails(seed):
    """Full scoring steps overshoot here: they lower the likelihood and have to be halved."""
    rng = np.random.default_rng(seed)
    x = rng.standard_t(2, size=20)
    X, y = line(x), 1 + 2 * x + np.exp(0.5 * x) * rng.normal(size=20)
    fit = fit_heteroscedastic(X, y, X)
    variance = np.exp(X @ fit.log_variance_coefficients)
    error = y - X @ fit.coefficients
    assert_allclose(X.T @ (error / variance), 0, atol=1e-6 * np.abs(X.T / variance).max())
    assert_allclose(X.T @ (np.square(error) / variance - 1), 0, atol=1e-4)


def test_unbounded_likelihood_is_refused():
    """One case with a mean and a variance of its own: its density grows without bound."""
    x = np.linspace(-1, 1, 12)
    own = np.eye(12)[5]
    y = x + np.sin(7 * np.arange(12.0))
    X, Z = np.column_stack([np.ones(12), x, own]), np.column_stack([np.ones(12), own])
    with pytest.raises(ValueError, match="Z: no maximum"):
        fit_heteroscedastic(X, y, Z)
    with pytest.raises(ValueError, match="y: X reproduces it exactly"):
        fit_heteroscedastic(X, X @ [1.0, 2.0, 3.0], Z)


# Anything at all ------------------------------------------------------------------------------

MAYBE_VARIANCE = st.one_of(st.none(), st.floats(1e-3, 1e3), st.sampled_from([0.0, 1e-300, 1e300]))


def check_prediction(prediction, shape, level, quantile):
    assert_finite(
        shape, prediction.mean, prediction.epistemic, prediction.aleatoric, prediction.variance
    )
    for method in (prediction.mean_interval, prediction.observation_interval):
        ends = finite_or_named(lambda m=method: m(level, quantile), ["level", "quantile"])
        if ends is not None:
            assert_finite((*shape, 2), ends)
            assert (ends[..., 0] <= ends[..., 1]).all()


@given(st.data())
def test_fit_least_squares_on_anything(data):
    X = data.draw(designs())
    good = arguments(X=st.just(X), y=vectors(len(X)), noise_variance=MAYBE_VARIANCE)
    given_ = data.draw(good)
    fit = finite_or_named(lambda: fit_least_squares(**given_), ["X", "y", "noise_variance"])
    if fit is None:
        return
    k = np.shape(given_["X"])[1]
    assert_finite((k,), fit.coefficients, fit.standard_errors)
    assert_finite((k, k), fit.covariance)
    assert_finite((len(given_["X"]),), fit.residuals)
    options = data.draw(arguments(level=LEVELS, quantile=QUANTILES))
    ends = finite_or_named(lambda: fit.interval(**options), ["level", "quantile"])
    if ends is not None:
        assert_finite((k, 2), ends)
    new = data.draw(st.one_of(designs(max_columns=k), st.just(given_["X"]), GARBAGE))
    prediction = finite_or_named(lambda: fit.predict(new), ["X"])
    if prediction is not None:
        check_prediction(prediction, (len(new),), *options.values())


@given(st.data())
def test_fit_repeated_on_anything(data):
    X, T = data.draw(designs()), data.draw(st.integers(1, 3))
    if data.draw(st.booleans()):
        X = np.stack([X] * T)
    n, k = X.shape[-2:]
    good = arguments(
        X=st.just(X), Y=vectors(T * n).map(lambda v: v.reshape(T, n)), noise_variance=MAYBE_VARIANCE
    )
    given_ = data.draw(good)
    fits = finite_or_named(lambda: fit_repeated(**given_), ["X", "Y", "noise_variance"])
    if fits is None:
        return
    T, k = len(given_["Y"]), np.shape(given_["X"])[-1]
    assert_finite((T, k), fits.coefficients, fits.standard_errors)
    assert_finite((T,), fits.noise_variance)
    options = data.draw(arguments(level=LEVELS, quantile=QUANTILES))
    ends = finite_or_named(lambda: fits.interval(**options), ["level", "quantile"])
    if ends is not None:
        assert_finite((T, k, 2), ends)
    new = data.draw(st.one_of(designs(max_columns=k), GARBAGE))
    prediction = finite_or_named(lambda: fits.predict(new), ["X"])
    if prediction is not None:
        check_prediction(prediction, (T, len(new)), *options.values())


@given(st.data())
def test_fit_heteroscedastic_on_anything(data):
    X = data.draw(designs(min_rows=4))
    Z = data.draw(st.one_of(st.just(np.ones((len(X), 1))), st.just(X), designs(min_rows=4)))
    good = arguments(X=st.just(X), y=vectors(len(X)), Z=st.just(Z))
    given_ = data.draw(good)
    fit = finite_or_named(lambda: fit_heteroscedastic(**given_), list(given_))
    if fit is None:
        return
    k, q = np.shape(given_["X"])[1], np.shape(given_["Z"])[1]
    assert_finite((k,), fit.coefficients)
    assert_finite((k, k), fit.covariance)
    assert_finite((q,), fit.log_variance_coefficients)
    assert_finite((), fit.log_likelihood)
    new = data.draw(arguments(X=designs(max_columns=k), Z=designs(max_columns=q)))
    prediction = finite_or_named(lambda: fit.predict(**new), ["X", "Z", "X or Z"])
    if prediction is not None:
        check_prediction(prediction, (len(new["X"]),), 0.95, "t")


@given(arguments(x=vectors(4), degree=st.integers(-1, 1)))
def test_polynomial_features_on_anything(given_):
    features = finite_or_named(lambda: polynomial_features(**given_), ["x", "degree"])
    if features is not None:
        assert_finite((len(given_["x"]), given_["degree"] + 1), features)


def test_covers_counts_both_ends():
    ends = [[0.0, 1.0], [2.0, 2.0], [3.0, 1.0]]
    assert covers(ends, 1.0).tolist() == [True, False, False]
    assert covers(ends, [0.0, 2.0, 2.0]).tolist() == [True, True, False]
    assert covers(ends, [[0.5], [2.0]]).tolist() == [[True, False, False], [False, True, False]]
    assert covers([0.0, 1.0], 0.0)


@given(
    arguments(
        interval=st.one_of(designs(), vectors(2)),
        value=st.one_of(vectors(3), st.floats(-2, 2), vectors(1)),
    )
)
def test_covers_on_anything(given_):
    hits = finite_or_named(lambda: covers(**given_), ["interval", "value"])
    if hits is not None:
        shape = np.broadcast_shapes(np.shape(given_["interval"])[:-1], np.shape(given_["value"]))
        assert hits.shape == shape
        assert hits.dtype == bool


@given(st.one_of(designs(), GARBAGE))
def test_scaled_qr_on_anything(X):
    result = finite_or_named(lambda: scaled_qr(X), ["X"])
    if result is not None:
        *lead, n, k = np.shape(X)
        assert_finite((*lead, n, k), result[0])
        assert_finite((*lead, k, k), result[1])
        assert_finite((*lead, k), result[2])


def test_the_prediction_of_a_caller_is_checked_too():
    made = linear.Prediction(np.zeros(2), np.ones(2), np.ones(2), 5.0)
    with pytest.raises(ValueError, match="level"):
        made.mean_interval(1.5)
    with pytest.raises(ValueError, match="quantile"):
        made.observation_interval(0.5, "student")


# Robust errors and influence ------------------------------------------------------------------


def fair():
    """Hours, income and age of 601 marriages in the Fair (1978) data, for a design of any kind."""
    raw = sm.datasets.fair.load_pandas().data.to_numpy(float)[::10]
    X = np.column_stack([np.ones(len(raw)), raw[:, [1, 2, 3]]])
    return X, raw[:, -1], raw[:, 4]  # the rating of religion as group


@pytest.mark.parametrize("problem", ["fair", "longley"])
def test_sandwiches_are_those_of_statsmodels(problem):
    X, y = fair()[:2] if problem == "fair" else longley()
    theirs = sm.OLS(y, X).fit(cov_type="HC3")
    ours = linear.robust_covariance(X, y)
    tolerance = 1e-9 if problem == "fair" else 1e-5  # theirs loses digits on Longley
    assert_allclose(np.sqrt(np.diag(ours)), theirs.bse, rtol=tolerance)
    if problem == "fair":
        assert_allclose(ours, theirs.cov_params(), rtol=1e-8)


def test_clustered_errors_are_those_of_statsmodels():
    X, y, groups = fair()
    theirs = sm.OLS(y, X).fit(cov_type="cluster", cov_kwds={"groups": groups})
    assert_allclose(linear.robust_covariance(X, y, groups=groups), theirs.cov_params(), rtol=1e-8)
    names = np.array(list("abcdefgh"))[groups.astype(int)]
    order = np.random.default_rng(0).permutation(len(y))
    moved = linear.robust_covariance(X[order], y[order], groups=names[order])
    assert_allclose(moved, theirs.cov_params(), rtol=1e-8)


def test_groups_of_one_are_the_simplest_sandwich():
    """Up to the factor for few groups, n / (n - 1) · (n - 1) / (n - k): HC1."""
    X, y, _ = fair()
    alone = linear.robust_covariance(X, y, groups=np.arange(len(y)))
    assert_allclose(alone, sm.OLS(y, X).fit(cov_type="HC1").cov_params(), rtol=1e-8)


def test_copies_of_a_case_are_one_group():
    """Five copies of each case: the robust errors do not believe in five times the data."""
    X, y, _ = fair()
    n, k = X.shape
    groups = np.repeat(np.arange(n), 5)
    copied = linear.robust_covariance(np.repeat(X, 5, axis=0), np.repeat(y, 5), groups=groups)
    factor = (5 * n - 1) / (5 * n - k) * n / (n - 1)
    theirs = sm.OLS(y, X).fit(cov_type="HC0").cov_params()
    assert_allclose(copied, theirs * factor, rtol=1e-8)


def test_influence_is_that_of_statsmodels():
    X, y, _ = fair()
    theirs, ours = sm.OLS(y, X).fit().get_influence(), linear.influence(X, y)
    assert_allclose(ours.leverage, theirs.hat_matrix_diag, rtol=1e-9)
    assert_allclose(ours.left_out, theirs.resid_press, rtol=1e-9)
    scale = np.sqrt(theirs.sigma2_not_obsi)[:, None] * np.sqrt(np.diag(np.linalg.inv(X.T @ X)))
    assert_allclose(ours.changes / scale, theirs.dfbetas, rtol=1e-6, atol=1e-12)


@given(st.integers(0, 10**6), st.integers(6, 12), st.integers(1, 3), st.floats(1e-3, 1e3))
def test_influence_is_what_refitting_shows(seed, n, k, unit):
    rng = np.random.default_rng(seed)
    X, y = unit * rng.normal(size=(n, k)), rng.normal(size=n)
    found, whole = linear.influence(X, y), fit_least_squares(X, y).coefficients
    for i in range(n):
        rest = fit_least_squares(np.delete(X, i, 0), np.delete(y, i)).coefficients
        assert_allclose(unit * found.changes[i], unit * (whole - rest), atol=1e-7)
        assert_allclose(found.left_out[i], y[i] - X[i] @ rest, atol=1e-7)


def test_a_case_without_which_there_is_no_fit_is_named():
    X, y = [[1, 0], [1, 0], [1, 0], [1, 1]], [1, 2, 4, 5]
    for function in (linear.influence, linear.robust_covariance):
        with pytest.raises(ValueError, match=r"^X: case 3 alone determines a coefficient"):
            function(X, y)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"groups": [0, 1]}, r"^groups: expected one id for each"),
        ({"groups": ["a"] * 5}, r"^groups: all cases are in one group"),
        ({"groups": ["a", "b", None, "a", "b"]}, r"^groups: row 2 has no id"),
    ],
)  # fmt: skip
def test_wrong_options_of_the_sandwich_are_named(options, message):
    X = polynomial_features([0, 1, 2, 3, 4], 1)
    with pytest.raises(ValueError, match=message):
        linear.robust_covariance(X, [1, 2, 2, 4, 3], **options)


def test_sandwiches_cover_where_the_plain_errors_do_not():
    """2,000 data sets: six standard errors of the coverage are 0.03 (false alarms 2e-9)."""
    rng = np.random.default_rng(0)
    x = np.linspace(0, 1, 100)
    X, truth = polynomial_features(x, 1), np.array([1.0, 1.0])
    t = stats.t.ppf(0.975, 98)
    plain, robust = np.zeros((2, 2000), bool)
    for i in range(2000):
        y = X @ truth + rng.normal(size=100) * np.abs(x - 0.5) * 6
        fit = fit_least_squares(X, y)
        off = abs(fit.coefficients[1] - 1)
        plain[i] = off < t * fit.standard_errors[1]
        robust[i] = off < t * np.sqrt(linear.robust_covariance(X, y)[1, 1])
    assert plain.mean() < 0.9
    assert abs(robust.mean() - 0.95) < 0.03
