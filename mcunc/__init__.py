"""Uncertainty in deep learning, explained by running it.

Submodules load on first use, so that ``import mcunc`` imports neither torch nor
matplotlib.  The book: https://mcunc.github.io/mcunc/
"""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version

_SUBMODULES = (
    *("birdwatch", "calibration", "cam", "comparison", "conformal", "data", "dropout", "linear"),
    *("logistic", "networks", "ood", "photograph", "plot", "posterior", "predictive"),
    *("pretrained", "probes", "recalibration", "recorded", "reporting", "selective", "training"),
)
_OLD_ADDRESSES = ("corruption", "experiments")

try:
    __version__ = version("mcunc")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"

__all__ = ["__version__", "report", *_SUBMODULES]


def __getattr__(name):
    """Import a submodule, or `report`, on first use (PEP 562)."""
    if name in _SUBMODULES + _OLD_ADDRESSES:
        return import_module(f"{__name__}.{name}")
    if name == "report":
        return import_module(f"{__name__}.reporting").report
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted({*globals(), *__all__})
