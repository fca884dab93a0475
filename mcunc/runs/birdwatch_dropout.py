"""Standard, dropout and ensemble on drawn birds: the run of chapter 6's first part."""

import sys
from dataclasses import dataclass, field
from itertools import product

import numpy as np
from scipy.special import log_softmax

from mcunc import birdwatch, calibration, predictive, recorded, training
from mcunc.dropout import sample_logits
from mcunc.pretrained import ARMS, DROP, WITHOUT_DROPOUT, drawn_network
from mcunc.runs.common import command, scores

HISTORY = ("train_loss", "train_accuracy", "val_loss", "val_accuracy")  # kept of every epoch
HUES = np.linspace(-2.5, 2.5, 21)  # of the slider, in standard deviations from the middle


@dataclass(frozen=True, eq=False)
class Sizes:
    """How large the run is; as it stands, that of the chapter.

    Attributes
    ----------
    epochs : dict, birds to train on: numbers of epochs among which every network has its choice
    arms : tuple of str, of `ARMS`
    members : int, seeds; the networks without dropout of these are an ensemble
    draws : int, passes
    test, unseen, validation : int, birds
    kept : int, the networks trained on so many birds keep their weights
    """

    epochs: dict = field(
        default_factory=lambda: {
            250: (12, 24, 72, 216), 1000: (6, 12, 36, 108), 4000: (3, 6, 18, 36),
        }
    )  # fmt: skip
    arms: tuple = ARMS
    members: int = 5
    draws: int = 30
    test: int = 1000
    unseen: int = 300
    validation: int = 500
    kept: int = 4000


BOOK = Sizes()


def held_out(seed=0, test=BOOK.test, unseen=BOOK.unseen):
    """Birds that no network trains on: test, unseen species, and a slider of the hue.

    Returns
    -------
    dict of name -> Birds; "slider" has one open bird of each of the four pairs at every one of
    `HUES`, pair after pair.
    """
    options = {"eight_bit": True}
    sets = {
        "test": birdwatch.draw_birds(test, seed=10_000 + seed, **options),
        "unseen": birdwatch.draw_birds(unseen, seed=20_000 + seed, unseen=True, **options),
    }
    latents = birdwatch.draw_latents(400, seed=30_000 + seed, covered=0.0)
    firsts = [np.flatnonzero(latents["pair"] == pair)[0] for pair in range(4)]
    swept = latents[np.repeat(firsts, len(HUES))].copy()
    swept["hue"] = birdwatch.HUE_CENTRE + birdwatch.HUE_SD * np.tile(HUES, 4)
    pictures, masks = birdwatch.render(swept, eight_bit=True)
    posterior = birdwatch.true_posterior(swept["hue"], swept["covered"], swept["pair"])
    sets["slider"] = birdwatch.Birds(
        pictures, swept["label"], posterior, swept["hue"], swept["covered"], masks, swept,
        eight_bit=True,
    )  # fmt: skip
    return sets


def validation(n=BOOK.validation):
    """Birds that decide for how long a network is trained."""
    return birdwatch.draw_birds(n, seed=40_000, eight_bit=True)


def train(birds, held, arm, seed, epochs, checkpoint=None):
    """A network trained on birds and watched on those held out, and the history of its training."""
    network, pictures = drawn_network(arm, seed), birdwatch.as_bytes(held)
    recipe = training.Recipe(
        epochs=epochs, batch_size=64, learning_rate=0.1, lr_milestones=(0.6, 0.8), weight_decay=1e-3
    )
    history = training.fit_minibatches(
        network, birdwatch.as_bytes(birds), birds.labels, recipe, None,
        lambda network: scores(training.predict_logits(network, pictures), held.labels),
        checkpoint, seed,
    )  # fmt: skip
    return network, history


def predicted(network, arm, pictures, draws):
    """Log of mean probabilities (N, K); with dropout, expected entropy and mutual information."""
    if arm in WITHOUT_DROPOUT:
        logits = training.predict_logits(network, pictures).astype(float)
        return {"log_probs": log_softmax(logits, axis=1)}
    summary = predictive.summarise_classes(logits=sample_logits(network, pictures, draws))
    return {
        "log_probs": np.log(summary.mean),
        "expected_entropy": summary.expected_entropy,
        "mutual_information": summary.mutual_information,
    }


