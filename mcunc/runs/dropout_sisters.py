r"""Networks with dropout that tell two sister species by their hue: chapter 5.

They show what dropout's spread measures; seven minutes on two cores.

Training these networks amplifies rounding: after 800 steps two processors that differ in the last
digit of one sum have arrived at different weights.  The chapter therefore shows how they are
trained and computes its figures with the weights of this run.
"""

from functools import partial

import torch
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy
from torch.nn.utils import parameters_to_vector

from mcunc import birdwatch, networks, training
from mcunc.dropout import with_dropout
from mcunc.runs.common import cached, recorded_run

CASES, SETS = (60, 250, 1000, 10_000), (1, 2, 3, 4, 5)
SIZES, DROP, DECAY, STEPS, RATE = (1, 50, 50, 1), 0.2, 1e-4, 800, 0.01
BOTH, LAST = ("2", "4"), ("4",)  # layers whose inputs are dropped


def draw_sisters(n, seed):
    """Hues (n, 1) in standard deviations from the middle, and whether a bird is golden (n,)."""
    birds = birdwatch.draw_latents(n, seed=seed, covered=0, species=2)
    hue = (birds["hue"] - birdwatch.HUE_CENTRE) / birdwatch.HUE_SD
    return torch.tensor(hue[:, None]).float(), torch.tensor(birds["label"] % 2).float()


def train(hue, golden, layers=BOTH, seed=0):
    """Train one network on all cases at once: cross-entropy plus a penalty on squared weights."""
    network = with_dropout(networks.mlp(SIZES, seed=seed), DROP, layers)

    def loss(network):
        penalty = DECAY * sum(weight.square().sum() for weight in network.parameters())
        return cross_entropy(network(hue)[:, 0], golden) + penalty

    torch.manual_seed(seed)
    training.fit_full_batch(network.train(), loss, STEPS, learning_rate=RATE)
    return network.eval()


@recorded_run("dropout-sisters")
def run_sisters(seed, path):
    """Train small dropout networks on data sets of several sizes (chapter 5).

    Killed and called again, it goes on with the network it was at.

    Parameters
    ----------
    seed : int, of the initial weights and the masks

    Returns
    -------
    arrays
        ``weights-N-S`` (P,): the parameters, in the order of ``network.parameters()``, of the
        network trained on N birds of data set S.  ``weights-last-N-S`` has dropout before the last
        layer only; ``weights-half-N-S`` saw the first half of the N birds.
    details
    """
    few, many, first = CASES[0], CASES[-2], SETS[0]
    trainings = {f"{n}-{data}": (*draw_sisters(n, data), BOTH) for n in CASES for data in SETS}
    trainings[f"last-{few}-{first}"] = *draw_sisters(few, first), LAST
    half = (values[: many // 2] for values in draw_sisters(many, first))
    trainings[f"half-{many}-{first}"] = *half, BOTH
    about = {"cases": CASES, "sets": SETS, "sizes": SIZES, "drop": DROP, "decay": DECAY}
    about |= {"steps": STEPS, "learning_rate": RATE}
    arrays, seconds = {}, 0.0
    for name, task in trainings.items():
        part = cached(path, name, about, partial(weights, *task, seed))
        arrays[f"weights-{name}"] = part["weights"]
        seconds += float(part["seconds"])
    return arrays, about | {"seconds": seconds, "data": "drawn by mcunc.birdwatch.draw_latents"}


def weights(*task):
    """The parameters (P,) of a network that is trained on a task, with a seed as its last part."""
    return {"weights": parameters_to_vector(train(*task).parameters()).detach().numpy()}
