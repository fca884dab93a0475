"""Standard, dropout and ensemble on drawn birds: the run of chapter 6's first part."""

import sys
from pathlib import Path

import numpy as np
from scipy.special import entr, log_softmax

from mcunc import birdwatch, calibration, networks, predictive, recorded, training
from mcunc._checks import check_count, check_folder
from mcunc.dropout import sample_logits, with_dropout

# Birds to train on, and the four numbers of epochs among which every network has its choice.
EPOCHS = {250: (12, 24, 72, 216), 1000: (6, 12, 36, 108), 4000: (3, 6, 18, 36)}
# No dropout, each network with birds of its own; all with the birds of the first; dropout
# everywhere; everywhere but on the picture.
ARMS = ("standard", "shared", "everywhere", "spared")
WITHOUT_DROPOUT = ARMS[:2]
DROP = 0.05
BEHIND_THE_PICTURE = ["features.2", "features.3", "features.4", "head"]
MEMBERS = 5  # seeds; the networks without dropout of these are an ensemble
DRAWS = 30
TEST, UNSEEN, VALIDATION = 1000, 300, 500
KEPT = 4000  # the networks trained on so many birds keep their weights
HISTORY = ("train_loss", "train_accuracy", "val_loss", "val_accuracy")  # kept of every epoch
HUES = np.linspace(-2.5, 2.5, 21)  # of the slider, in standard deviations from the middle


def as_bytes(birds):
    """Pictures of birds drawn in 8 bits as (N, 3, size, size) uint8, as networks take them."""
    return np.ascontiguousarray(
        np.round(255 * birds.pictures).astype(np.uint8).transpose(0, 3, 1, 2)
    )