@command("birdwatch-dropout")
def run_birdwatch(seed=0, folder="runs", sizes=BOOK):
    """Train networks of four kinds on three amounts of drawn birds, five seeds each.

    Each network is trained four times, for four numbers of epochs, and keeps the one with the
    least log loss on birds for validation.  Killed and called again, it goes on with the network
    it was at.

    Parameters
    ----------
    seed : int, decides the birds that are held out
    folder : path, takes the checkpoints and ``birdwatch-dropout.npz`` and .json
    sizes : Sizes

    Returns
    -------
    path of the .npz file

    Raises
    ------
    ValueError
        For a seed below 0, a folder that is no path, or a checkpoint of other settings.
    """
    seed, path = recorded.destination("birdwatch-dropout", seed, folder)
    held, sets = validation(sizes.validation), held_out(seed, sizes.test, sizes.unseen)
    arrays, found, seconds = {}, {}, 0.0
    for (i, n), (k, arm), member in product(
        enumerate(sizes.epochs), enumerate(sizes.arms), range(sizes.members)
    ):
        tried = _tried(n, arm, member, held, sizes, path.parent)
        if (arm, member) != ("shared", 0):  # it is the first standard one: count it once
            seconds += sum(one["seconds"] for one in tried)
        losses = [one["val_loss"] for one in tried]
        best = tried[int(np.argmin(losses))]["network"]
        said = {"chosen": int(np.argmin(losses)), "val_loss": losses}
        for group, birds in sets.items():
            answers = predicted(best, arm, birdwatch.as_bytes(birds), sizes.draws)
            said |= {f"{group}_{what}": value for what, value in answers.items()}
        for name, value in said.items():
            found.setdefault(name, {})[i, k, member] = value
        if member == 0:
            for epochs, one in zip(sizes.epochs[n], tried, strict=True):
                arrays[f"history_{n}_{arm}_{epochs}"] = one["history"]
        if n == sizes.kept and arm != "shared":
            for part, value in best.state_dict().items():
                arrays[f"weights_{arm}_{member}/{part}"] = value.numpy()
    arrays |= {name: _stacked(name, parts) for name, parts in found.items()}
    recorded.save(path, arrays, _record(seed, seconds, sizes))
    return path


def _record(seed, seconds, sizes):
    return recorded.provenance(f"python -m mcunc run birdwatch-dropout --seed {seed}", seed) | {
        "hours": round(seconds / 3600, 2),  # of training alone, one after another
        "data": "drawn by mcunc.birdwatch.draw_birds",
        "cases": list(sizes.epochs), "epochs": list(sizes.epochs.values()), "arms": sizes.arms,
        "drop": DROP, "members": sizes.members, "draws": sizes.draws, "hues": HUES.tolist(),
        "history": HISTORY, "kept": sizes.kept,
    }  # fmt: skip


def _tried(n, arm, member, held, sizes, folder):
    """All trainings of one: network, seconds, history (epochs, 4) and log loss on `held`."""
    drawn, found = 0 if arm == "shared" else member, []
    if arm == "shared" and member == 0:
        arm = "standard"  # the network whose birds the others share
    birds = birdwatch.draw_birds(n, seed=1000 * drawn + n, eight_bit=True)
    for epochs in sizes.epochs[n]:
        name = f"birdwatch-{n}-{arm}-{member}-{epochs}"
        print(name, file=sys.stderr, flush=True)
        network, rows = train(birds, held, arm, member, epochs, folder / f"{name}.pt")
        val = predicted(network.eval(), arm, birdwatch.as_bytes(held), sizes.draws)["log_probs"]
        found.append({
            "network": network,
            "seconds": sum(row["seconds"] for row in rows),
            "history": np.array([[row[key] for key in HISTORY] for row in rows], np.float32),
            "val_loss": calibration.log_loss_from_logits(val, held.labels),
        })  # fmt: skip
    return found


def _stacked(name, parts):
    """(cases, arms, members, ...), half precision; without the arms that have none of it."""
    first = min(k for _, k, _ in parts)
    cases, arms, members = (1 + np.max(list(parts), axis=0)).tolist()
    shape = (cases, arms - first, members, *np.shape(next(iter(parts.values()))))
    stacked = np.empty(shape, np.int8 if name == "chosen" else np.float16)
    for (i, k, member), value in parts.items():
        stacked[i, k - first, member] = value
    return stacked
