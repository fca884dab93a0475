"""Settings of training on birds, tried on an inner split; the best judged on many: chapter 6c.

Each variant gets the same number of trials.  A comparison takes about an hour on a GPU; the trials
and "googlenet-96" take one to three hours on two cores.
"""

from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.special import log_softmax

from mcunc import recorded
from mcunc._internal import distributed
from mcunc._internal.checks import check_choice, check_count
from mcunc.recalibration import TemperatureScaling, cross_fitted
from mcunc.runs.birds import Run, run_birds
from mcunc.runs.common import DEVICE, HISTORY, case_scores, command, option, save


class Trial(NamedTuple):
    """Settings tried on the inner split; arm is what recorded files call the variant."""

    arm: str
    drop: float
    rate: float
    decay: float
    epochs: int
    size: int


VARIED = ("epochs", "learning_rate", "weight_decay")
# Settings that `run_tuning` tries: as many for one variant as for the other.
TUNING = {
    "efficientnet_lite0": (
        Trial("standard", 0.1, 0.01, 1e-4, 4, 160), Trial("standard", 0.1, 0.02, 1e-4, 4, 160),
        Trial("last", 0.05, 0.01, 1e-4, 4, 160), Trial("last", 0.1, 0.01, 1e-4, 4, 160),
        # Four epochs do not show what ten need: regularisers, for as long as the run.
        *(Trial("standard", 0.1, 0.01, decay, 10, 128) for decay in (1e-4, 1e-3, 5e-3)),
        *(Trial("last", drop, 0.01, 1e-4, 10, 128) for drop in (0.05, 0.1, 0.2)),
    ),
    "googlenet": (
        Trial("standard", 0.1, 0.05, 5e-4, 15, 96), Trial("standard", 0.1, 0.1, 5e-4, 15, 96),
        Trial("everywhere", 0.02, 0.05, 5e-4, 15, 96),
        Trial("everywhere", 0.05, 0.05, 5e-4, 15, 96),
    ),
}  # fmt: skip


# Those that `run_repeated` tries; it judges the best of either variant on several splits.
TRIALS = {
    "efficientnet_lite0": (
        *(Trial("standard", 0.1, 0.01, decay, 10, 224) for decay in (1e-3, 5e-3, 1e-2, 2e-2)),
        Trial("last", 0.1, 0.01, 1e-4, 10, 224),
        *(Trial("last", drop, 0.01, 5e-3, 10, 224) for drop in (0.05, 0.1, 0.2)),
    ),
    "googlenet": (
        *(Trial("standard", 0.1, 0.05, decay, 60, 224) for decay in (5e-4, 2e-3, 5e-3)),
        *(Trial("everywhere", drop, 0.05, 5e-4, 60, 224) for drop in (0.02, 0.05)),
        Trial("everywhere", 0.02, 0.05, 2e-3, 60, 224),
    ),
}
# Pairs that it judges without trials: masks at every layer of GoogLeNet, or none, all else alike.
PAIRS = {
    name: (Trial("standard", 0.1, *others), Trial("everywhere", 0.02, *others))
    for name, others in (
        ("googlenet-equal", (0.05, 2e-3, 60, 224)), ("googlenet-96", (0.05, 5e-4, 60, 96)),
    )
}  # fmt: skip
SPLITS = {"efficientnet_lite0": 8, "googlenet": 4, "googlenet-equal": 4, "googlenet-96": 1}
PLACE = ("python", "versions", "cpu_cores", "gpu", "data", "kind")  # of a run's record
DEFAULT = "(default: efficientnet_lite0)"