def held_out(seed=0):
    """Birds that no network trains on: test, unseen species, and a slider of the hue.

    Returns
    -------
    dict of name -> Birds; "slider" has one open bird of each of the four pairs at every one of
    `HUES`, pair after pair.
    """
    options = {"eight_bit": True}
    sets = {
        "test": birdwatch.draw_birds(TEST, seed=10_000 + seed, **options),
        "unseen": birdwatch.draw_birds(UNSEEN, seed=20_000 + seed, unseen=True, **options),
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


def network_of(arm, seed=0):
    """The small Inception network, with dropout before every weight layer, or all but the first."""
    network = networks.small_inception(classes=8, seed=seed)
    if arm in WITHOUT_DROPOUT:
        return network
    return with_dropout(network, DROP, None if arm == "everywhere" else BEHIND_THE_PICTURE)


def train(n, arm, seed, epochs, checkpoint=None):
    """A network trained on n birds, and the history of its training."""
    drawn = 0 if arm == "shared" else seed
    birds, held = birdwatch.draw_birds(n, seed=1000 * drawn + n, eight_bit=True), validation()
    pictures, network = as_bytes(held), network_of(arm, seed)

    def watch(network):
        logits = training.predict_logits(network, pictures)
        return {
            "val_loss": calibration.log_loss_from_logits(logits, held.labels),
            "val_accuracy": float((logits.argmax(axis=1) == held.labels).mean()),
        }

    recipe = training.Recipe(
        epochs=epochs, batch_size=64, learning_rate=0.1, drops=(0.6, 0.8), weight_decay=1e-3
    )
    history = training.fit_minibatches(
        network, as_bytes(birds), birds.labels, recipe, None, watch, checkpoint, seed
    )
    return network, history


def predicted(network, arm, pictures):
    """Log of mean probabilities (N, K); with dropout, expected entropy and mutual information."""
    if arm in WITHOUT_DROPOUT:
        logits = training.predict_logits(network, pictures).astype(float)
        return {"log_probs": log_softmax(logits, axis=1)}
    summary = predictive.summarise_classes(logits=sample_logits(network, pictures, DRAWS))
    return {
        "log_probs": np.log(summary.mean),
        "expected_entropy": summary.expected_entropy,
        "mutual_information": summary.mutual_information,
    }


def run_birdwatch(seed=0, folder="runs"):
    """Train networks of four kinds on three amounts of drawn birds, five seeds each.

    Each network is trained four times, for four numbers of epochs, and keeps the one with the
    least log loss on birds for validation.  Killed and called again, it goes on with the network
    it was at.

    Parameters
    ----------
    seed : int, decides the birds that are held out
    folder : path, takes the checkpoints and ``birdwatch-dropout.npz`` and .json

    Returns
    -------
    path of the .npz file

    Raises
    ------
    ValueError
        For a seed below 0, a folder that is no path, or a checkpoint of other settings.
    """
    seed = check_count("seed", seed, minimum=0)
    check_folder(folder)
    sets = held_out(seed)
    arrays, found, seconds = {}, {}, 0.0
    for i, n in enumerate(EPOCHS):
        for k, arm in enumerate(ARMS):
            for member in range(MEMBERS):
                tried = [_tried(n, arm, member, epochs, folder) for epochs in EPOCHS[n]]
                if (arm, member) != ("shared", 0):  # it is the first standard one: count it once
                    seconds += sum(one["seconds"] for one in tried)
                best = int(np.argmin([one["val_loss"] for one in tried]))
                found.setdefault("chosen", {})[i, k, member] = best
                losses = [one["val_loss"] for one in tried]
                found.setdefault("val_loss", {})[i, k, member] = losses
                for group, birds in sets.items():
                    answers = predicted(tried[best]["network"], arm, as_bytes(birds))
                    for what, value in answers.items():
                        found.setdefault(f"{group}_{what}", {})[i, k, member] = value
                if member == 0:
                    for epochs, one in zip(EPOCHS[n], tried, strict=True):
                        arrays[f"history_{n}_{arm}_{epochs}"] = one["history"]
                if n == KEPT and arm != "shared":
                    for part, value in tried[best]["network"].state_dict().items():
                        arrays[f"weights_{arm}_{member}/{part}"] = value.numpy()
    arrays |= {name: _stacked(name, parts) for name, parts in found.items()}
    record = recorded.provenance(f"python -m mcunc run birdwatch-dropout --seed {seed}", seed)
    record |= {
        "hours": round(seconds / 3600, 2),  # of training alone, one after another
        "data": "drawn by mcunc.birdwatch.draw_birds",
        "cases": list(EPOCHS), "epochs": list(EPOCHS.values()), "arms": ARMS, "drop": DROP,
        "members": MEMBERS, "draws": DRAWS, "hues": HUES.tolist(), "history": HISTORY,
        "kept": KEPT,
    }  # fmt: skip
    path = Path(folder) / recorded.file_name("birdwatch-dropout", seed)
    recorded.save(path, arrays, record)
    return path


def _tried(n, arm, member, epochs, folder):
    """One training: network, seconds, history (epochs, 4) and log loss on validation birds."""
    if arm == "shared" and member == 0:
        arm = "standard"  # the network whose birds the others share
    name = f"birdwatch-{n}-{arm}-{member}-{epochs}"
    print(name, file=sys.stderr, flush=True)
    network, rows = train(n, arm, member, epochs, Path(folder) / f"{name}.pt")
    network.eval()
    held = validation()
    val = predicted(network, arm, as_bytes(held))["log_probs"]
    return {
        "network": network,
        "seconds": sum(row["seconds"] for row in rows),
        "history": np.array([[row[key] for key in HISTORY] for row in rows], np.float32),
        "val_loss": calibration.log_loss_from_logits(val, held.labels),
    }


def excess_loss(log_probs, posterior):
    r"""Expected log loss above that of the truth, in nats: KL(posterior || prediction).

    .. math:: \sum_s p(s \mid x) \big(\log p(s \mid x) - \log q(s \mid x)\big)

    Parameters
    ----------
    log_probs : (..., N, K) array, log q
    posterior : (N, K) array, p

    Returns
    -------
    (..., N) array
    """
    return -entr(posterior).sum(axis=-1) - (posterior * log_probs).sum(axis=-1)


def _stacked(name, parts):
    """(cases, arms, members, ...), half precision; without the arms that have none of it."""
    first = min(k for _, k, _ in parts)
    example = next(iter(parts.values()))
    shape = (len(EPOCHS), len(ARMS) - first, MEMBERS, *np.shape(example))
    stacked = np.empty(shape, np.int8 if name == "chosen" else np.float16)
    for (i, k, member), value in parts.items():
        stacked[i, k - first, member] = value
    return stacked


def load_network(run, arm, member=0):
    """A network of a recorded run, trained on `KEPT` birds, with its weights; none is "shared"."""
    import torch

    network = network_of(arm)
    prefix = f"weights_{arm}_{member}/"
    state = {
        name.removeprefix(prefix): torch.from_numpy(run.arrays[name])
        for name in run.arrays if name.startswith(prefix)
    }  # fmt: skip
    network.load_state_dict(state)
    return network.eval()
