"""Rows for calibration errors, their null, and the calibrators."""

import time
import tracemalloc

import numpy as np
import torch
from measure import minimums, row
from netcal.metrics import ECE
from netcal.scaling import TemperatureScaling as NetcalTemperature
from scipy.special import softmax
from sklearn.calibration import _SigmoidCalibration, calibration_curve
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from torchmetrics.functional.classification import multiclass_calibration_error

from mcunc.calibration import (
    calibration_null,
    expected_calibration_error,
    log_loss_from_logits,
    top_label_table,
)
from mcunc.recalibration import IsotonicCalibration, MatrixScaling, PlattScaling, TemperatureScaling


def predictions(n, k, dtype, seed=0):
    """n distributions over k classes, and labels drawn from a softer version of them."""
    rng = np.random.default_rng(seed)
    probs = rng.standard_gamma(0.5, (n, k), dtype=dtype)
    probs /= probs.sum(axis=1, keepdims=True)
    return probs, np.where(rng.random(n) < 0.8, probs.argmax(axis=1), rng.integers(k, size=n))


def calibration_error():
    """ECE of a million cases, all checks included, beside the largest value and its place."""
    rows = []
    for dtype in (np.float64, np.float32):
        probs, labels = predictions(1_000_000, 10, dtype)
        tensors = torch.from_numpy(probs), torch.from_numpy(labels)

        def ours(probs=probs, labels=labels):
            return expected_calibration_error(probs, labels, bins=15)

        def sklearn(probs=probs, labels=labels):
            confidence = probs.max(axis=1)
            frequency, mean = calibration_curve(
                probs.argmax(axis=1) == labels, confidence, n_bins=15
            )
            count = np.histogram(confidence, np.linspace(0, 1, 16))[0]
            return np.abs(frequency - mean) @ count[count > 0] / len(probs)

        peers = {
            "torchmetrics": lambda tensors=tensors: multiclass_calibration_error(
                *tensors, num_classes=10, n_bins=15
            ).item(),
            "netcal": lambda probs=probs, labels=labels: ECE(15).measure(probs, labels),
            "scikit-learn, calibration_curve": sklearn,
        }
        for peer in peers.values():  # torchmetrics computes in float32
            np.testing.assert_allclose(peer(), ours(), rtol=0, atol=1e-5)
        best, largest, *others = minimums(
            ours, lambda probs=probs: (probs.max(axis=1), probs.argmax(axis=1)), *peers.values()
        )
        what = f"ECE, 1,000,000 × 10 {np.dtype(dtype).name}, 15 bins"
        rows.append(row(what, best, "numpy, max and argmax alone", largest, times=1))
        pairs = zip(peers, others, strict=True)
        rows += [row(what, best, peer, seconds, times=1) for peer, seconds in pairs]
    return rows


