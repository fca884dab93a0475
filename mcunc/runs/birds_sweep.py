"""Settings of training on birds, tried on an inner split, and the best of them on many splits."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.special import log_softmax
from scipy.stats import entropy

from mcunc import recorded, training
from mcunc._internal import distributed
from mcunc._internal.checks import check_choice, check_count
from mcunc.recalibration import TemperatureScaling, cross_fitted
from mcunc.runs.birds import HISTORY, run_birds, run_of
from mcunc.runs.common import DEVICE, command, option


class Trial(NamedTuple):
    """Settings tried on the inner split: arm, probability to drop, learning rate, and so on."""

    arm: str
    drop: float
    rate: float
    decay: float
    epochs: int
    size: int


VARIED = ("epochs", "learning_rate", "weight_decay")
# As many for one arm as for the other.
TRIALS = {
    "efficientnet_lite0": (
        Trial("standard", 0.1, 0.01, 1e-4, 4, 160), Trial("standard", 0.1, 0.02, 1e-4, 4, 160),
        Trial("last", 0.05, 0.01, 1e-4, 4, 160), Trial("last", 0.1, 0.01, 1e-4, 4, 160),
        # Four epochs do not show what ten need: regularisers of either arm, for as long as the run.
        *(Trial("standard", 0.1, 0.01, decay, 10, 128) for decay in (1e-4, 1e-3, 5e-3)),
        *(Trial("last", drop, 0.01, 1e-4, 10, 128) for drop in (0.05, 0.1, 0.2)),
    ),
    "googlenet": (
        Trial("standard", 0.1, 0.05, 5e-4, 15, 96), Trial("standard", 0.1, 0.1, 5e-4, 15, 96),
        Trial("everywhere", 0.02, 0.05, 5e-4, 15, 96),
        Trial("everywhere", 0.05, 0.05, 5e-4, 15, 96),
    ),
}  # fmt: skip


class Contest(NamedTuple):
    """Settings tried on the inner split of one split, or a pair; and how many splits judge.

    Attributes
    ----------
    trials : tuple of Trial, the best of either arm judged; none where `pair` is given
    splits : int
    pair : tuple of Trial, standard and dropout, that no trial here chose
    network : str, optional, where the contest has a name of its own
    """

    trials: tuple
    splits: int
    pair: tuple = ()
    network: str | None = None


def _beside_masks(decay, size, splits):
    """Masks at every layer of GoogLeNet against none, all else alike."""
    arms = ("standard", 0.1), ("everywhere", 0.02)
    pair = tuple(Trial(*arm, 0.05, decay, 60, size) for arm in arms)
    return Contest((), splits, pair, "googlenet")


CONTESTS = {
    "efficientnet_lite0": Contest(
        (
            *(Trial("standard", 0.1, 0.01, decay, 10, 224) for decay in (1e-3, 5e-3, 1e-2, 2e-2)),
            Trial("last", 0.1, 0.01, 1e-4, 10, 224),
            *(Trial("last", drop, 0.01, 5e-3, 10, 224) for drop in (0.05, 0.1, 0.2)),
        ), 8,
    ),
    "googlenet": Contest(
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
WAYS = ("standard", "off", "passes")


@command(
    "birds-tuning",
    option("--network", choices=[*TRIALS], help="(default: efficientnet_lite0)"),
    DEVICE,
    together=True,
)
def run_tuning(
    network="efficientnet_lite0", seed=0, folder="runs", device="cpu", *, trials=TRIALS, **small
):
    """Settings of training on birds, each tried on the inner split: chapter 6.

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
    ValueError
        As `run_birds`, or for a trial of other settings that lies in the folder.
    FileNotFoundError
        Where the photographs are neither here nor to be downloaded.
    ImportError
        Without the packages of EfficientNet-Lite0.
    """
    check_choice("network", network, tuple(trials))
    seed, path = recorded.destination(f"birds-tuning-{network}", seed, folder)
    trials = trials[network]
    with distributed.joined(device) as device:
        made = [_made(network, trial, True, seed, folder, device, **small) for trial in trials]
        _check_alike(made, folder)
        if distributed.rank_and_world_size()[0] == 0:
            record = _record("birds-tuning", network, seed, trials, made)
            recorded.save(path, _ends(trials, made), record)
        distributed.barrier()
    return path


@command(
    "birds-repeated",
    option("--network", choices=[*CONTESTS], help="(default: efficientnet_lite0)"),
    option("--splits", type=int, help="how many (default: as many as the book has)"),
    DEVICE,
    together=True,
)
def run_repeated(
    network="efficientnet_lite0", splits=None, seed=0, folder="runs", device="cpu", *,
    contests=CONTESTS, **small,
):  # fmt: skip
    """The best settings of either arm, or a given pair, judged on many splits: chapter 6.

    Settings are tried on the inner split of split `seed`, and those of the lowest log loss (of
    passes where there is dropout) taken for that split and those after it; photographs that judge
    on those were therefore among the ones of the trials.  "googlenet-equal" and "googlenet-96" try
    nothing: their pairs have the same decay, 0.002 at 224 pixels and 0.0005 at 96.  All but the
    last are many trainings: for a GPU.  A run that lies finished in the folder is not made again,
    so that processes of ``run birds``, each with runs of its own, can share the work.  The book's
    record of "googlenet" has one split.

    The result has for every way ("standard"; "off" and "passes" of the dropout network) arrays of
    splits by cases: ``<way>_right``, ``_loss``, ``_brier``, ``_confidence``, ``_entropy``,
    ``_tempered_loss`` (`recalibration.cross_fitted`), and ``<way>_temperature``, its mean;
    ``information``, of the passes; ``loss_of_draws`` by number of passes; and for either network
    ``history`` and the loss and accuracy on the training photographs, whole and without masks.
    ``tried_loss``, ``tried_off_loss`` and ``tried_off_accuracy`` are the ends of the trials,
    where there are any.

    Parameters
    ----------
    network : str, one of `CONTESTS`
    splits : int, optional, instead of that of the contest
    seed : int, of the trials, and of the first split
    folder : path, takes the runs and ``birds-repeated-<network>.npz`` and .json
    device : {"cpu", "cuda"}
    contests : dict of name -> Contest
    **small : `settings`, `draws` and `pictures` of `run_birds`

    Returns
    -------
    path of the .npz file

    Raises
    ------
    ValueError
        As `run_birds`, or for a run of other settings that lies in the folder.
    FileNotFoundError
        Where the photographs are neither here nor to be downloaded.
    ImportError
        Without the packages of EfficientNet-Lite0.
    """
    check_choice("network", network, tuple(contests))
    seed, path = recorded.destination(f"birds-repeated-{network}", seed, folder)
    contest, trials = contests[network], contests[network].trials
    splits = check_count("splits", contest.splits if splits is None else splits)
    kind = contest.network or network
    with distributed.joined(device) as device:
        tried = [_made(kind, trial, True, seed, folder, device, **small) for trial in trials]
        ends = _ends(trials, tried) if trials else {}
        pair = contest.pair or best_of_arms(trials, ends["loss"])
        judged = [
            [_made(kind, trial, False, seed + split, folder, device, **small) for trial in pair]
            for split in range(splits)
        ]
        made = [*tried, *(run for runs in judged for run in runs)]
        _check_alike(made, folder)
        if distributed.rank_and_world_size()[0] == 0:
            name = f"birds-repeated --splits {splits}"
            record = _record(name, network, seed, trials, made)
            record["given" if contest.pair else "chosen"] = [trial._asdict() for trial in pair]
            said = [_said(*runs) for runs in judged]
            arrays = {key: np.stack([of[key] for of in said]) for key in said[0]}
            arrays |= {f"tried_{key}": value for key, value in ends.items()}
            recorded.save(path, arrays, record)
        distributed.barrier()
    return path


def best_of_arms(trials, loss):
    """The trial of lowest loss of either arm, the standard one first."""
    order = np.argsort(loss, kind="stable")
    standard = next(trials[i] for i in order if trials[i].arm == "standard")
    return standard, next(trials[i] for i in order if trials[i].arm != "standard")


def _made(network, trial, inner, seed, folder, device, pictures=None, **small):
    """One run, made now or before."""
    given = {"inner": inner, "seed": seed} | trial._asdict() | small
    if trial.arm == "standard":
        given["drop"] = None
    run = run_of(network, **given)
    path = Path(folder) / f"{run.name}.npz"
    there = path.with_suffix(".json").exists()  # which is written after the other
    distributed.barrier()  # for every process to have looked
    if not there:
        run_birds(network, folder=folder, device=device, pictures=pictures, **given)
    made = recorded.load(path)
    recipe = training.Recipe.from_record(made.record["recipe"])
    setting = recipe, made.record["ramp"], made.record["draws"]
    if setting != (run.recipe, run.setting.ramp, run.draws):
        raise ValueError(f"folder: {path} is of another recipe; delete it")
    return made


def _check_alike(made, folder):
    """Of the same photographs, with the same libraries, on processors or the same kind of GPU.

    The version of mcunc may differ, which is None in a source tree that was never installed.
    """
    for key, what in (
        ("data", "photographs"), ("kind", "photographs"), ("versions", "libraries"), ("gpu", "GPUs")
    ):  # fmt: skip
        of = [run.record.get(key) for run in made]
        if key == "versions":
            of = [versions | {"mcunc": None} for versions in of]
        if len(set(map(str, of))) > 1:
            raise ValueError(f"folder: runs in {folder} are of different {what}")


def _ends(trials, made):
    """Log loss at the end of each trial, of passes where there are masks; and asked without."""
    ends = np.array([run["history"][-1] for run in made], float)
    off, accuracy = (ends[:, HISTORY.index(key)] for key in ("val_loss", "val_accuracy"))
    loss = [
        without if trial.arm == "standard" else run["loss_of_draws"][-1]
        for trial, run, without in zip(trials, made, off, strict=True)
    ]
    return {"loss": np.array(loss), "off_loss": off, "off_accuracy": accuracy}


def _record(run, network, seed, trials, made):
    """Where the runs were made, which may be elsewhere than they are put together.

    The place is that of the first of them, the git revisions are those of all.
    """
    command, first = f"python -m mcunc run {run} --network {network} --seed {seed}", made[0].record
    if "gpu" in first:
        command += " --device cuda"
    revisions = dict.fromkeys(run.record["git_revision"] for run in made)
    return {key: first[key] for key in PLACE if key in first} | {
        "git_revision": " ".join(filter(None, revisions)) or None,
        "command": command, "seed": seed,
        "hours": round(sum(run.record["hours"] for run in made), 2),
        "data": first["data"], "kind": first["kind"],
        "tried": [trial._asdict() for trial in trials],
        "recipe": {k: v for k, v in first["recipe"].items() if k not in VARIED},
    }  # fmt: skip


def _said(standard, dropped):
    """What both networks of a split said of each photograph that judges, the other in two ways."""
    label = standard["labels"].astype(int)
    log_probs = standard["off_log_probs"], dropped["off_log_probs"], dropped["log_probs"]
    arrays = {
        "cases": standard["cases"],
        "information": dropped["mutual_information"].astype(np.float16),
        "loss_of_draws": dropped["loss_of_draws"],
        "history": np.stack([standard["history"], dropped["history"]]),
        "learned_loss": np.stack([standard["learned_loss"], dropped["learned_loss"]]),
        "learned_accuracy": np.stack([standard["learned_accuracy"], dropped["learned_accuracy"]]),
    }
    for way, of in zip(WAYS, log_probs, strict=True):
        scores, own = log_softmax(of, axis=1), np.arange(len(label))
        probs = np.exp(scores)
        scaled, maps = cross_fitted(TemperatureScaling(), of, label)
        columns = {
            "loss": -scores[own, label],
            "brier": ((probs - np.eye(probs.shape[1])[label]) ** 2).sum(axis=1),
            "confidence": probs.max(axis=1), "entropy": entropy(probs, axis=1),
            "tempered_loss": -np.log(scaled[own, label].clip(1e-300)),
        }  # fmt: skip
        arrays |= {f"{way}_{name}": column.astype(np.float32) for name, column in columns.items()}
        arrays[f"{way}_right"] = (probs.argmax(axis=1) == label).astype(np.uint8)
        arrays[f"{way}_temperature"] = np.float32(np.mean([m.temperature_ for m in maps]))
    return arrays
