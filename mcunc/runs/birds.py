"""Networks trained on photographs of birds, standard and with dropout: runs of chapter 6."""

from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from scipy.special import log_softmax
from torch import nn

from mcunc import data, predictive, recorded, training
from mcunc._internal import distributed
from mcunc._internal.checks import (
    check_choice,
    check_count,
    check_folder,
    check_fraction,
    check_positive,
)
from mcunc._internal.weight_deltas import changes
from mcunc.dropout import keyed_masks, sample_logits
from mcunc.pretrained import SETTINGS, Setting, photograph_network, zero_head
from mcunc.runs.birds_probes import Standardiser, fit_heads
from mcunc.runs.common import DEVICE, as_half, command, fit, option, provenance, scores

DRAWS = 50
PROBE_DECAY = 6e-4  # among the best of `birds_probes.DECAYS` on inner splits
HISTORY = ("train_loss", "train_accuracy", "val_loss", "val_accuracy")
INNER = ("cases", "history", "loss_of_draws")
ARMS = ("standard", "head", "last", "everywhere")


def learn_head(network, images, labels, seed):
    """Learn the head alone, on features as they are, and put it into the network.

    Fine-tuning from a random head first moves the features to where that head wants them, and
    what they were good for is lost (Kumar et al. 2022, *Fine-tuning can distort pretrained
    features*).
    """
    head, network.head = network.head, nn.Identity()
    x = training.predict_logits(network, images, batch_size=50)
    network.head = head
    standardise = Standardiser(x)
    (weight,) = fit_heads(standardise(x), labels, head.out_features, [0], [PROBE_DECAY], seed)
    slopes = weight[:-1] / standardise.std[:, None]
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(slopes.T))
        head.bias.copy_(torch.from_numpy(weight[-1] - standardise.mean @ slopes))


@command(
    "birds",
    option("--network", choices=[*SETTINGS], help="(default: efficientnet_lite0)"),
    option("--arm", choices=ARMS, help="where dropout is (default: standard, nowhere)"),
    option("--drop", type=float, help="probability of dropout (default: 0.2)"),
    option("--epochs", type=int, help="(default: those of the network)"),
    option("--size", type=int, help="pixels of a side (default: that of the network)"),
    option("--rate", type=float, help="learning rate (default: that of the network)"),
    option("--decay", type=float, help="weight decay (default: that of the network)"),
    option("--inner", action="store_true", help="judge on part of the training cases"),
    option("--split", type=int, help="seed of the split alone (default: the seed)"),
    DEVICE,
    together=True,
)
def run_birds(
    network="efficientnet_lite0", arm="standard", drop=None, epochs=None, size=None, rate=None,
    decay=None, inner=False, seed=0, folder="runs", device="cpu", split=None, *,
    settings=SETTINGS, draws=DRAWS, pictures=None,
):  # fmt: skip
    """Train a network on nine tenths of CUB-200 and ask it about the rest.

    Killed and called again, it goes on from the last checkpoint.  Under ``torchrun`` all processes
    train one network.

    Parameters
    ----------
    network : str, one of `SETTINGS`
    arm : {"standard", "head", "last", "everywhere"}, where dropout is
    drop : float in (0, 1), optional, its probability, 0.2; "standard" takes none
    epochs, size : int, optional, instead of those of the setting
    rate, decay : float, optional, learning rate and weight decay instead of those of the setting
    inner : bool
        Leave the tenth alone: train on nine tenths of the nine tenths and ask the rest of those.
        For choosing settings.
    seed : int, of split, initial weights, order and augmentation
    folder : path, takes the checkpoint and the result
    device : {"cpu", "cuda"}
    split : int, optional
        Seed of the split alone.  Networks with different seeds and the same split are trained on
        the same photographs, as the members of a deep ensemble are.
    settings : dict of name -> Setting
    draws : int, passes
    pictures : data.Pictures, instead of CUB-200, 2010

    Returns
    -------
    path of the .npz file

    Raises
    ------
    ValueError
        For an argument outside its range, or a checkpoint of other settings.
    FileNotFoundError
        Where the photographs are neither here nor to be downloaded.
    ImportError
        Without the packages of EfficientNet-Lite0.
    """
    run = run_of(network, arm, drop, epochs, size, rate, decay, inner, seed, split, settings, draws)
    path = Path(check_folder(folder)) / f"{run.name}.npz"
    distributed.check_device(device)
    pictures = pictures or data.cub200(2010, run.size)
    train, test = data.cub200_split(pictures.labels, run.split)
    if inner:
        train, test = (train[part] for part in data.cub200_split(pictures.labels[train], run.split))
    with distributed.joined(device) as place:
        model = run.build(len(pictures.names))
        checkpoint = path.with_name(f"{run.name}.pt")
        if run.setting.probe and not checkpoint.exists():
            learn_head(model.to(place), pictures.images[train], pictures.labels[train], run.seed)
        history = _fit(model, pictures, (train, test), run, checkpoint, place)
        if distributed.rank_and_world_size()[0] == 0:
            record = _record(run, history, device) | {
                "name": run.name, "data": pictures.source, "kind": pictures.kind,
            }  # fmt: skip
            recorded.save(path, _kept(model, pictures, (train, test), run, history), record)
            if run.setting.probe and not inner:  # else all weights are new
                before = zero_head(run.build(len(pictures.names)))
                weights = path.with_name(f"{run.name}-weights.npz")
                recorded.save(weights, changes(model.cpu(), before), record)
        distributed.barrier()
    return path