def hundred_million():
    """ECE of 10⁸ cases in parts that are drawn on the fly, once; peak memory beside the part."""
    parts, total, seconds, peak, gap = 100, 0, 0.0, 0, 0.0
    for seed in range(parts):
        probs, labels = predictions(1_000_000, 10, np.float32, seed)
        tracemalloc.start()
        start = time.perf_counter()
        total += top_label_table(probs, labels, bins=15)  # 0 + table is the table
        seconds += time.perf_counter() - start
        peak = max(peak, tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        right = probs.argmax(axis=1) == labels
        gap += right.sum() - probs.max(axis=1).sum(dtype=np.float64)
    assert total.count.sum() == parts * 1_000_000
    np.testing.assert_allclose((total.outcome_sum - total.confidence_sum).sum(), gap, rtol=1e-9)
    what = f"ECE, 10⁸ × 10 float32 in {parts} parts; {peak / 1e6:.1f} MB beside the part"
    return [row(what, seconds)]


def null():
    """What 10,000 confidences show if calibrated, 1,000 draws."""
    confidence = np.random.default_rng(0).beta(5, 1.5, 10_000)

    def peer():
        rng, place = np.random.default_rng(0), np.minimum(confidence * 15, 14).astype(int)
        for _ in range(1_000):
            outcome = rng.random(len(confidence)) < confidence
            gaps = np.bincount(place, outcome - confidence, minlength=15)
            yield np.abs(gaps).sum() / len(confidence)

    np.testing.assert_allclose(calibration_null(confidence).mean, np.mean(list(peer())), rtol=0.05)
    ours, theirs = minimums(lambda: calibration_null(confidence).ece, lambda: list(peer()))
    what = "null of the ECE, 10,000 cases × 1,000 draws"
    return [row(what, ours, goal=0.3), row(what, ours, "numpy, a draw at a time", theirs)]


def temperature():
    """Temperature scaling to convergence."""
    rng = np.random.default_rng(0)
    logits = rng.normal(scale=3, size=(10_000, 100))
    labels = (logits / 2 + rng.gumbel(size=logits.shape)).argmax(axis=1)  # the truth is T = 2
    probs, temperatures = softmax(logits, axis=1), np.geomspace(0.5, 8, 200)

    def ours():
        return TemperatureScaling().fit(logits, labels).temperature_

    def netcal():
        return NetcalTemperature().fit(probs, labels, tensorboard=False)

    def grid():
        return min((log_loss_from_logits(logits / t, labels), t) for t in temperatures)

    best = log_loss_from_logits(logits / ours(), labels)
    assert best <= grid()[0] + 1e-12
    scaled = netcal().transform(probs)[np.arange(len(labels)), labels]
    np.testing.assert_allclose(best, -np.log(scaled).mean(), atol=1e-5)
    seconds, *others = minimums(ours, netcal, grid)
    what = "temperature scaling, 10,000 × 100"
    peers = "netcal", f"grid of {len(temperatures)}"
    return [row(what, seconds, p, s, times=10) for p, s in zip(peers, others, strict=True)]


def over_confident(n, k):
    """Logits of a network over-confident by a factor of 1.5, and labels."""
    rng = np.random.default_rng(0)
    logits = rng.normal(scale=2, size=(n, k))
    return logits, (logits / 1.5 + rng.gumbel(size=logits.shape)).argmax(axis=1)


def isotonic():
    """Fit of two classes, and predictions of ten, from logits."""
    logits, labels = over_confident(1_000_000, 2)
    p, hits = softmax(logits, axis=1)[:, 1], (labels == 1).astype(float)
    peer = IsotonicRegression(out_of_bounds="clip").fit(p, hits)
    ours = IsotonicCalibration().fit(logits, labels)
    np.testing.assert_allclose(ours.predict_proba(logits)[:, 1], peer.predict(p), atol=1e-9)
    times = minimums(
        lambda: ours.fit(logits, labels), lambda: peer.fit(softmax(logits, axis=1)[:, 1], hits)
    )
    rows = [row("isotonic, fit, 1,000,000 × 2", times[0], "scikit-learn", times[1], times=1)]
    logits, labels = over_confident(10_000, 10)
    probs, many = softmax(logits, axis=1), IsotonicCalibration().fit(logits, labels)
    peers = [
        IsotonicRegression(out_of_bounds="clip").fit(p, labels == k) for k, p in enumerate(probs.T)
    ]

    def sklearn():
        probs = softmax(logits, axis=1)
        columns = [peer.predict(p) for peer, p in zip(peers, probs.T, strict=True)]
        stacked = np.stack(columns, axis=1)
        return stacked / stacked.sum(axis=1, keepdims=True)

    np.testing.assert_allclose(many.predict_proba(logits), sklearn(), atol=1e-9)
    times = minimums(lambda: many.predict_proba(logits), sklearn)
    return [
        *rows,
        row("isotonic, predict, 10,000 × 10", times[0], "scikit-learn", times[1], times=1),
    ]


def platt():
    """Platt's sigmoids of two classes and of ten; the peers get the log odds and fit each once."""
    rows = []
    for n, k in ((1_000_000, 2), (10_000, 10)):
        logits, labels = over_confident(n, k)
        probs, classes = softmax(logits, axis=1), range(k) if k > 2 else [1]
        odds, hits = np.log(probs / (1 - probs)), [(labels == c) * 1.0 for c in range(k)]
        peers = {
            "scikit-learn, _SigmoidCalibration": _SigmoidCalibration,
            "scikit-learn, newton-cholesky": lambda: LogisticRegression(
                C=np.inf, solver="newton-cholesky", tol=1e-10
            ),
        }

        def fit(make, odds=odds, hits=hits, classes=classes, k=k):
            flat = make is _SigmoidCalibration
            return [make().fit(odds[:, c] if flat else odds[:, [c]], hits[c]) for c in classes]

        best = PlattScaling().fit(logits, labels)
        slopes = [-one.a_ for one in fit(_SigmoidCalibration)]
        np.testing.assert_allclose(best.slopes_[list(classes)], slopes, rtol=1e-4)
        seconds, *others = minimums(
            lambda logits=logits, labels=labels: PlattScaling().fit(logits, labels),
            *(lambda make=make, fit=fit: fit(make) for make in peers.values()),
        )
        what = f"Platt, fit, {n:,} × {k}"
        rows += [row(what, seconds, p, s, times=1) for p, s in zip(peers, others, strict=True)]
    return rows


def matrix():
    """Matrix scaling beside multinomial logistic regression without a penalty."""
    logits, labels = over_confident(10_000, 10)
    solvers = "newton-cholesky", "lbfgs"

    def peer(solver):
        learner = LogisticRegression(C=np.inf, solver=solver, tol=1e-10, max_iter=5_000)
        return learner.fit(logits, labels)

    ours = MatrixScaling().fit(logits, labels).predict_proba(logits)
    np.testing.assert_allclose(ours, peer("newton-cholesky").predict_proba(logits), atol=1e-6)
    seconds, *others = minimums(
        lambda: MatrixScaling().fit(logits, labels),
        *(lambda solver=solver: peer(solver) for solver in solvers),
    )
    what = "matrix scaling, fit, 10,000 × 10"
    pairs = zip(solvers, others, strict=True)
    return [row(what, seconds, f"scikit-learn, {p}", s, times=1) for p, s in pairs]


BENCHMARKS = (calibration_error, hundred_million, null, temperature, isotonic, platt, matrix)
