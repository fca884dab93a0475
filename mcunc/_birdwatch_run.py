"""Standard, dropout and ensemble on drawn birds: the run of chapter 6's first part."""

import sys
from pathlib import Path

import numpy as np
from scipy.special import softmax

from mcunc import birdwatch, calibration, networks, predictive, recorded, training
from mcunc._checks import check_count, check_folder
from mcunc.dropout import sample_logits, with_dropout

CASES = {250: 24, 1000: 12, 4000: 6, 16000: 2}  # birds to train on: epochs
PROBABILITIES = (0.0, 0.02, 0.05, 0.1)  # to drop; 0 is the standard network
MEMBERS = 5  # seeds; those at p = 0 are an ensemble
DRAWS = 30
TEST, UNSEEN, VALIDATION = 1000, 300, 500
SHOWN = 4000, 0.05  # the networks whose weights are kept: this many birds, at p = 0 and at this p
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


def network_of(p, seed=0):
    """The small Inception network, with dropout before every weight layer if p is not 0."""
    network = networks.small_inception(classes=8, seed=seed)
    return with_dropout(network, p) if p else network


def train(n, p, seed, checkpoint=None):
    """A network trained on n birds of its own, and the history of its training."""
    birds = birdwatch.draw_birds(n, seed=1000 * seed + n, eight_bit=True)
    held = birdwatch.draw_birds(VALIDATION, seed=40_000, eight_bit=True)
    pictures, network = as_bytes(held), network_of(p, seed)

    def watch(network):
        logits = training.predict_logits(network, pictures)
        return {
            "val_loss": calibration.log_loss_from_logits(logits, held.labels),
            "val_accuracy": float((logits.argmax(axis=1) == held.labels).mean()),
        }

    recipe = training.Recipe(
        epochs=CASES[n], batch_size=64, learning_rate=0.1, drops=(0.6, 0.8), weight_decay=1e-3
    )
    history = training.fit_minibatches(
        network, as_bytes(birds), birds.labels, recipe, None, watch, checkpoint, seed
    )
    return network, history


def predicted(network, p, pictures):
    """Mean probabilities (N, K) and, with dropout, expected entropy and mutual information (N,)."""
    if not p:
        probs = softmax(training.predict_logits(network, pictures).astype(float), axis=1)
        return {"probs": probs}
    summary = predictive.summarise_classes(logits=sample_logits(network, pictures, DRAWS))
    return {
        "probs": summary.mean,
        "expected_entropy": summary.expected_entropy,
        "mutual_information": summary.mutual_information,
    }


def run_birdwatch(seed=0, folder="runs"):
    """Train standard and dropout networks on four amounts of drawn birds, five seeds each.

    Killed and called again, it goes on with the network it was at.

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
    sets = {name: as_bytes(birds) for name, birds in held_out(seed).items()}
    found, weights, histories = {}, {}, {}
    for i, n in enumerate(CASES):
        for k, p in enumerate(PROBABILITIES):
            for member in range(MEMBERS):
                name = f"birdwatch-{n}-{p}-{member}"
                print(name, file=sys.stderr, flush=True)
                network, history = train(n, p, member, Path(folder) / f"{name}.pt")
                for group, pictures in sets.items():
                    for what, value in predicted(network, p, pictures).items():
                        found.setdefault(f"{group}_{what}", {})[i, k, member] = value
                if member == 0 and n == SHOWN[0]:
                    histories[str(p)] = [
                        {key: round(value, 4) for key, value in row.items() if key != "seconds"}
                        for row in history
                    ]
                    if p in (0.0, SHOWN[1]):
                        weights |= {
                            f"weights_{p}/{part}": value.numpy()
                            for part, value in network.state_dict().items()
                        }
    record = recorded.provenance(f"python -m mcunc run birdwatch-dropout --seed {seed}", seed)
    record |= {
        "data": "drawn by mcunc.birdwatch.draw_birds",
        "cases": list(CASES), "epochs": list(CASES.values()), "probabilities": PROBABILITIES,
        "members": MEMBERS, "draws": DRAWS, "hues": HUES.tolist(), "histories": histories,
    }  # fmt: skip
    path = Path(folder) / "birdwatch-dropout.npz"
    recorded.save(path, {name: _stacked(parts) for name, parts in found.items()} | weights, record)
    return path


def _stacked(parts):
    """(cases, probabilities, members, ...) in half precision; without p = 0 where it has none."""
    first = min(k for _, k, _ in parts)
    example = next(iter(parts.values()))
    shape = (len(CASES), len(PROBABILITIES) - first, MEMBERS, *example.shape)
    stacked = np.empty(shape, np.float16)
    for (i, k, member), value in parts.items():
        stacked[i, k - first, member] = value
    return stacked


def load_network(run, p):
    """A network of a recorded run, with its weights."""
    import torch

    network = network_of(p)
    prefix = f"weights_{p}/"
    state = {
        name.removeprefix(prefix): torch.from_numpy(run.arrays[name])
        for name in run.arrays if name.startswith(prefix)
    }  # fmt: skip
    network.load_state_dict(state)
    return network.eval()
