r"""Dropout networks on tables of the UCI repository, by the published protocols: runs of chapter 5.

Gal & Ghahramani (2016), table 1, and the code that the authors published two years later.  One
hidden layer of rectifiers, masks on the inputs of both layers, Adam; the probability to drop and
the precision :math:`\tau` are those with the best log likelihood on the last fifth of the
training rows; the network that was best there is tested as it is, and another with its settings
after training on all of them, since the authors' code has had both.  Or they are those that the
paper's own code fixes for each table.
"""

from dataclasses import asdict, dataclass
from time import perf_counter

import numpy as np
import torch
from tqdm import tqdm

from mcunc import data, recorded
from mcunc._internal import checkpoint as checkpoints
from mcunc._internal.checks import check_choice
from mcunc._internal.seeds import derive_seed
from mcunc.networks import DropoutMLP
from mcunc.runs.common import command, option

LENGTH_SCALE = 0.01  # l of the prior
RATE = 0.001  # Adam's
PART = 0.8  # of the training rows that are learned from; the rest chooses
EPSILON = 1e-7  # of Adam, as in the authors' library; torch has 1e-8
MULTIPLES = (1, 2, 4, 8, 16, 32, 64)  # of the chosen τ, beyond the grid's edge
EVERY = 120  # seconds between checkpoints


@dataclass(frozen=True)
class Protocol:
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


@dataclass(frozen=True)
class Passes:
    """By how many settings are judged, as in the authors' code; others and chosen ones tested."""

    choosing: int = 10_000
    others: int = 1_000
    tested: tuple = (1, 10, 100, 1_000, 10_000)


BOOK = Passes()


@dataclass(frozen=True)
class Fixed:
    """Settings of one table: probability to drop, precision, length scale of the prior."""

    drop: float
    precision: float
    length_scale: float = LENGTH_SCALE


# As in <table>/net/net/net.py of https://github.com/yaringal/DropoutUncertaintyExps at commits
# 928e719 (concrete), 8454256 (energy) and 3e9e154, precisions "obtained from BO".
FIXED = {
    "concrete": Fixed(0.01, 0.0557319157756),
    "energy": Fixed(0.05, 0.427114830213),
    "kin8nm": Fixed(0.05, 192.482910156),
    "power-plant": Fixed(0.005, 0.0871109017617),
    "wine-quality-red": Fixed(0.05, 2.95833720839),
    "yacht": Fixed(0.01, 0.541869562034, 0.1),
}


@dataclass(eq=False)
class Tables:
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


def tables(found, part=PART):
    """The splits of a `RegressionSet`, standardised by the rows that are learned from."""
    splits = []
    for train, test in zip(found.train, found.test, strict=True):
        learned, judging = np.split(train, [int(part * len(train))])
        mean, std = found.X[learned].mean(axis=0), found.X[learned].std(axis=0)
        std[std == 0] = 1
        centre, scale = found.y[learned].mean(), found.y[learned].std()
        columns = []
        for rows in (learned, judging, test):
            columns += [(found.X[rows] - mean) / std, (found.y[rows] - centre) / scale]
        splits.append((*columns, scale))
    x, y, judge_x, judge_y, test_x, test_y, scale = (
        torch.from_numpy(np.stack(column)).float() for column in zip(*splits, strict=True)
    )
    return Tables(x, y, (judge_x, judge_y), (test_x, test_y), scale)


def _generator(seed, purpose):
    """For each purpose its own, so that none depends on where a run was resumed."""
    return torch.Generator().manual_seed(derive_seed(seed, purpose))


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


def train(networks, tables, penalty, protocol, generator, checkpoint=None, about=None):
    """Train all networks; killed and called again, they go on from the checkpoint.

    Parameters
    ----------
    networks : DropoutMLP of R = S·G networks, trained in place
    tables : Tables of S splits
    penalty : (R,) array, as `penalty_of`
    protocol : Protocol
    generator : torch.Generator, of order and masks
    checkpoint : path, optional
    about : dict of numbers and strings, optional
        What else tells this run from others.

    Returns
    -------
    float, seconds that all of it took
    """
    splits, cases = tables.y.shape
    settings = len(penalty) // splits
    run = {"protocol": asdict(protocol), "penalty": penalty.tolist()} | (about or {})
    penalty = torch.as_tensor(penalty).float().reshape(-1, 1, 1)
    optimiser = torch.optim.Adam(networks.parameters(), lr=RATE, eps=EPSILON, fused=True)
    done, spent = 0, 0.0
    if state := checkpoints.resume(checkpoint, run, networks, optimiser):
        done, spent = state["epochs"], state["seconds"]
        generator.set_state(state["generator"])
    begin = last = perf_counter()
    for epoch in tqdm(range(done, protocol.epochs), initial=done, total=protocol.epochs,
                      unit="epoch", disable=None):  # fmt: skip
        order = torch.rand((splits, cases), generator=generator).argsort(dim=1)
        for rows in order.split(protocol.batch, dim=1):
            x = tables.x.gather(1, rows[..., None].expand(-1, -1, tables.x.shape[2]))
            y = tables.y.gather(1, rows)
            x, y = (value.repeat_interleave(settings, dim=0) for value in (x, y))
            residual = networks(x, generator)[..., 0] - y
            decay = sum((penalty * weight**2).sum() for weight in networks.weights)
            optimiser.zero_grad()
            (residual.square().mean(dim=1).sum() + decay).backward()
            optimiser.step()
        if perf_counter() - last > EVERY or epoch + 1 == protocol.epochs:
            last = perf_counter()
            state = {"epochs": epoch + 1, "seconds": spent + last - begin,
                     "generator": generator.get_state()}  # fmt: skip
            checkpoints.save(checkpoint, run, networks, optimiser, state)
    return spent + perf_counter() - begin


