"""Old address of what is now in `mcunc.runs`, `pretrained`, `birdwatch` and `calibration`."""

from mcunc._internal.deprecation import moved

__getattr__ = moved(
    __name__,
    {
        "RECIPES": "runs.calibration_cifar.RECIPES",
        "as_bytes": "birdwatch.as_bytes",
        "excess_loss": "calibration.excess_loss",
        "fine_tuned": "pretrained.fine_tuned",
        "held_out": "runs.birdwatch_dropout.held_out",
        "load_network": "pretrained.load_network",
        "run_birds": "runs.birds.run_birds",
        "run_birdwatch": "runs.birdwatch_dropout.run_birdwatch",
        "run_calibration": "runs.calibration_cifar.run_calibration",
        "run_heads": "runs.birds_probes.run_probes",
        "run_posterior": "runs.posterior_methods.run_posterior",
        "run_pretrained": "runs.birds_pretrained.run_pretrained",
        "run_repeated": "runs.birds_sweep.run_repeated",
        "run_sisters": "runs.dropout_sisters.run_sisters",
        "run_spread": "runs.dropout_spread.run_spread",
        "run_trucks": "runs.trucks.run_trucks",
        "run_tuning": "runs.birds_sweep.run_tuning",
        "run_uci": "runs.uci.run_uci",
    },
)
