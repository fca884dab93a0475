r"""Dropout networks on tables of the UCI repository, by the published protocols: chapter 5b.

They reproduce a published table and explain it; minutes to an hour for each set on two cores.

Gal & Ghahramani (2016), table 1, and the code that the authors published two years later.  One
hidden layer of ReLUs, masks on the inputs of both layers, Adam; the probability to drop and
the precision :math:`\tau` are those with the best log likelihood on the last fifth of the
training rows; the network that was best there is tested as it is, and another with its settings
after training on all of them, since the authors' code has had both.  Or they are those that the
paper's own code fixes for each table.
"""

from time import perf_counter
from typing import NamedTuple

import numpy as np
import torch
from tqdm import trange

from mcunc import data, recorded
from mcunc._internal import checkpoint
from mcunc._internal.seeds import derive_seed
from mcunc.networks import DropoutMLP
from mcunc.runs.common import cached, option, penalised_step, recorded_run

LENGTH_SCALE = 0.01  # l of the prior
RATE = 0.001  # Adam's
PART = 0.8  # of the training rows that are learned from; the rest chooses
EPSILON = 1e-7  # of Adam, as in the authors' library; torch has 1e-8
MULTIPLES = (1, 2, 4, 8, 16, 32, 64)  # of the chosen τ, beyond the grid's edge
# Passes, as in the authors' code: to choose settings, to test all of them, and the chosen ones.
CHOOSING, OTHERS, TESTED = 10_000, 1_000, (1, 10, 100, 1_000, 10_000)


class Protocol(NamedTuple):
    """How networks are trained: epochs, cases of a step, probabilities to drop that are tried."""

    epochs: int
    batch: int
    drops: tuple


PROTOCOLS = {
    "original": Protocol(400, 32, ()),
    "paper": Protocol(400, 32, (0.005, 0.05)),
    "short": Protocol(400, 128, (0.005, 0.01, 0.05, 0.1)),
    "rerun": Protocol(4_000, 128, (0.005, 0.01, 0.05, 0.1)),
}


class Tables(NamedTuple):
    """Standardised tables of S splits and G settings, R = S·G networks in that order.

    Attributes
    ----------
    x, y : (S, n, k) and (S, n) tensors to learn from
    judge : pair of such tensors to choose by
    test : pair of such tensors
    scale : (S,) tensor, standard deviation of the outcomes that are learned from
    """

    x: torch.Tensor
    y: torch.Tensor
    judge: tuple
    test: tuple
    scale: torch.Tensor


def tables(dataset, part=PART):
    """The splits of a `RegressionSet`, standardised by the rows that are learned from."""
    splits, (X, y) = [], (dataset.X, dataset.y)
    for train, test in zip(dataset.train, dataset.test, strict=True):
        learned, judging = np.split(train, [int(part * len(train))])
        mean, std = X[learned].mean(axis=0), X[learned].std(axis=0)
        std[std == 0] = 1
        centre, scale = y[learned].mean(), y[learned].std()
        splits.append([scale])
        for rows in (learned, judging, test):
            splits[-1] += [(X[rows] - mean) / std, (y[rows] - centre) / scale]
    scale, x, y, *others = (
        torch.from_numpy(np.stack(column)).float() for column in zip(*splits, strict=True)
    )
    return Tables(x, y, tuple(others[:2]), tuple(others[2:]), scale)


def grid(drops, precisions):
    """Settings in the order in which they are tried: (G,) probabilities and (G,) precisions."""
    drops, precisions = np.meshgrid(drops, precisions, indexing="ij")
    return drops.ravel(), precisions.ravel()


def new_networks(inputs, hidden, drops, generator):
    """R networks with the initial weights that the authors' library gives: Glorot's uniform."""
    networks = DropoutMLP(drops, (inputs, hidden, 1), masked_inputs=True)
    with torch.no_grad():
        for weight in networks.weights:
            bound = (6 / sum(weight.shape[1:])) ** 0.5
            weight.copy_((2 * torch.rand(weight.shape, generator=generator) - 1) * bound)
    return networks


def penalty_of(drops, precisions, cases, length_scale=LENGTH_SCALE):
    """Factor of the squared weights, beside a mean squared error that is not halved: (R,)."""
    return (1 - drops) * length_scale**2 / (2 * cases * precisions)


