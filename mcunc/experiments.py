"""Old address of what is now in `mcunc.runs`, `pretrained`, `birdwatch` and `calibration`."""

from mcunc._internal.deprecation import moved

_MODULES = {
    "birdwatch": ["as_bytes"],
    "calibration": ["excess_loss"],
    "pretrained": ["fine_tuned", "load_network"],
    "runs.birds": ["run_birds"],
    "runs.birds_pretrained": ["run_pretrained"],
    "runs.birds_sweep": ["run_repeated", "run_tuning"],
    "runs.birdwatch_dropout": ["held_out", "run_birdwatch"],
    "runs.calibration_cifar": ["RECIPES", "run_calibration"],
    "runs.dropout_sisters": ["run_sisters"],
    "runs.dropout_spread": ["run_spread"],
    "runs.posterior_methods": ["run_posterior"],
    "runs.trucks": ["run_trucks"],
    "runs.uci": ["run_uci"],
}
OLD_ADDRESSES = {name: f"{module}.{name}" for module, names in _MODULES.items() for name in names}
OLD_ADDRESSES["run_heads"] = "runs.birds_probes.run_probes"
__getattr__ = moved(__name__, OLD_ADDRESSES)
