"""Rows for linear and logistic regression."""

import numpy as np
import statsmodels.api as sm
from measure import minimums, row
from sklearn.linear_model import LinearRegression, LogisticRegression

from mcunc import data
from mcunc.linear import fit_least_squares, fit_repeated
from mcunc.logistic import fit_logistic, separation

SETS, ROWS, SAMPLE = 100_000, 20, 1_000  # the peer loops over SAMPLE sets, scaled up to SETS


def repeated_least_squares():
    """Fits with t intervals for 100,000 data sets: one design, and a new design each time."""
    rng = np.random.default_rng(0)
    Y = rng.normal(size=(SETS, ROWS))
    new = np.stack([np.ones((SETS, ROWS)), rng.normal(size=(SETS, ROWS))], axis=-1)

    def peer(X):
        for i in range(SAMPLE):
            yield sm.OLS(Y[i], X if X.ndim == 2 else X[i]).fit().conf_int()

    rows = []
    for name, X, goal in (("one design", new[0], 0.3), ("a new design each", new, 1.5)):
        ends = fit_repeated(X, Y).interval()
        np.testing.assert_allclose(ends[:SAMPLE], list(peer(X)), rtol=1e-8, atol=1e-10)
        ours, theirs = minimums(
            lambda X=X: fit_repeated(X, Y).interval(), lambda X=X: list(peer(X))
        )
        what = f"{SETS:,} data sets, n = {ROWS}, k = 2, t intervals: {name}"
        scaled = theirs * SETS / SAMPLE
        rows.append(row(what, ours, f"statsmodels OLS in a loop ({SAMPLE:,} × 100)", scaled, goal))
    return rows


def least_squares():
    """One long design, covariance included (numpy and scikit-learn give none)."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(1_000_000, 10))
    y = X.sum(axis=1) + rng.normal(size=len(X))
    peers = {
        "numpy lstsq": lambda: np.linalg.lstsq(X, y, rcond=None)[0],
        "statsmodels OLS": lambda: sm.OLS(y, X).fit().params,
        "scikit-learn": lambda: LinearRegression(fit_intercept=False).fit(X, y).coef_,
    }
    ours = fit_least_squares(X, y).coefficients
    for peer in peers.values():
        np.testing.assert_allclose(peer(), ours, rtol=1e-10)
    return against("least squares, 1,000,000 × 10", lambda: fit_least_squares(X, y), peers)


def logistic():
    """IRLS to convergence, covariance included (scikit-learn gives none)."""
    cancer = data.breast_cancer()
    standard = (cancer.X - cancer.X.mean(axis=0)) / cancer.X.std(axis=0)
    cases = [("breast cancer, 569 × (10 + 1)", np.c_[np.ones(len(standard)), standard], cancer.y)]
    rng = np.random.default_rng(0)
    for n, k in ((10_000, 20), (1_000_000, 10)):
        X = rng.normal(size=(n, k))
        chance = 1 / (1 + np.exp(-X @ rng.normal(scale=0.3, size=k)))
        cases.append((f"simulated, {n:,} × {k}", X, (rng.random(n) < chance).astype(float)))
    rows = []
    for name, X, y in cases:
        ours, peers = fit_logistic(X, y).coefficients, logistic_peers(X, y)
        for peer in peers.values():  # lbfgs ends at about six digits however small its tol
            np.testing.assert_allclose(peer(), ours, rtol=0, atol=1e-5 * np.abs(ours).max())
        rows += against(f"logistic regression: {name}", lambda X=X, y=y: fit_logistic(X, y), peers)
    return rows


def logistic_peers(X, y):
    """Fits of the same model, each at a tolerance that leaves six digits or more."""

    def sklearn(solver):
        options = {"C": np.inf, "tol": 1e-10, "max_iter": 10_000, "fit_intercept": False}
        return LogisticRegression(solver=solver, **options).fit(X, y).coef_[0]

    return {
        "statsmodels Logit, Newton": lambda: (
            sm.Logit(y, X).fit(method="newton", tol=1e-10, maxiter=100, disp=0).params
        ),
        "statsmodels GLM": lambda: (
            sm.GLM(y, X, family=sm.families.Binomial()).fit(tol=1e-10).params
        ),
        # lbfgs is scikit-learn's default solver, newton-cholesky its nearest to IRLS.
        "scikit-learn, lbfgs": lambda: sklearn("lbfgs"),
        "scikit-learn, newton-cholesky": lambda: sklearn("newton-cholesky"),
    }


def quasi_separation():
    """Dummies of many groups, one of which has a single class."""
    rng, rows = np.random.default_rng(0), []
    for n, groups, goal in ((20_000, 201, None), (50_000, 301, 5.0)):
        group, x = rng.integers(groups, size=n), rng.normal(size=n)
        X = np.column_stack([np.ones(n), x, group[:, None] == np.arange(1, groups)])
        y = rng.random(n) < 1 / (1 + np.exp(-x - rng.normal(size=groups)[group]))
        y[group == 7] = True
        assert separation(X, y) == "quasi-complete"
        (seconds,) = minimums(lambda X=X, y=y: separation(X, y), at_most=20)
        rows.append(row(f"quasi-separation by dummies, {n:,} × {X.shape[1]}", seconds, goal=goal))
    return rows


def against(what, ours, peers):
    """A row for each peer, timed in turns; ours is to be at least as fast."""
    best, *others = minimums(ours, *peers.values())
    pairs = zip(peers, others, strict=True)
    return [row(what, best, peer, seconds, times=1) for peer, seconds in pairs]


BENCHMARKS = repeated_least_squares, least_squares, logistic, quasi_separation