def train(networks, tables, penalty, protocol, generator, path=None, source=None):
    """Train all networks; killed and called again, they go on from the checkpoint.

    Parameters
    ----------
    networks : DropoutMLP of R = S·G networks, trained in place
    tables : Tables of S splits
    penalty : (R,) array, as `penalty_of`
    protocol : Protocol
    generator : torch.Generator, of order and masks
    path : path of the checkpoint, optional
    source : str, optional, of the data: the checkpoint is of these

    Returns
    -------
    float, seconds that all of it took
    """
    splits, cases = tables.y.shape
    settings, begin = len(penalty) // splits, perf_counter()
    run = {"data": source, "cases": cases, "penalty": float(penalty.sum())} | protocol._asdict()
    penalty = torch.as_tensor(penalty).float().reshape(-1, 1, 1)
    optimiser = torch.optim.Adam(networks.parameters(), lr=RATE, eps=EPSILON, fused=True)
    state = checkpoint.resume(path, run, networks, optimiser) or {"epoch": 0, "seconds": 0.0}
    generator.set_state(state.get("generator", generator.get_state()))
    begin -= state["seconds"]
    for epoch in trange(state["epoch"], protocol.epochs, unit="epoch", disable=None):
        order = torch.rand((splits, cases), generator=generator).argsort(dim=1)
        for rows in order.split(protocol.batch, dim=1):
            x = tables.x.gather(1, rows[..., None].expand(-1, -1, tables.x.shape[2]))
            y = tables.y.gather(1, rows)
            x, y = (value.repeat_interleave(settings, dim=0) for value in (x, y))
            penalised_step(networks, optimiser, x, y, penalty, generator)
        if (epoch + 1) % (1 + protocol.epochs // 20) == 0 or epoch + 1 == protocol.epochs:
            state = {"epoch": epoch + 1, "seconds": perf_counter() - begin}
            state["generator"] = generator.get_state()
            checkpoint.save(path, run, networks, optimiser, state)
    return perf_counter() - begin


@torch.no_grad()
def score(networks, x, y, scale, precisions, draws, generator):
    r"""Log likelihood and error of passes, in the outcomes' own units.

    .. math:: \log \frac1T \sum_t N(y; \hat y_t, \tau^{-1})

    Parameters
    ----------
    networks : DropoutMLP of R networks
    x, y, scale : (R, n, k), (R, n) and (R,) tensors, standardised but for the scale
    precisions : (R,) array
    draws : sequence of int, numbers of passes after which to look
    generator : torch.Generator, of the masks

    Returns
    -------
    dict: "log_likelihood" and "rmse", (len(draws), R) arrays
    """
    precisions, scale = torch.as_tensor(precisions)[:, None].double(), scale[:, None].double()
    y = y.double() * scale
    total, mean = torch.full_like(y, -torch.inf), torch.zeros_like(y)
    scores = {"log_likelihood": [], "rmse": []}
    for t in range(1, max(draws) + 1):
        passed = networks(x, generator)[..., 0].double() * scale
        total = torch.logaddexp(total, -precisions / 2 * (y - passed) ** 2)
        mean += (passed - mean) / t
        if t in draws:
            density = total - np.log(t) + (precisions.log() - np.log(2 * np.pi)) / 2
            scores["log_likelihood"].append(density.mean(dim=1).numpy())
            scores["rmse"].append((y - mean).square().mean(dim=1).sqrt().numpy())
    return {name: np.stack(rows) for name, rows in scores.items()}


SETS = {"choices": [*data.UCI], "default": [*data.UCI], "help": "(default: all six)"}


@recorded_run(
    "uci",
    option("--set", dest="name", nargs="+", **SETS),
    option("--protocol", choices=[*PROTOCOLS], help="(default: paper)"),
)
def run_uci(seed, path, name="yacht", protocol="paper"):
    """Train and test dropout networks on UCI sets by a published protocol (chapter 5b).

    Beside the published figures it keeps what explains them: scores of every setting; of the
    chosen networks with dropout off, and with larger precisions than were tried; and of networks
    with the chosen settings trained on all training rows.  Killed and called again, it goes on
    from the last checkpoint, and does not compare the settings again.

    Source: Gal & Ghahramani (2016), table 1, and the code of its authors.

    Parameters
    ----------
    seed : int, of initial weights, order and masks
    name : str, one of `data.UCI`
    protocol : {"original", "paper", "short", "rerun"}
        400 epochs in steps of 32 cases on all training rows, settings as the paper's code fixes
        them; settings chosen among two probabilities to drop and the rerun's precisions; 400
        epochs in steps of 128 and four probabilities; or 4,000 of these.
    """
    dataset, how = data.uci(name), PROTOCOLS[protocol]
    fixed = recorded.published("uci")["fixed"]["sets"][name] if protocol == "original" else None
    length_scale = fixed[2] if fixed else LENGTH_SCALE
    study = Study(dataset, how, seed, length_scale, path, [])
    arrays, details = study.fixed(*fixed[:2]) if fixed else study.chosen()
    return arrays, details | how._asdict() | {
        "seconds": sum(study.seconds),
        "data": dataset.source, "set": name, "hidden": dataset.hidden, "learning_rate": RATE,
        "epsilon": EPSILON, "length_scale": length_scale, "protocol": protocol, "passes": TESTED,
    }  # fmt: skip


class Study(NamedTuple):
    """The networks of one run: those that choose their settings, and those that are tested."""

    dataset: data.RegressionSet
    how: Protocol
    seed: int
    length_scale: float
    path: object  # of the result
    seconds: list  # that trainings and the comparison took

    def generator(self, purpose):
        """For each purpose its own."""
        return torch.Generator().manual_seed(derive_seed(self.seed, purpose))

    def trained(self, part, drops, precisions, purpose="train"):
        """Tables of a part of the training rows, and R networks trained on them."""
        path, source = self.path.with_name(f"{self.path.stem}-{purpose}.pt"), self.dataset.source
        split, generator = tables(self.dataset, part), self.generator(purpose)
        _, cases, inputs = split.x.shape
        networks = new_networks(inputs, self.dataset.hidden, drops, generator)
        penalty = penalty_of(drops, precisions, cases, self.length_scale)
        self.seconds.append(train(networks, split, penalty, self.how, generator, path, source))
        return split, networks

    def fixed(self, drop, precision):
        """Arrays and record of networks with fixed settings, trained on all training rows."""
        splits = len(self.dataset.train)
        drops, precisions = np.full(splits, drop), np.full(splits, precision)
        split, networks = self.trained(1.0, drops, precisions)
        arrays = tested(split, networks, precisions, self.generator("passes"))
        cases = len(self.dataset.train[0])
        return arrays, {"drop": drop, "precision": precision, "cases": cases}

    def chosen(self):
        """Arrays and record of networks whose settings the last fifth of the rows chose."""
        drops, precisions = grid(self.how.drops, self.dataset.precisions)
        every = [np.tile(values, len(self.dataset.train)) for values in (drops, precisions)]
        trained = self.trained(PART, *every)
        about = [self.dataset.source, self.how, *precisions, CHOOSING, OTHERS, TESTED, MULTIPLES]
        arrays = cached(self.path, "compared", about, lambda: self.compared(*trained, precisions))
        self.seconds.append(float(arrays.pop("seconds")))
        best = drops[arrays["chosen"]], precisions[arrays["chosen"]]
        split, networks = self.trained(1.0, *best, "refit")
        passes = self.generator("refit passes")
        refitted = score(networks, *split.test, split.scale, best[1], TESTED[-1:], passes)
        arrays |= {f"refit_{key}": value[0] for key, value in refitted.items()}
        return arrays, {
            "cases": int(PART * len(self.dataset.train[0])), "multiples": MULTIPLES,
            "drops_of_settings": drops.tolist(), "precisions_of_settings": precisions.tolist(),
            "choosing": CHOOSING, "others": OTHERS,
        }  # fmt: skip

    def compared(self, split, networks, precisions):
        """Scores of all settings on both parts, and of the chosen ones after more passes."""
        splits, settings = len(split.x), len(precisions)
        taus, generator = np.tile(precisions, splits), self.generator("passes")
        parts, arrays = {"judge": split.judge, "test": split.test}, {}
        for part, draws in (("judge", CHOOSING), ("test", OTHERS)):
            cases = [v.repeat_interleave(settings, dim=0) for v in (*parts[part], split.scale)]
            for key, value in score(networks, *cases, taus, (draws,), generator).items():
                arrays[f"{part}_{key}"] = value.reshape(splits, settings)
        judged = arrays["judge_log_likelihood"]
        chosen = np.where(np.isnan(judged), -np.inf, judged).argmax(axis=1)  # the first of equals
        members = np.arange(splits) * settings + chosen
        few, taus = networks.only(members), taus[members]
        for part, cases in parts.items():
            # The penalty, where τ enters the training, is next to nothing: none is trained again.
            scores = [
                score(few, *cases, split.scale, taus * multiple, (OTHERS,), generator)
                for multiple in MULTIPLES
            ]
            arrays[f"wide_{part}"] = np.concatenate([each["log_likelihood"] for each in scores])
        return arrays | {"chosen": chosen} | tested(split, few, taus, generator)


def tested(split, networks, precisions, generator):
    """Scores on the test rows after several numbers of passes; with dropout off, as it is then."""
    arrays = score(networks, *split.test, split.scale, precisions, TESTED, generator)
    networks.p.zero_()
    off = score(networks, *split.test, split.scale, precisions, (1,), generator)
    return arrays | {f"off_{key}": value[0] for key, value in off.items()}
