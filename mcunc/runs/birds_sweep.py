"""Settings of training on birds, tried on an inner split; the best judged on many: chapter 6c.

Each variant gets the same number of trials.  A comparison takes about an hour on a GPU; the trials
and "googlenet-96" take one to three hours on two cores.
"""

from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.special import log_softmax

from mcunc import recorded, training
from mcunc._internal import distributed
from mcunc._internal.checks import check_choice, check_count
from mcunc.recalibration import TemperatureScaling, cross_fitted
from mcunc.runs.birds import Run, run_birds
from mcunc.runs.common import DEVICE, HISTORY, case_scores, command, option, save


class Trial(NamedTuple):
    """Settings tried on the inner split: variant, probability to drop, learning rate, and so on."""

    variant: str
    drop: float
    rate: float
    decay: float
    epochs: int
    size: int

    def record(self):
        """As recorded files call it."""
        return {"arm" if key == "variant" else key: value for key, value in self._asdict().items()}


VARIED = ("epochs", "learning_rate", "weight_decay")
# As many for one variant as for the other.
TRIALS = {
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


class Comparison(NamedTuple):
    """Settings tried on the inner split of one split, or a pair; and how many splits judge.

    Attributes
    ----------
    trials : tuple of Trial, the best of either variant judged; none where `pair` is given
    splits : int
    pair : tuple of Trial, standard and dropout, that no trial here chose
    network : str, optional, where the comparison has a name of its own
    """

    trials: tuple
    splits: int
    pair: tuple = ()
    network: str | None = None


def _beside_masks(decay, size, splits):
    """Masks at every layer of GoogLeNet against none, all else alike."""
    variants = ("standard", 0.1), ("everywhere", 0.02)
    pair = tuple(Trial(*variant, 0.05, decay, 60, size) for variant in variants)
    return Comparison((), splits, pair, "googlenet")


COMPARISONS = {
    "efficientnet_lite0": Comparison(
        (
            *(Trial("standard", 0.1, 0.01, decay, 10, 224) for decay in (1e-3, 5e-3, 1e-2, 2e-2)),
            Trial("last", 0.1, 0.01, 1e-4, 10, 224),
            *(Trial("last", drop, 0.01, 5e-3, 10, 224) for drop in (0.05, 0.1, 0.2)),
        ), 8,
    ),
    "googlenet": Comparison(
        (
            *(Trial("standard", 0.1, 0.05, decay, 60, 224) for decay in (5e-4, 2e-3, 5e-3)),
            *(Trial("everywhere", drop, 0.05, 5e-4, 60, 224) for drop in (0.02, 0.05)),
            Trial("everywhere", 0.02, 0.05, 2e-3, 60, 224),
        ), 4,
    ),
    "googlenet-equal": _beside_masks(2e-3, 224, splits=4),
    "googlenet-96": _beside_masks(5e-4, 96, splits=1),
}  # fmt: skip
PLACE = ("git_revision", "python", "versions", "cpu_cores", "gpu")  # of a run's record
PREDICTIONS = ("standard", "off", "passes")


@command(
    "birds-tuning",
    option("--network", choices=[*TRIALS], help="(default: efficientnet_lite0)"),
    DEVICE,
    together=True,
)
def run_tuning(
    network="efficientnet_lite0", seed=0, folder="runs", device="cpu", *, trials=TRIALS, **small
):
    """Settings of training on birds, each tried on the inner split (chapter 6c).

    Parameters
    ----------
    network : str, one of `TRIALS`
    seed : int, of split and training
    folder : path, takes the trials and ``birds-tuning-<network>.npz`` and .json: log loss and
        accuracy at the end of each trial, of passes where there is dropout, and with dropout off
    device : {"cpu", "cuda"}
    trials : dict of name -> tuple of Trial
    **small : `settings`, `draws` and `pictures` of `run_birds`

    Returns
    -------
    path of the .npz file

    Raises
    ------
    ValueError, FileNotFoundError, ImportError
        As `run_birds`; a ValueError for a trial of other settings that lies in the folder.
    """
    check_choice("network", network, tuple(trials))
    comparison = {network: Comparison(trials[network], 0)}
    return _compare("tuning", network, 0, seed, folder, device, comparison, small)


@command(
    "birds-repeated",
    option("--network", choices=[*COMPARISONS], help="(default: efficientnet_lite0)"),
    option("--splits", type=int, help="how many (default: as many as the book has)"),
    DEVICE,
    together=True,
)
def run_repeated(
    network="efficientnet_lite0", splits=None, seed=0, folder="runs", device="cpu", *,
    comparisons=COMPARISONS, **small,
):  # fmt: skip
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
    network : str, one of `COMPARISONS`
    splits : int, optional, instead of that of the comparison
    seed : int, of the trials, and of the first split
    folder : path, takes the runs and ``birds-repeated-<network>.npz`` and .json
    device : {"cpu", "cuda"}
    comparisons : dict of name -> Comparison
    **small : `settings`, `draws` and `pictures` of `run_birds`

    Returns
    -------
    path of the .npz file

    Raises
    ------
    ValueError, FileNotFoundError, ImportError
        As `run_birds`; a ValueError for a run of other settings that lies in the folder.
    """
    check_choice("network", network, tuple(comparisons))
    splits = check_count("splits", comparisons[network].splits if splits is None else splits)
    return _compare("repeated", network, splits, seed, folder, device, comparisons, small)


def _compare(run, network, splits, seed, folder, device, comparisons, small):
    """Make the runs of a comparison, or load them; gather what they say; returns the path."""
    seed, path = recorded.destination(f"birds-{run}-{network}", seed, folder)
    comparison = comparisons[network]
    kind, trials = comparison.network or network, comparison.trials
    with distributed.joined(device) as device:
        tried = [_trained(kind, trial, True, seed, folder, device, **small) for trial in trials]
        ends = _ends(trials, tried) if trials else {}
        judged, details = [], {}
        if splits:
            pair = comparison.pair or best_of_variants(trials, ends["loss"])
            details["given" if comparison.pair else "chosen"] = [each.record() for each in pair]
            for split in range(seed, seed + splits):
                judged.append(
                    [_trained(kind, each, False, split, folder, device, **small) for each in pair]
                )
        runs = [*tried, *chain.from_iterable(judged)]
        _check_alike(runs, folder)
        if distributed.rank_and_world_size()[0] == 0:
            command = f"birds-{run}" + (f" --splits {splits}" if splits else "")
            record = _record(f"{command} --network {network} --seed {seed}", seed, trials, runs)
            scores = [_scores(*each) for each in judged]
            arrays = {key: np.stack([each[key] for each in scores]) for key in (scores or [{}])[0]}
            prefix = "tried_" if splits else ""
            arrays |= {f"{prefix}{key}": value for key, value in ends.items()}
            save(path, arrays, record | details)
        distributed.barrier()
    return path


def best_of_variants(trials, loss):
    """The trial of lowest loss of either variant, the standard one first."""
    order = np.argsort(loss, kind="stable")
    standard = next(trials[i] for i in order if trials[i].variant == "standard")
    return standard, next(trials[i] for i in order if trials[i].variant != "standard")


def _trained(network, trial, inner, seed, folder, device, pictures=None, **small):
    """One run, made now or before."""
    options = {"network": network, "inner": inner, "seed": seed} | trial._asdict() | small
    if trial.variant == "standard":
        options["drop"] = None
    run = Run(**options)
    path = Path(folder) / f"{run.name}.npz"
    there = path.with_suffix(".json").exists()  # which is written after the other
    distributed.barrier()  # for every process to have looked
    if not there:
        run_birds(folder=folder, device=device, pictures=pictures, **options)
    finished = recorded.load(path)
    recipe = training.Recipe.from_record(finished.record["recipe"])
    setting = recipe, finished.record["ramp"], finished.record["draws"]
    if setting != (run.recipe, run.setting.ramp, run.draws):
        raise ValueError(f"folder: {path} is of another recipe; delete it")
    return finished


def _check_alike(runs, folder):
    """Of the same photographs, with the same libraries, on processors or the same kind of GPU.

    The version of mcunc may differ, which is None in a source tree that was never installed.
    """
    for key, what in (
        ("data", "photographs"), ("kind", "photographs"), ("versions", "libraries"), ("gpu", "GPUs")
    ):  # fmt: skip
        values = [run.record.get(key) for run in runs]
        if key == "versions":
            values = [versions | {"mcunc": None} for versions in values]
        if len(set(map(str, values))) > 1:
            raise ValueError(f"folder: runs in {folder} are of different {what}")


def _ends(trials, runs):
    """Log loss at the end of each trial, of passes where there are masks; and with dropout off."""
    ends = np.array([run["history"][-1] for run in runs], float)
    off, accuracy = (ends[:, HISTORY.index(key)] for key in ("val_loss", "val_accuracy"))
    loss = [
        without if trial.variant == "standard" else run["loss_of_draws"][-1]
        for trial, run, without in zip(trials, runs, off, strict=True)
    ]
    return {"loss": np.array(loss), "off_loss": off, "off_accuracy": accuracy}


def _record(command, seed, trials, runs):
    """Where the runs were made, which may be elsewhere than they are put together.

    The place is that of the first of them, the git revisions are those of all.
    """
    first = runs[0].record
    device = " --device cuda" if "gpu" in first else ""
    revisions = dict.fromkeys(run.record["git_revision"] for run in runs)
    return {key: first[key] for key in PLACE if key in first} | {
        "git_revision": " ".join(filter(None, revisions)) or None,
        "command": f"python -m mcunc run {command}{device}", "seed": seed,
        "hours": round(sum(run.record["hours"] for run in runs), 2),
        "data": first["data"], "kind": first["kind"],
        "tried": [trial.record() for trial in trials],
        "recipe": {k: v for k, v in first["recipe"].items() if k not in VARIED},
    }  # fmt: skip


def _scores(standard, dropped):
    """Scores of both networks of a split, case by case; of the second with dropout off and on."""
    labels = standard["labels"].astype(int)
    log_probs = standard["off_log_probs"], dropped["off_log_probs"], dropped["log_probs"]
    arrays = {
        key: np.stack([standard[key], dropped[key]])
        for key in ("history", "learned_loss", "learned_accuracy")
    } | {
        "cases": standard["cases"],
        "information": dropped["mutual_information"],
        "loss_of_draws": dropped["loss_of_draws"],
    }
    for name, values in zip(PREDICTIONS, log_probs, strict=True):
        values = log_softmax(values, axis=1)
        scaled, calibrators = cross_fitted(TemperatureScaling(), values, labels)
        columns = case_scores(values, labels) | {
            "tempered_loss": -np.log(scaled[np.arange(len(labels)), labels].clip(1e-300)),
            "right": values.argmax(axis=1) == labels,
            "temperature": np.mean([each.temperature_ for each in calibrators]),
        }
        arrays |= {f"{name}_{key}": column for key, column in columns.items()}
    return arrays