@command(
    "birds-tuning", option("--network", choices=[*TUNING], help=DEFAULT), DEVICE, together=True
)
def run_tuning(network="efficientnet_lite0", seed=0, folder="runs", device="cpu"):
    """Settings of training on birds, each tried on the inner split (chapter 6c).

    Parameters
    ----------
    network : str, one of `TUNING`
    seed : int, of split and training
    folder : path, takes the trials and ``birds-tuning-<network>.npz`` and .json: log loss and
        accuracy at the end of each trial, of passes where there is dropout, and with dropout off
    device : {"cpu", "cuda"}

    Returns
    -------
    path of the .npz file

    Raises
    ------
    ValueError, FileNotFoundError, ImportError
        As `run_birds`.
    """
    trials = TUNING[check_choice("network", network, tuple(TUNING))]
    seed, path = recorded.destination(f"birds-tuning-{network}", seed, folder)
    runs = [_trained(network, trial, seed, folder, device, inner=True) for trial in trials]
    record = _record(f"birds-tuning --network {network} --seed {seed}", seed, trials, runs, folder)
    return _written(path, _ends(trials, runs), record)


@command(
    "birds-repeated",
    option("--network", choices=[*SPLITS], help=DEFAULT),
    option("--splits", type=int, help="how many (default: as many as the book has)"),
    DEVICE,
    together=True,
)
def run_repeated(network="efficientnet_lite0", splits=None, seed=0, folder="runs", device="cpu"):
    """The best settings of either variant, or a given pair, on many splits (chapter 6c).

    Settings are tried on the inner split of split `seed`, and those of the lowest log loss (of
    passes where there is dropout) taken for that split and those after it; photographs that judge
    on those were therefore among the ones of the trials.  "googlenet-equal" and "googlenet-96" try
    nothing: their pairs have the same decay, 0.002 at 224 pixels and 0.0005 at 96.  A run that lies
    finished in the folder is not made again, so that processes of ``run birds``, each with runs of
    its own, can share the work.  The book's record of "googlenet" has one split.

    The result has for every prediction ("standard"; "off" and "passes" of the dropout network)
    arrays of splits by cases: ``<prediction>_right``, ``_loss``, ``_brier``, ``_confidence``,
    ``_entropy``, ``_tempered_loss`` (`recalibration.cross_fitted`), and ``_temperature``, its mean;
    ``information``, of the passes; ``loss_of_draws`` by number of passes; and for either network
    ``history`` and the loss and accuracy on the training photographs, whole and without masks.
    ``tried_loss``, ``tried_off_loss`` and ``tried_off_accuracy`` are the ends of the trials,
    where there are any.

    Parameters
    ----------
    network : str, one of `SPLITS`
    splits : int, optional, instead of that of the book
    seed : int, of the trials, and of the first split
    folder : path, takes the runs and ``birds-repeated-<network>.npz`` and .json
    device : {"cpu", "cuda"}

    Returns
    -------
    path of the .npz file

    Raises
    ------
    ValueError, FileNotFoundError, ImportError
        As `run_birds`; a ValueError where runs in the folder are of different photographs,
        libraries or GPUs.
    """
    splits = SPLITS[check_choice("network", network, tuple(SPLITS))] if splits is None else splits
    splits = check_count("splits", splits)
    seed, path = recorded.destination(f"birds-repeated-{network}", seed, folder)
    kind, trials, pair = network.partition("-")[0], TRIALS.get(network, ()), PAIRS.get(network)
    tried = [_trained(kind, trial, seed, folder, device, inner=True) for trial in trials]
    ends = {} if pair else _ends(trials, tried)
    chosen = pair or best_of_variants(trials, ends["loss"])
    judged = [
        [_trained(kind, trial, split, folder, device) for trial in chosen]
        for split in range(seed, seed + splits)
    ]
    command = f"birds-repeated --splits {splits} --network {network} --seed {seed}"
    record = _record(command, seed, trials, [*tried, *chain.from_iterable(judged)], folder)
    record["given" if pair else "chosen"] = [trial._asdict() for trial in chosen]
    scores = [_scores(*each) for each in judged]
    arrays = {key: np.stack([each[key] for each in scores]) for key in scores[0]}
    return _written(path, arrays | {f"tried_{key}": ends[key] for key in ends}, record)