def score(networks, x, y, scale, precisions, draws, generator):
    r"""Log likelihood and error of passes, in the outcomes' own units.

    .. math:: \log \frac1T \sum_t N(y; \hat y_t, \tau^{-1})

    Parameters
    ----------
    networks : DropoutMLP of R networks
    x, y, scale : (R, n, k), (R, n) and (R,) tensors, standardised but for the scale
    precisions : (R,) tensor
    draws : sequence of int, numbers of passes after which to look
    generator : torch.Generator, of the masks

    Returns
    -------
    dict: "log_likelihood" and "rmse", (len(draws), R) arrays
    """
    precisions, scale = precisions[:, None].double(), scale[:, None].double()
    y = y.double() * scale
    total, mean = torch.full_like(y, -torch.inf), torch.zeros_like(y)
    found = []
    for t in range(1, max(draws) + 1):
        passed = networks(x, generator)[..., 0].double() * scale
        total = torch.logaddexp(total, -precisions / 2 * (y - passed) ** 2)
        mean += (passed - mean) / t
        if t in draws:
            density = total - np.log(t) + (precisions.log() - np.log(2 * np.pi)) / 2
            error = (y - mean).square().mean(dim=1).sqrt()
            found.append((density.mean(dim=1).numpy(), error.numpy()))
    columns = zip(("log_likelihood", "rmse"), zip(*found, strict=True), strict=True)
    return {name: np.stack(column) for name, column in columns}


@command(
    "uci",
    option(
        "--set", dest="name", nargs="+", choices=[*data.UCI], default=[*data.UCI],
        help="(default: all six)",
    ),
    option("--protocol", choices=[*PROTOCOLS], help="(default: paper)"),
)  # fmt: skip
def run_uci(
    name="yacht", protocol="paper", seed=0, folder="runs", *, how=None, passes=BOOK, fixed=None,
    table=None,
):  # fmt: skip
    """Train and test dropout networks on one UCI set by a published protocol.

    Beside the published figures it keeps what explains them: scores of every setting; of the
    chosen networks with dropout off, and with larger precisions than were tried; and of networks
    with the chosen settings trained on all training rows.

    Killed and called again, it goes on from the last checkpoint.  Source: Gal & Ghahramani (2016),
    table 1, and the code of its authors.  Introduced in chapter 5.

    Parameters
    ----------
    name : str, one of `data.UCI`
    protocol : {"original", "paper", "short", "rerun"}
        400 epochs in steps of 32 cases on all training rows, settings as the paper's code fixes
        them; settings chosen among two probabilities to drop and the rerun's precisions; 400
        epochs in steps of 128 and four probabilities; or 4,000 of these.
    seed : int, of initial weights, order and masks
    folder : path, takes the checkpoint and the result
    how : Protocol, instead of the named one
    passes : Passes
    fixed : Fixed, instead of those of the set
    table : RegressionSet, instead of that of the name

    Returns
    -------
    path of the .npz file

    Raises
    ------
    ValueError
        For an argument outside its range, or a checkpoint of other settings.
    FileNotFoundError
        Where the data are not here.
    """
    check_choice("protocol", protocol, tuple(PROTOCOLS))
    seed, path = recorded.destination(f"uci-{name}-{protocol}", seed, folder)
    found, how = table or data.uci(name), how or PROTOCOLS[protocol]
    fixed = (fixed or FIXED[name]) if protocol == "original" else None
    about = {
        "data": found.source, "set": name, "seed": seed, "hidden": found.hidden,
        "learning_rate": RATE, "epsilon": EPSILON,
        "length_scale": fixed.length_scale if fixed else LENGTH_SCALE,
    }  # fmt: skip
    if fixed:
        arrays, record = _original(found, fixed, how, seed, path, about, passes)
    else:
        arrays, record = _chosen(found, how, seed, path, about, passes)
    command = f"python -m mcunc run uci --set {name} --protocol {protocol} --seed {seed}"
    record = recorded.provenance(command, seed) | about | {"protocol": protocol} | record
    recorded.save(path, arrays, record)
    return path


