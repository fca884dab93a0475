"""Standard networks, dropout and ensembles on drawn birds: chapters 6 and 7.

It shows what each costs and gains where the truth is known; three hours and a half on two cores.
"""

import sys
from dataclasses import dataclass, field
from itertools import product

import numpy as np
from scipy.special import log_softmax

from mcunc import birdwatch, calibration, predictive, recorded, training
from mcunc.dropout import sample_logits
from mcunc.pretrained import DROP, VARIANTS, WITHOUT_DROPOUT, drawn_network
from mcunc.runs.common import (
    HISTORY,
    command,
    evaluator,
    history_array,
    provenance,
    save,
    seconds_of,
)

HUES = np.linspace(-2.5, 2.5, 21)  # of the slider, in standard deviations from the middle


@dataclass(frozen=True, eq=False)
class Sizes:
    """How large the run is; the defaults are the chapter's.

    Attributes
    ----------
    epochs : dict, birds to train on: numbers of epochs among which every network has its choice
    variants : tuple of str, of `VARIANTS`
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
    variants: tuple = VARIANTS
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


def train(birds, held, variant, seed, epochs, checkpoint=None):
    """A network trained on birds and evaluated on those held out, and its history."""
    network, pictures = drawn_network(variant, seed), birdwatch.as_bytes(held)
    recipe = training.Recipe(
        epochs=epochs, batch_size=64, learning_rate=0.1, lr_milestones=(0.6, 0.8), weight_decay=1e-3
    )
    history = training.fit_minibatches(
        network, birdwatch.as_bytes(birds), birds.labels, recipe, None,
        evaluator(pictures, held.labels), checkpoint, seed,
    )  # fmt: skip
    return network, history


def predicted(network, variant, pictures, draws):
    """Log of mean probabilities (N, K); with dropout, expected entropy and mutual information."""
    if variant in WITHOUT_DROPOUT:
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
    """Train networks of four variants on three amounts of drawn birds (chapter 6).

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
    arrays, outputs, seconds = {}, {}, 0.0
    for n, variant, member in product(sizes.epochs, sizes.variants, range(sizes.members)):
        tried = _tried(n, variant, member, held, sizes, path.parent)
        if (variant, member) != ("shared", 0):  # it is the first standard one: count it once
            seconds += sum(each["seconds"] for each in tried)
        losses = [each["val_loss"] for each in tried]
        best = tried[int(np.argmin(losses))]["network"]
        values = {"chosen": int(np.argmin(losses)), "val_loss": losses}
        for group, birds in sets.items():
            of_group = predicted(best, variant, birdwatch.as_bytes(birds), sizes.draws)
            values |= {f"{group}_{key}": value for key, value in of_group.items()}
        for name, value in values.items():
            outputs.setdefault(name, []).append(value)
        if member == 0:
            for epochs, each in zip(sizes.epochs[n], tried, strict=True):
                arrays[f"history_{n}_{variant}_{epochs}"] = each["history"]
        if n == sizes.kept and variant != "shared":
            for part, value in best.state_dict().items():
                arrays[f"weights_{variant}_{member}/{part}"] = value.numpy()
    for name, values in outputs.items():  # (cases, variants that have it, members, ...)
        values = np.array(values)
        arrays[name] = values.reshape(len(sizes.epochs), -1, sizes.members, *values.shape[1:])
    record = provenance(f"birdwatch-dropout --seed {seed}", seed, seconds=seconds)  # of training
    return save(path, arrays, record | {
        "data": "drawn by mcunc.birdwatch.draw_birds",
        "cases": list(sizes.epochs), "epochs": list(sizes.epochs.values()), "arms": sizes.variants,
        "drop": DROP, "members": sizes.members, "draws": sizes.draws, "hues": HUES.tolist(),
        "history": HISTORY, "kept": sizes.kept,
    })  # fmt: skip


def _tried(n, variant, member, held, sizes, folder):
    """All trainings of one: network, seconds, history (epochs, 4) and log loss on `held`."""
    drawn, tried = 0 if variant == "shared" else member, []
    if variant == "shared" and member == 0:
        variant = "standard"  # the network whose birds the others share
    birds = birdwatch.draw_birds(n, seed=1000 * drawn + n, eight_bit=True)
    pictures = birdwatch.as_bytes(held)
    for epochs in sizes.epochs[n]:
        name = f"birdwatch-{n}-{variant}-{member}-{epochs}"
        print(name, file=sys.stderr, flush=True)
        network, history = train(birds, held, variant, member, epochs, folder / f"{name}.pt")
        val = predicted(network.eval(), variant, pictures, sizes.draws)["log_probs"]
        tried.append({
            "network": network, "seconds": seconds_of(history), "history": history_array(history),
            "val_loss": calibration.log_loss_from_logits(val, held.labels),
        })  # fmt: skip
    return tried
