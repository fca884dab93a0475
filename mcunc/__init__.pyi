# What editors and type checkers see of the modules that __init__.py loads on first use.
from mcunc import birdwatch as birdwatch
from mcunc import calibration as calibration
from mcunc import cam as cam
from mcunc import comparison as comparison
from mcunc import conformal as conformal
from mcunc import data as data
from mcunc import dropout as dropout
from mcunc import linear as linear
from mcunc import logistic as logistic
from mcunc import networks as networks
from mcunc import ood as ood
from mcunc import photograph as photograph
from mcunc import plot as plot
from mcunc import posterior as posterior
from mcunc import predictive as predictive
from mcunc import pretrained as pretrained
from mcunc import probes as probes
from mcunc import recalibration as recalibration
from mcunc import recorded as recorded
from mcunc import reporting as reporting
from mcunc import selective as selective
from mcunc import training as training
from mcunc.reporting import report as report

__version__: str
__all__ = [
    "__version__",
    "birdwatch",
    "calibration",
    "cam",
    "comparison",
    "conformal",
    "data",
    "dropout",
    "linear",
    "logistic",
    "networks",
    "ood",
    "photograph",
    "plot",
    "posterior",
    "predictive",
    "pretrained",
    "probes",
    "recalibration",
    "recorded",
    "report",
    "reporting",
    "selective",
    "training",
]
