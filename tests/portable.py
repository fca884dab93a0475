"""Run the unit tests and the notebooks as other machines would: ``make portable``.

Sums come out differently in the last digits on processors with other vector instructions, with
other BLAS kernels and with another number of threads.  Each setting makes this machine compute as
another would.  Every test must pass, and every stored output must be reproduced, under all of
them.  Where one is not, change what the cell prints or what the test asks, not the comparison.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path
from time import perf_counter

from numpy._core._multiarray_umath import __cpu_dispatch__, __cpu_features__

ROOT = Path(__file__).resolve().parents[1]
CHECKS = ("unit", "notebooks-check")  # targets of the Makefile
# Numpy's names of the AVX-512 features that this processor has and numpy can do without.
WIDE = [name for name in __cpu_dispatch__ if name.startswith(("AVX512", "X86_V4"))]
NARROW = {"NPY_DISABLE_CPU_FEATURES": " ".join(name for name in WIDE if __cpu_features__[name])}
SETTINGS = {
    "default": {},
    "aten-default": {"ATEN_CPU_CAPABILITY": "default"},
    "aten-avx2": {
        "ATEN_CPU_CAPABILITY": "avx2",
        "MKL_CBWR": "COMPATIBLE",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
    },
    "blas-haswell": {"OPENBLAS_CORETYPE": "Haswell", **NARROW},
    "blas-zen": {"OPENBLAS_CORETYPE": "Zen", **NARROW},
    # Threads that wait asleep: two notebooks with two threads each share as few as two cores.
    "two-threads": {"OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "PASSIVE"},
}


def run(setting, check):
    """Run a target of the Makefile under a setting; prints its output and says if it passed."""
    print(f"\n=== {check} under {setting}", flush=True)
    start = perf_counter()
    done = subprocess.run(
        ["make", "--silent", check], cwd=ROOT, env=os.environ | SETTINGS[setting], check=False
    )
    return done.returncode == 0, perf_counter() - start


def main(arguments=None):
    """Run the chosen checks under the chosen settings; the exit status says whether all passed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--checks", nargs="+", choices=CHECKS, default=CHECKS)
    chosen = parser.parse_args(arguments)
    pairs = [(setting, check) for setting in chosen.settings for check in chosen.checks]
    results = {pair: run(*pair) for pair in pairs}
    print(f"\n{'setting':14} {'check':16} result  seconds")
    for (setting, check), (passed, seconds) in results.items():
        print(f"{setting:14} {check:16} {'passed' if passed else 'FAILED'}  {seconds:7.0f}")
    return not all(passed for passed, _ in results.values())


if __name__ == "__main__":
    sys.exit(main())