def run_of(
    network, arm, drop, epochs, size, rate, decay, inner, seed, split=None, settings=SETTINGS,
    draws=DRAWS,
):  # fmt: skip
    """The run of these arguments of `run_birds`, checked."""
    check_choice("network", network, tuple(settings))
    check_choice("arm", arm, ARMS)
    if arm == "standard" and drop is not None:
        raise ValueError("drop: the standard network has no dropout; choose another variant")
    drop = 0.0 if arm == "standard" else check_fraction("drop", 0.2 if drop is None else drop)
    seed = check_count("seed", seed, minimum=0)
    setting = settings[network]
    given = {
        "epochs": epochs,
        "learning_rate": None if rate is None else check_positive("rate", rate),
        "weight_decay": None if decay is None else check_positive("decay", decay),
    }
    given = {key: value for key, value in given.items() if value is not None}
    return Run(
        network, arm, drop,
        check_count("size", setting.size if size is None else size, minimum=32),
        replace(setting.recipe, **given), inner, seed,
        seed if split is None else check_count("split", split, minimum=0), setting, draws,
    )  # fmt: skip


@dataclass(frozen=True)
class Run:
    """All that tells one run from others: arguments of `run_birds`, checked and filled in."""

    network: str
    arm: str
    drop: float
    size: int
    recipe: training.Recipe
    inner: bool
    seed: int
    split: int
    setting: Setting
    draws: int = DRAWS

    def build(self, classes):
        """The network that is to be trained."""
        return photograph_network(self.setting, self.arm, self.drop, classes, self.seed)

    @property
    def name(self):
        """Name of the run's files."""
        recipe, drop = self.recipe, "" if self.arm == "standard" else f"-{self.drop:g}"
        name = f"birds-{self.network}-{self.arm}{drop}"
        name += f"-{self.size}-{recipe.epochs}-{recipe.learning_rate:g}"
        if recipe.weight_decay != self.setting.recipe.weight_decay:
            name += f"-decay{recipe.weight_decay:g}"
        if self.split != self.seed:
            name += f"-split{self.split}"
        return name + ("-inner" if self.inner else "") + f"-seed{self.seed}"

    @property
    def options(self):
        """Options of the command that makes it."""
        recipe, drop = self.recipe, "" if self.arm == "standard" else f" --drop {self.drop:g}"
        return (
            f"--network {self.network} --arm {self.arm}{drop} --size {self.size} "
            f"--epochs {recipe.epochs} --rate {recipe.learning_rate:g} "
            f"--decay {recipe.weight_decay:g}{' --inner' if self.inner else ''} --seed {self.seed}"
            f"{f' --split {self.split}' if self.split != self.seed else ''}"
        )


def _record(run, history, device):
    """Command and settings of a run, and the GPU where there was one."""
    seconds = sum(row["seconds"] for row in history)
    return provenance(f"birds {run.options}", run.seed, device) | {
        "hours": round(seconds / 3600, 2 if device == "cpu" else 4),
        "network": run.network, "arm": run.arm, "drop": run.drop, "size": run.size,
        "split": run.split, "recipe": asdict(run.recipe), "ramp": run.setting.ramp,
        "draws": run.draws, "history": HISTORY,
    }  # fmt: skip


