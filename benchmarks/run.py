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
import regression
import sampling
import torch
from measure import minimums, row
from threadpoolctl import threadpool_info

from mcunc import birdwatch

RESULTS = Path(__file__).with_name("RESULTS.md")


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
            *(*regression.BENCHMARKS, birds, *calibrating.BENCHMARKS),
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
            "Convolutions use all threads, drawing masks half of them: the more threads, the "
            f"more the masks weigh.\n\n{again}\n"
        )
    RESULTS.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
