"""Time the package beside its peers and write RESULTS.md: `make bench`.

Candidates of one row take turns in one process until their minimums have stopped falling, and the
minimums are compared: on a shared machine the mean measures the neighbours.  Every row first
asserts that the candidates give the same answer.
"""

import os
import platform
import subprocess
import sys
import time
import tracemalloc
from importlib.metadata import version
from pathlib import Path

import ensembles
import judging
import numpy as np
import regression
import sampling
import torch
from measure import minimums, row
from netcal.metrics import ECE
from netcal.scaling import TemperatureScaling as NetcalTemperature
from scipy.special import softmax
from sklearn.calibration import calibration_curve
from threadpoolctl import threadpool_info
from torchmetrics.functional.classification import multiclass_calibration_error

from mcunc import birdwatch
from mcunc.calibration import (
    calibration_null,
    expected_calibration_error,
    log_loss_from_logits,
    top_label_table,
)
from mcunc.recalibration import TemperatureScaling

RESULTS = Path(__file__).with_name("RESULTS.md")


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


def birds():
    """5,000 pictures of 64 × 64 with their true posteriors."""
    (ours,) = minimums(lambda: birdwatch.draw_birds(5_000, seed=0))
    return [row("birdwatch: 5,000 birds", ours)]


def importing():
    """`import mcunc` in a fresh interpreter, beside an interpreter that imports nothing."""

    def start(code):
        subprocess.run([sys.executable, "-c", code], check=True)

    total, bare = minimums(lambda: start("import mcunc"), lambda: start("pass"))
    return [
        row("`import mcunc`, interpreter start included", total, goal=0.2),
        row("`import mcunc`, interpreter start taken off", total - bare),
    ]


def setting():
    """The machine and the libraries, in two lines."""
    names = (
        "numpy",
        "scipy",
        "scikit-learn",
        "statsmodels",
        "torch",
        "torchvision",
        "torchmetrics",
        "netcal",
        "torch-uncertainty",
        "grad-cam",
        "mcunc",
    )
    threads = sorted({pool["num_threads"] for pool in threadpool_info()})
    return (
        f"{os.cpu_count()} CPU cores, {' and '.join(map(str, threads))} thread(s) for linear "
        f"algebra and OpenMP; Python {platform.python_version()}.\n"
        + ", ".join(f"{name} {version(name)}" for name in names)
        + ".\n"
    )


def table(benchmarks):
    """The rows of these benchmarks, printed as they come; the lines of the table."""
    head = ["what", "ours", "peer", "peer / ours", "goal", "met"]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    print(*lines, sep="\n")
    for benchmark in benchmarks:
        for cells in benchmark():
            lines.append("| " + " | ".join(cells) + " |")
            print(lines[-1], flush=True)
    return "\n".join(lines)


def main():
    once = table(
        (
            *(*regression.BENCHMARKS, birds),
            *(calibration_error, hundred_million, null, temperature, importing),
            *(ensembles.many_networks, *judging.BENCHMARKS),
            *sampling.BENCHMARKS,
        )
    )
    text = (
        "# Results\n\nWritten by `make bench`; README.md says how the times are taken.\n\n"
        f"{setting()}\n{once}\n"
    )
    cores = os.cpu_count()
    if cores > 1:
        torch.set_num_threads(cores)
        again = table(sampling.PASSES_AND_MAPS)
        text += (
            f"\n## Passes and maps again, torch on {cores} threads\n\n"
            "Convolutions are divided among the threads, masks are drawn by one: the more threads, "
            f"the more the masks weigh.\n\n{again}\n"
        )
    RESULTS.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
