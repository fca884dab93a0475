"""Linear probes: each method against algebra or another library."""

import numpy as np
from numpy.testing import assert_allclose
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression

from mcunc.probes import KroneckerLaplace, Standardiser, fit_probes, probe_passes


def made_up(n=300, k=3, d=5, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % k
    x = rng.normal(size=(n, d)) + 1.5 * rng.normal(size=(k, d))[labels]
    return x.astype(np.float32), labels


def test_standardised_features_have_mean_0_and_variance_1():
    x, _ = made_up()
    x[:, 2] = 4  # a dead feature
    z = Standardiser(x)(x)
    assert_allclose(z.mean(axis=0), [0, 0, 0, 0, 0, 1], atol=1e-6)
    assert_allclose(z.std(axis=0), [1, 1, 0, 1, 1, 0], atol=1e-5)


def test_probes_are_scikit_learn_s_logistic_regressions():
    """Whose penalty is half the squared weights over N C, without the bias."""
    x, y = made_up()
    z, decays = Standardiser(x)(x), (0.01, 0.1)
    how = {"learning_rate": 0.03, "epochs": 1000, "batch": 300}  # all at once: it settles
    ours = fit_probes(z, y, 3, [0, 0], decays, seed=0, **how)
    assert ours.shape == (2, 6, 3)
    for weight, decay in zip(ours, decays, strict=True):
        peer = LogisticRegression(C=1 / (decay * len(x)), tol=1e-8, max_iter=1000)
        expected = peer.fit(z[:, :-1], y).predict_proba(z[:, :-1])
        assert_allclose(softmax(z @ weight, axis=1), expected, atol=1e-3)
    assert np.linalg.norm(ours[1, :-1]) < np.linalg.norm(ours[0, :-1])


def test_probes_trained_together_are_those_trained_alone():
    x, y = made_up()
    z = Standardiser(x)(x)
    together = fit_probes(z, y, 3, [0, 0], [0.1, 0.001], seed=2)
    alone = fit_probes(z, y, 3, [0], [0.001], seed=2)
    assert_allclose(together[1:], alone, atol=1e-6)


def test_counts_stand_for_cases_that_come_several_times():
    x, y = made_up()
    z = Standardiser(x)(x)
    counts = np.random.default_rng(0).multinomial(300, np.full(300, 1 / 300), 2)
    rows = np.repeat(np.arange(300), counts[1])
    (alone,) = fit_probes(z[rows], y[rows], 3, [0], [0.01], seed=2, batch=300)  # all at once
    together = fit_probes(z, y, 3, [0, 0], [0.01, 0.01], seed=2, counts=counts, batch=300)
    assert_allclose(together[1], alone, atol=1e-4)
    assert np.abs(together[0] - alone).max() > 1e-2


def test_dropout_while_training_shrinks_as_its_penalty_says():
    """Wager, Wang & Liang (2013): near to a penalty p / (1 - p) / 2 on squared weights times
    the mean curvature; two balanced classes far from certain have curvature 1/4."""
    rng = np.random.default_rng(1)
    z = np.c_[rng.normal(size=(4000, 2)), np.ones(4000)].astype(np.float32)
    y = (rng.random(4000) < 1 / (1 + np.exp(-0.4 * z[:, 0]))).astype(int)
    drop = 0.5
    weights = fit_probes(z, y, 2, [0, drop, 0], [0, 0, drop / (1 - drop) / 4], seed=0)
    plain, dropped, penalised = weights[:, 0, 1] - weights[:, 0, 0]
    assert dropped < 0.75 * plain
    # Near, not equal: over 8 seeds the quotient is 0.77 with a deviation of 0.01.
    assert_allclose(dropped, penalised, rtol=0.3)


def test_passes_have_the_mean_and_the_variance_of_dropout():
    """Mean w x; variance p / (1 - p) times the sum of squared products, the bias apart."""
    x, _ = made_up(8)
    z, weight = Standardiser(x)(x), np.random.default_rng(1).normal(size=(6, 3)).astype(np.float32)
    passes = probe_passes(z, weight, 0.3, 20_000, seed=0)
    mean, variance = z @ weight, 0.3 / 0.7 * (z[:, :-1] ** 2 @ weight[:-1] ** 2)
    # Of 24 each: six standard errors, 5e-8.  The kurtosis is below 3, so a variance's is below 1 %.
    assert (np.abs(passes.mean(axis=0) - mean) < 6 * (variance / 20_000) ** 0.5).all()
    assert_allclose(passes.var(axis=0), variance, rtol=0.06)


def test_the_kronecker_laplace_is_the_dense_one():
    """Covariance of the logits by inverting the whole precision, N A ⊗ G + δ I."""
    x, _ = made_up(40)
    z, weight = Standardiser(x)(x), np.random.default_rng(2).normal(size=(6, 3)).astype(np.float32)
    laplace, prior = KroneckerLaplace(z, weight), 2.0
    p = softmax(z @ weight, axis=1)
    G = np.mean([np.diag(row) - np.outer(row, row) for row in p], axis=0)
    precision = 40 * np.kron(z.T @ z / 40, G) + prior * np.eye(18)
    samples = laplace.sample(z[:4], prior, 40_000, seed=0)
    for n in range(4):
        jacobian = np.kron(z[n][None], np.eye(3))  # of the logits by the weights, row by row
        covariance = jacobian @ np.linalg.inv(precision) @ jacobian.T
        scaled = laplace.logit_vectors * laplace.standard_deviations(z[:4], prior)[n]
        assert_allclose(scaled @ scaled.T, covariance, rtol=1e-4, atol=1e-6)
        # Six standard errors of a covariance and of a mean at most; false alarms: 1e-7 in all.
        assert_allclose(np.cov(samples[:, n].T), covariance, atol=0.0425 * covariance.max())
        off = np.abs(samples[:, n].mean(axis=0) - z[n] @ weight)
        assert (off < 6 * np.sqrt(np.diag(covariance) / 40_000)).all()


def test_the_laplace_knows_what_lies_far_away():
    x, y = made_up()
    standardise = Standardiser(x)
    z = standardise(x)
    laplace = KroneckerLaplace(z, fit_probes(z, y, 3, [0], [0.01], 0)[0])
    near, far = (laplace.standard_deviations(standardise(c * x), 1.0).mean() for c in (1, 5))
    assert far > 3 * near


def test_a_probe_can_be_put_into_a_linear_layer():
    x, y = made_up()
    standardise = Standardiser(x)
    (probe,) = fit_probes(standardise(x), y, 3, [0], [0.01], seed=0)
    weight, bias = standardise.to_linear(probe)
    assert_allclose(x @ weight.T + bias, standardise(x) @ probe, atol=1e-4)