def best_of_variants(trials, loss):
    """The trial of lowest loss of either variant, the standard one first."""
    ranked = [trials[i] for i in np.argsort(loss, kind="stable")]
    standard = next(trial for trial in ranked if trial.arm == "standard")
    return standard, next(trial for trial in ranked if trial.arm != "standard")


def _trained(network, trial, seed, folder, device, inner=False):
    """One run, made now or before."""
    options = trial._asdict() | {"network": network, "seed": seed, "inner": inner}
    options["variant"] = options.pop("arm")
    options["drop"] = None if trial.arm == "standard" else trial.drop
    path = Path(folder) / f"{Run(**options).name}.npz"
    there = path.with_suffix(".json").exists()  # which is written after the other
    distributed.barrier()  # for every process to have looked
    if not there:
        run_birds(folder=folder, device=device, **options)
    return recorded.load(path)


def _ends(trials, runs):
    """Log loss at the end of each trial, of passes where there are masks; and with dropout off."""
    ends = np.array([run["history"][-1] for run in runs], float)
    off, accuracy = (ends[:, HISTORY.index(key)] for key in ("val_loss", "val_accuracy"))
    loss = off.copy()
    for i, run in enumerate(runs):
        if trials[i].arm != "standard":
            loss[i] = run["loss_of_draws"][-1]
    return {"loss": loss, "off_loss": off, "off_accuracy": accuracy}


def _record(command, seed, trials, runs, folder):
    """Where the runs were made, which may be elsewhere than they are put together.

    The place is that of the first of them, the git revisions are those of all.  Photographs,
    libraries and the kind of GPU must agree; the version of mcunc may differ, which is None in a
    source tree that was never installed.
    """
    records = [run.record for run in runs]
    first, other = records[0], {"mcunc": None}
    places = [(r["data"], r["kind"], r["versions"] | other, r.get("gpu")) for r in records]
    if any(place != places[0] for place in places):
        what = "of different photographs, libraries or GPUs; make them anew"
        raise ValueError(f"folder: runs in {folder} are {what}")
    device = " --device cuda" if "gpu" in first else ""
    revisions = dict.fromkeys(record["git_revision"] for record in records)
    return {key: first[key] for key in PLACE if key in first} | {
        "git_revision": " ".join(filter(None, revisions)) or None,
        "command": f"python -m mcunc run {command}{device}", "seed": seed,
        "hours": round(sum(record["hours"] for record in records), 2),
        "tried": [trial._asdict() for trial in trials],
        "recipe": {k: v for k, v in first["recipe"].items() if k not in VARIED},
    }  # fmt: skip


def _written(path, arrays, record):
    """The path, once one of the processes has written the file."""
    if distributed.rank_and_world_size()[0] == 0:
        save(path, arrays, record)
    distributed.barrier()
    return path


def _scores(standard, dropped):
    """Scores of both networks of a split, case by case; of the second with dropout off and on."""
    labels = standard["labels"].astype(int)
    predictions = {
        "standard": standard["off_log_probs"], "off": dropped["off_log_probs"],
        "passes": dropped["log_probs"],
    }  # fmt: skip
    arrays = {
        key: np.stack([standard[key], dropped[key]])
        for key in ("history", "learned_loss", "learned_accuracy")
    } | {
        "cases": standard["cases"],
        "information": dropped["mutual_information"],
        "loss_of_draws": dropped["loss_of_draws"],
    }
    for name, values in predictions.items():
        values = log_softmax(values, axis=1)
        scaled, calibrators = cross_fitted(TemperatureScaling(), values, labels)
        columns = case_scores(values, labels) | {
            "tempered_loss": -np.log(scaled[np.arange(len(labels)), labels].clip(1e-300)),
            "right": values.argmax(axis=1) == labels,
            "temperature": np.mean([each.temperature_ for each in calibrators]),
        }
        arrays |= {f"{name}_{key}": column for key, column in columns.items()}
    return arrays
