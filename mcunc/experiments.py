"""Old address of what is now in `mcunc.runs`, `pretrained`, `birdwatch` and `calibration`."""

from mcunc._internal.deprecation import moved

_PLACES = """birdwatch.as_bytes calibration.excess_loss pretrained.fine_tuned
pretrained.load_network runs.birds.run_birds runs.birds_pretrained.run_pretrained
runs.birds_sweep.run_repeated runs.birds_sweep.run_tuning runs.birdwatch_dropout.held_out
runs.birdwatch_dropout.run_birdwatch runs.calibration_cifar.RECIPES
runs.calibration_cifar.run_calibration runs.dropout_sisters.run_sisters
runs.dropout_spread.run_spread runs.posterior_methods.run_posterior runs.trucks.run_trucks
runs.uci.run_uci"""
OLD_ADDRESSES = {place.rpartition(".")[2]: place for place in _PLACES.split()}
OLD_ADDRESSES["run_heads"] = "runs.birds_probes.run_probes"
__getattr__ = moved(__name__, OLD_ADDRESSES)
