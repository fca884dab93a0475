"""Time the package beside its peers and write RESULTS.md: `make bench`.

Candidates of one row take turns in one process until their minimums have stopped falling, and the
minimums are compared: on a shared machine the mean measures the neighbours.  Every row first
asserts that the candidates give the same answer.
"""

import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import calibrating
import ensembles
import judging
import numpy as np
import sampling
import statsmodels.api as sm
import torch
from measure import minimums, row
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_info

from mcunc import birdwatch, data
from mcunc.linear import fit_repeated
from mcunc.logistic import fit_logistic

RESULTS = Path(__file__).with_name("RESULTS.md")
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


def logistic():
    """IRLS to convergence, covariance included (scikit-learn gives none)."""
    cancer = data.breast_cancer()
    standard = (cancer.X - cancer.X.mean(axis=0)) / cancer.X.std(axis=0)
    rng = np.random.default_rng(0)
    simulated = rng.normal(size=(10_000, 20))
    chance = 1 / (1 + np.exp(-simulated @ rng.normal(scale=0.3, size=20)))
    rows = []
    for name, X, y in (
        ("breast cancer, 569 × (10 + 1)", np.c_[np.ones(len(standard)), standard], cancer.y),
        ("simulated, 10,000 × 20", simulated, (rng.random(10_000) < chance).astype(float)),
    ):

        def ours(X=X, y=y):
            return fit_logistic(X, y).coefficients

        peers = {
            "statsmodels Logit, Newton": lambda X=X, y=y: (
                sm.Logit(y, X).fit(method="newton", tol=1e-10, maxiter=100, disp=0).params
            ),
            # lbfgs is scikit-learn's default solver, newton-cholesky its nearest to IRLS.
            **{
                f"scikit-learn, {solver}": lambda X=X, y=y, solver=solver: (
                    LogisticRegression(
                        C=np.inf, solver=solver, tol=1e-10, max_iter=10_000, fit_intercept=False
                    )
                    .fit(X, y)
                    .coef_[0]
                )
                for solver in ("lbfgs", "newton-cholesky")
            },
        }
        for peer in peers.values():  # lbfgs ends at about six digits however small its tol
            np.testing.assert_allclose(peer(), ours(), rtol=0, atol=1e-5 * np.abs(ours()).max())
        best, *others = minimums(ours, *peers.values())
        rows += [
            row(f"logistic regression: {name}", best, peer, seconds)
            for peer, seconds in zip(peers, others, strict=True)
        ]
    return rows


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
            *(repeated_least_squares, logistic, birds),
            *calibrating.BENCHMARKS,
            *(importing, ensembles.many_networks, *judging.BENCHMARKS),
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