def _original(found, fixed, how, seed, path, about, passes):
    """Arrays and record of networks with fixed settings, trained on all training rows."""
    splits = len(found.train)
    drops, precisions = np.full(splits, fixed.drop), np.full(splits, fixed.precision)
    seconds, (split, networks) = _trained(
        found, 1.0, drops, precisions, how, _generator(seed, "train"), path.with_suffix(".pt"),
        about,
    )  # fmt: skip
    begin, generator = perf_counter(), _generator(seed, "passes")
    taus = torch.as_tensor(precisions)
    with torch.no_grad():
        arrays = score(networks, *split.test, split.scale, taus, passes.tested, generator)
        arrays |= _off(networks, split, taus, generator)
    seconds += perf_counter() - begin
    return arrays, asdict(how) | asdict(fixed) | {
        "hours": round(seconds / 3600, 3), "cases": len(found.train[0]), "passes": passes.tested,
    }  # fmt: skip


def _chosen(found, how, seed, path, about, passes):
    """Arrays and record of networks whose settings the last fifth of the training rows chose."""
    drops, precisions = grid(how.drops, found.precisions)
    seconds, (split, networks) = _trained(
        found, PART, *(np.tile(of, len(found.train)) for of in (drops, precisions)), how,
        _generator(seed, "train"), path.with_suffix(".pt"), about,
    )  # fmt: skip
    begin = perf_counter()
    arrays = _tested(networks, split, drops, precisions, _generator(seed, "passes"), passes)
    judging = perf_counter() - begin
    best = arrays["chosen"]
    again, (split, networks) = _trained(
        found, 1.0, drops[best], precisions[best], how, _generator(seed, "refit"),
        path.with_name(f"{path.stem}-refit.pt"), about,
    )  # fmt: skip
    taus, generator = torch.as_tensor(precisions[best]), _generator(seed, "refit passes")
    with torch.no_grad():
        refitted = score(networks, *split.test, split.scale, taus, passes.tested[-1:], generator)
    arrays |= {f"refit_{key}": value[0] for key, value in refitted.items()}
    return arrays, asdict(how) | {
        "hours": round((seconds + judging + again) / 3600, 2),
        "cases": int(PART * len(found.train[0])),
        "drops_of_settings": drops.tolist(), "precisions_of_settings": precisions.tolist(),
        "choosing": passes.choosing, "others": passes.others, "passes": passes.tested,
        "multiples": MULTIPLES,
    }  # fmt: skip


def _trained(found, part, drops, precisions, how, generator, checkpoint, about):
    """Seconds, and the tables of a part of the training rows with R networks trained on them."""
    split = tables(found, part)
    _, cases, inputs = split.x.shape
    networks = new_networks(inputs, found.hidden, drops, generator)
    penalty = penalty_of(drops, precisions, cases, about["length_scale"])
    return train(networks, split, penalty, how, generator, checkpoint, about), (split, networks)


def _off(networks, split, taus, generator):
    """Scores of what is tested with dropout off, which it then is."""
    networks.p.zero_()
    found = score(networks, *split.test, split.scale, taus, (1,), generator)
    return {f"off_{key}": value[0] for key, value in found.items()}


def _tested(networks, split, drops, precisions, generator, passes):
    """Scores of all settings on both parts, and of the chosen ones after more passes."""
    splits, settings = len(split.x), len(drops)
    taus = torch.as_tensor(np.tile(precisions, splits))
    arrays = {}
    with torch.no_grad():
        for part, draws in (("judge", passes.choosing), ("test", passes.others)):
            x, y, scale = (
                of.repeat_interleave(settings, dim=0) for of in (*getattr(split, part), split.scale)
            )
            for key, value in score(networks, x, y, scale, taus, (draws,), generator).items():
                arrays[f"{part}_{key}"] = value.reshape(splits, settings)
        judged = arrays["judge_log_likelihood"]
        chosen = np.where(np.isnan(judged), -np.inf, judged).argmax(axis=1)  # the first of equals
        members = np.arange(splits) * settings + chosen
        few, taus = networks.only(members), taus[members]
        scores = score(few, *split.test, split.scale, taus, passes.tested, generator)
        for part in ("judge", "test"):
            # The penalty, where τ enters the training, is next to nothing: none is trained again.
            cases = *getattr(split, part), split.scale
            arrays[f"wide_{part}"] = np.concatenate([
                score(few, *cases, taus * multiple, (passes.others,), generator)["log_likelihood"]
                for multiple in MULTIPLES
            ])  # fmt: skip
        off = _off(few, split, taus, generator)
    return arrays | {"chosen": chosen.astype(np.uint8)} | scores | off
