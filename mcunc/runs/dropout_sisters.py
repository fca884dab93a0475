r"""Networks with dropout that tell two sister species by their hue: chapter 5.

They show what dropout's spread measures; seven minutes on two cores.

Training these networks amplifies rounding: after 800 steps two processors that differ in the last
digit of one sum have arrived at different weights.  The chapter therefore shows how they are
trained and computes its figures with the weights of this run.
"""

import sys
from time import perf_counter

import torch
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy
from torch.nn.utils import parameters_to_vector

from mcunc import birdwatch, networks, recorded, training
from mcunc.dropout import with_dropout
from mcunc.runs.common import command, provenance, save

CASES, SETS = (60, 250, 1000, 10_000), (1, 2, 3, 4, 5)
SIZES, DROP, DECAY, STEPS, RATE = (1, 50, 50, 1), 0.2, 1e-4, 800, 0.01
BOTH, LAST = ("2", "4"), ("4",)  # layers whose inputs are dropped


def draw_sisters(n, seed):
    """Hues (n, 1) in standard deviations from the middle, and whether a bird is golden (n,)."""
    birds = birdwatch.draw_latents(n, seed=seed, covered=0, species=2)
    hue = (birds["hue"] - birdwatch.HUE_CENTRE) / birdwatch.HUE_SD
    return torch.tensor(hue[:, None]).float(), torch.tensor(birds["label"] % 2).float()


def train(hue, golden, layers=BOTH, steps=STEPS, seed=0):
    """Train one network on all cases at once: cross-entropy plus a penalty on squared weights."""
    network = with_dropout(networks.mlp(SIZES, seed=seed), DROP, layers)

    def loss(network):
        penalty = DECAY * sum(weight.square().sum() for weight in network.parameters())
        return cross_entropy(network(hue)[:, 0], golden) + penalty

    torch.manual_seed(seed)
    training.fit_full_batch(network.train(), loss, steps, learning_rate=RATE)
    return network.eval()


@command("dropout-sisters")
def run_sisters(seed=0, folder="runs", cases=CASES, sets=SETS, steps=STEPS):
    """Train small dropout networks on data sets of several sizes (chapter 5).

    Parameters
    ----------
    seed : int, of the initial weights and the masks
    folder : path, takes ``dropout-sisters.npz`` and .json
    cases, sets : sequences of int, numbers of birds and seeds of the data
    steps : int, of Adam

    Returns
    -------
    path of the .npz file
        ``weights-N-S`` (P,): the parameters, in the order of ``network.parameters()``, of the
        network trained on N birds of data set S.  ``weights-last-N-S`` has dropout before the last
        layer only; ``weights-half-N-S`` saw the first half of the N birds.

    Raises
    ------
    ValueError
        For a seed below 0 or a folder that is no path.
    """
    seed, path = recorded.destination("dropout-sisters", seed, folder)
    begin, arrays = perf_counter(), {}

    def keep(name, *data, layers=BOTH):
        print(f"dropout-sisters: {name}", file=sys.stderr, flush=True)
        parameters = train(*data, layers, steps, seed).parameters()
        arrays[f"weights-{name}"] = parameters_to_vector(parameters).detach().numpy()

    for n in cases:
        for data in sets:
            keep(f"{n}-{data}", *draw_sisters(n, data))
    few, many, first = cases[0], cases[-2], sets[0]
    keep(f"last-{few}-{first}", *draw_sisters(few, first), layers=LAST)
    half = (values[: many // 2] for values in draw_sisters(many, first))
    keep(f"half-{many}-{first}", *half)
    seconds = perf_counter() - begin
    record = provenance(f"dropout-sisters --seed {seed}", seed, seconds=seconds) | {
        "data": "drawn by mcunc.birdwatch.draw_latents", "cases": cases, "sets": sets,
        "sizes": SIZES, "drop": DROP, "decay": DECAY, "steps": steps, "learning_rate": RATE,
    }  # fmt: skip
    return save(path, arrays, record)
