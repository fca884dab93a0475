"""Standard networks, dropout and ensembles on drawn birds: chapters 6 and 7.

It shows what each costs and gains where the truth is known; three hours and a half on two cores.
"""

from dataclasses import replace
from itertools import product

import numpy as np
from scipy.special import log_softmax

from mcunc import birdwatch, calibration, training
from mcunc.dropout import sample_logits
from mcunc.pretrained import DROP, VARIANTS, WITHOUT_DROPOUT, drawn_network
from mcunc.runs import common
from mcunc.runs.common import HISTORY, evaluator, pass_scores, progress, recorded_run

HUES = np.linspace(-2.5, 2.5, 21)  # of the slider, in standard deviations from the middle
EPOCHS = {  # by birds to train on: numbers of epochs among which every network has its choice
    250: (12, 24, 72, 216), 1000: (6, 12, 36, 108), 4000: (3, 6, 18, 36),
}  # fmt: skip
MEMBERS = 5  # seeds; the networks without dropout of these are an ensemble
DRAWS = 30  # passes
TEST, UNSEEN, VALIDATION = 1000, 300, 500  # birds
KEPT = 4000  # the networks trained on so many birds keep their weights
RECIPE = training.Recipe(
    epochs=1, batch_size=64, learning_rate=0.1, lr_milestones=(0.6, 0.8), weight_decay=1e-3
)


def held_out(seed=0):
    """Birds that no network trains on: test, unseen species, and a slider of the hue.

    Returns
    -------
    dict of name -> Birds; "slider" has one open bird of each of the four pairs at every one of
    `HUES`, pair after pair.
    """
    sets = {
        "test": birdwatch.draw_birds(TEST, seed=10_000 + seed, eight_bit=True),
        "unseen": birdwatch.draw_birds(UNSEEN, seed=20_000 + seed, unseen=True, eight_bit=True),
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


def validation():
    """Birds that decide for how long a network is trained."""
    return birdwatch.draw_birds(VALIDATION, seed=40_000, eight_bit=True)


def predicted(network, variant, birds):
    """Log of mean probabilities (N, K); with dropout, expected entropy and mutual information."""
    pictures = birdwatch.as_bytes(birds)
    if variant in WITHOUT_DROPOUT:
        logits = training.predict_logits(network, pictures).astype(float)
        return {"log_probs": log_softmax(logits, axis=1)}
    return pass_scores(sample_logits(network, pictures, DRAWS))


@recorded_run("birdwatch-dropout")
def run_birdwatch(seed, path):
    """Train networks of four variants on three amounts of drawn birds (chapter 6).

    Each network is trained four times, for four numbers of epochs, and keeps the one with the
    least log loss on birds for validation.  Killed and called again, it goes on with the network
    it was at.

    Parameters
    ----------
    seed : int, decides the birds that are held out
    """
    held, sets = validation(), held_out(seed)
    arrays, outputs, seconds = {}, {}, 0.0
    for n, variant, member in product(EPOCHS, VARIANTS, range(MEMBERS)):
        networks, histories, losses = _tried(n, variant, member, held, path.parent)
        if (variant, member) != ("shared", 0):  # it is the first standard one: count it once
            seconds += sum(map(common.seconds_of, histories))
        chosen = int(np.argmin(losses))
        values = {"chosen": chosen, "val_loss": losses}
        for group, birds in sets.items():
            outcome = predicted(networks[chosen], variant, birds)
            values |= {f"{group}_{key}": value for key, value in outcome.items()}
        for name, value in values.items():
            outputs.setdefault(name, []).append(value)
        if member == 0:
            for epochs, history in zip(EPOCHS[n], histories, strict=True):
                arrays[f"history_{n}_{variant}_{epochs}"] = common.history_array(history)
        if n == KEPT and variant != "shared":
            for part, value in networks[chosen].state_dict().items():
                arrays[f"weights_{variant}_{member}/{part}"] = value.numpy()
    for name, values in outputs.items():  # (cases, variants that have it, members, ...)
        values = np.array(values)
        arrays[name] = values.reshape(len(EPOCHS), -1, MEMBERS, *values.shape[1:])
    return arrays, {
        "seconds": seconds, "data": "drawn by mcunc.birdwatch.draw_birds",
        "cases": list(EPOCHS), "epochs": list(EPOCHS.values()), "arms": VARIANTS, "drop": DROP,
        "members": MEMBERS, "draws": DRAWS, "hues": HUES.tolist(), "history": HISTORY, "kept": KEPT,
    }  # fmt: skip


def _tried(n, variant, member, held, folder):
    """All trainings of one: networks, histories, and log losses on `held`."""
    drawn, tried = 0 if variant == "shared" else member, []
    if variant == "shared" and member == 0:
        variant = "standard"  # the network whose birds the others share
    birds = birdwatch.draw_birds(n, seed=1000 * drawn + n, eight_bit=True)
    evaluate = evaluator(birdwatch.as_bytes(held), held.labels)
    for epochs in EPOCHS[n]:
        name = f"birdwatch-{n}-{variant}-{member}-{epochs}"
        progress(name)
        network = drawn_network(variant, member)
        history = training.fit_minibatches(
            network, birdwatch.as_bytes(birds), birds.labels, replace(RECIPE, epochs=epochs), None,
            evaluate, folder / f"{name}.pt", member,
        )  # fmt: skip
        log_probs = predicted(network.eval(), variant, held)["log_probs"]
        loss = calibration.log_loss_from_logits(log_probs, held.labels)
        tried.append((network, history, loss))
    return zip(*tried, strict=True)