def _fit(network, pictures, parts, run, checkpoint, device):
    setting = run.setting
    rise = setting.ramp * run.recipe.epochs * -(-len(parts[0]) // run.recipe.batch_size)
    about = {
        "network": run.network, "arm": run.arm, "drop": run.drop, "size": run.size,
        "ramp": setting.ramp, "last": list(setting.last),
        "probe": PROBE_DECAY if setting.probe else None,
    }  # fmt: skip
    return fit(
        network, run.recipe, pictures, parts, checkpoint, run.seed, device,
        ramped(network, keyed_masks(run.seed), rise), about,
        training.random_resized_crop, batch_size=100,
    )  # fmt: skip


def ramped(network, masks, steps):
    """Masks for `training.fit_minibatches` whose probabilities to drop rise in so many steps."""
    full = {m: m.p for m in network.modules() if isinstance(m, nn.modules.dropout._DropoutNd)}

    @contextmanager
    def rising(step, first, cases):
        for module, p in full.items():
            module.p = p * min(1.0, (step + 1) / max(steps, 1))
        try:
            with masks(step, first, cases):
                yield
        finally:
            for module, p in full.items():
                module.p = p

    return rising


def _kept(network, pictures, parts, run, history):
    """Arrays of a trained network; for choosing, losses are enough."""
    train, test = parts
    arrays = _asked(network, run, pictures.images[test], pictures.labels[test]) | {
        "cases": test.astype(np.uint16), "labels": pictures.labels[test].astype(np.uint8),
        "history": np.array([[row[key] for key in HISTORY] for row in history], np.float32),
    }  # fmt: skip
    if run.inner:
        return {key: arrays[key] for key in INNER if key in arrays}
    logits = training.predict_logits(network, pictures.images[train], batch_size=100)
    learned = scores(logits, pictures.labels[train])  # whole and without masks
    return arrays | {
        key.replace("val", "learned"): np.float32(value) for key, value in learned.items()
    }


def _asked(network, run, images, labels):
    """Log probabilities with dropout off and, where there is dropout, what the passes say."""
    logits = training.predict_logits(network, images, batch_size=100).astype(float)
    arrays = {"off_log_probs": as_half(log_softmax(logits, axis=1))}
    if run.arm == "standard":
        return arrays
    samples = sample_logits(network, images, run.draws)
    summary = predictive.summarise_classes(logits=samples)
    probs = np.exp(log_softmax(samples.astype(float), axis=2))
    of_label = probs[:, np.arange(len(labels)), labels].clip(1e-300)
    running = np.cumsum(of_label, axis=0) / np.arange(1, run.draws + 1)[:, None]
    return arrays | {
        "log_probs": as_half(np.log(summary.mean.clip(1e-300))),
        "expected_entropy": summary.expected_entropy.astype(np.float16),
        "mutual_information": summary.mutual_information.astype(np.float16),
        "label_log_probs": as_half(np.log(of_label)),
        "loss_of_draws": -np.log(running).mean(axis=1),
    }


# Dropout in a network that was trained without ------------------------------------------------

PASSES = 5


@command("birds-pretrained")
def run_pretrained(
    seed=0, folder="runs", *, drops=(0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5),
    setting=SETTINGS["efficientnet_lite0"], pictures=None,
):  # fmt: skip
    """Masks in EfficientNet-Lite0 as it comes, ImageNet's 1,000 classes and all: chapter 6.

    What one pass says of a photograph of each of 200 species, beside the network without masks:
    dropout everywhere, in the last blocks and the head, and at the head alone.

    Parameters
    ----------
    seed : int, of the photographs and the masks
    folder : path, takes ``birds-pretrained.npz`` and .json
    drops : tuple of float, probabilities to drop
    setting : Setting
    pictures : data.Pictures, instead of CUB-200, 2010

    Returns
    -------
    path of the .npz file

    Raises
    ------
    ValueError
        For a seed below 0 or a folder that is no path.
    FileNotFoundError
        Where the photographs are neither here nor to be downloaded.
    """
    seed, path = recorded.destination("birds-pretrained", seed, folder)
    pictures, begin = pictures or data.cub200(2010, setting.size), perf_counter()
    order = np.random.default_rng(seed).permutation(len(pictures.labels))
    _, first = np.unique(pictures.labels[order], return_index=True)
    cases = order[first]
    plain = photograph_network(setting, "standard", 0.5, classes=1000).eval()
    off = training.predict_logits(plain, pictures.images[cases], batch_size=50)
    arms = ("everywhere", "last", "head")
    predicted = np.zeros((len(arms), len(drops), PASSES, len(cases)), np.uint16)
    for i, arm in enumerate(arms):
        for j, p in enumerate(drops):
            network = photograph_network(setting, arm, p, classes=1000).eval()
            samples = sample_logits(
                network, pictures.images[cases], PASSES, seed=seed, batch_size=50
            )
            predicted[i, j] = samples.argmax(axis=2)
    record = recorded.provenance(f"python -m mcunc run birds-pretrained --seed {seed}", seed) | {
        "hours": round((perf_counter() - begin) / 3600, 2), "data": pictures.source,
        "kind": pictures.kind, "where": arms, "drops": drops,
    }  # fmt: skip
    arrays = {"predicted": predicted, "off": off.argmax(axis=1).astype(np.uint16)}
    recorded.save(path, arrays | {"cases": cases.astype(np.uint16)}, record)
    return path
