"""Networks trained on photographs of birds, standard and with dropout: chapter 6c.

They show whether masks help a network of practical size; fine-tuning EfficientNet-Lite0 takes about
an hour on two cores, and minutes on a GPU.
"""

from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from scipy.special import log_softmax
from torch import nn

from mcunc import data, recorded, training
from mcunc._internal import checks, distributed
from mcunc._internal.weight_deltas import changes
from mcunc.dropout import keyed_masks, sample_logits
from mcunc.pretrained import SETTINGS, photograph_network, zero_head
from mcunc.probes import Standardiser, fit_probes
from mcunc.runs import common
from mcunc.runs.common import command, option

DRAWS = 50
PROBE_DECAY = 6e-4  # among the best of `birds_probes` on inner splits
VARIANTS = ("standard", "head", "last", "everywhere")


@dataclass(eq=False)
class Run:
    """Settings of one training, checked and completed.

    Attributes
    ----------
    network : str, one of `SETTINGS`
    variant : {"standard", "head", "last", "everywhere"}, where dropout is
    drop : float in (0, 1), optional, its probability, 0.2; "standard" takes none
    epochs, size : int, optional, instead of those of the setting
    rate, decay : float, optional, learning rate and weight decay instead of those of the setting
    inner : bool
        Leave the tenth alone: train on nine tenths of the nine tenths and evaluate on the rest.
        For choosing settings.
    seed : int, of split, initial weights, order and augmentation
    split : int, optional
        Seed of the split alone.  Networks with different seeds and the same split are trained on
        the same photographs, as the members of a deep ensemble are.
    """

    network: str = "efficientnet_lite0"
    variant: str = "standard"
    drop: float | None = None
    epochs: int | None = None
    size: int | None = None
    rate: float | None = None
    decay: float | None = None
    inner: bool = False
    seed: int = 0
    split: int | None = None

    def __post_init__(self):
        checks.check_choice("network", self.network, tuple(SETTINGS))
        checks.check_choice("variant", self.variant, VARIANTS)
        setting = self.setting = SETTINGS[self.network]
        if self.variant != "standard":
            self.drop = checks.check_fraction("drop", 0.2 if self.drop is None else self.drop)
        elif self.drop is not None:
            raise ValueError("drop: the standard network has no dropout; choose another variant")
        self.seed = checks.check_count("seed", self.seed, minimum=0)
        self.split = checks.check_count("split", self.seed if self.split is None else self.split, 0)
        self.size = checks.check_count("size", setting.size if self.size is None else self.size, 32)
        changed = {"epochs": self.epochs, "learning_rate": self.rate, "weight_decay": self.decay}
        self.recipe = replace(setting.recipe, **{k: v for k, v in changed.items() if v is not None})

    def build(self, classes):
        """The network that is to be trained."""
        return photograph_network(self.setting, self.variant, self.drop, classes, self.seed)

    @property
    def name(self):
        """Name of the run's files."""
        recipe, usual = self.recipe, self.setting.recipe
        parts = [
            f"birds-{self.network}-{self.variant}",
            f"{self.drop:g}" if self.drop else "",
            f"{self.size}-{recipe.epochs}-{recipe.learning_rate:g}",
            f"decay{recipe.weight_decay:g}" if recipe.weight_decay != usual.weight_decay else "",
            f"split{self.split}" if self.split != self.seed else "",
            "inner" if self.inner else "",
            f"seed{self.seed}",
        ]
        return "-".join(filter(None, parts))

    @property
    def options(self):
        """Options of the command that makes it."""
        recipe, inner = self.recipe, ["--inner"] if self.inner else []
        values = {
            "network": self.network, "variant": self.variant, "drop": self.drop, "size": self.size,
            "epochs": recipe.epochs, "rate": recipe.learning_rate, "decay": recipe.weight_decay,
            "seed": self.seed, "split": self.split if self.split != self.seed else None,
        }  # fmt: skip
        named = [f"--{name} {value}" for name, value in values.items() if value is not None]
        return " ".join([*named, *inner])

    @property
    def about(self):
        """What a checkpoint and a record know of it."""
        return {
            "network": self.network, "arm": self.variant, "drop": self.drop or 0.0,
            "size": self.size, "ramp": self.setting.ramp,
        }  # fmt: skip


@command(
    "birds",
    option("--network", choices=[*SETTINGS], help="(default: efficientnet_lite0)"),
    option("--variant", "--arm", choices=VARIANTS, help="where dropout is (default: nowhere)"),
    option("--drop", type=float, help="probability of dropout (default: 0.2)"),
    option("--epochs", type=int, help="(default: those of the network)"),
    option("--size", type=int, help="pixels of a side (default: that of the network)"),
    option("--rate", type=float, help="learning rate (default: that of the network)"),
    option("--decay", type=float, help="weight decay (default: that of the network)"),
    option("--inner", action="store_true", help="judge on part of the training cases"),
    option("--split", type=int, help="seed of the split alone (default: the seed)"),
    common.DEVICE,
    together=True,
)
def run_birds(*options, folder="runs", device="cpu", **named):
    """Train a network on nine tenths of CUB-200 and evaluate it on the rest (chapter 6c).

    Killed and called again, it goes on from the last checkpoint.  Under ``torchrun`` all processes
    train one network.

    Parameters
    ----------
    *options, **named : those of `Run`
    folder : path, takes the checkpoint and the result
    device : {"cpu", "cuda"}

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
    run = Run(*options, **named)
    path = Path(checks.check_folder(folder)) / f"{run.name}.npz"
    distributed.check_device(device)
    pictures = data.cub200(2010, run.size)
    parts = data.cub200_split(pictures.labels, run.split)
    if run.inner:
        inner = data.cub200_split(pictures.labels[parts[0]], run.split)
        parts = [parts[0][part] for part in inner]
    model, checkpoint = run.build(len(pictures.names)), path.with_suffix(".pt")
    if run.setting.probe and not checkpoint.exists():
        train = parts[0]
        learn_head(model.to(device), pictures.images[train], pictures.labels[train], run.seed)
    history = _fit(model, pictures, parts, run, checkpoint, device)
    if distributed.rank_and_world_size()[0] == 0:
        record = _record(run, history, device, pictures)
        arrays = _outputs(model, pictures, parts, run)
        common.save(path, arrays | {"history": common.history_array(history)}, record)
        if run.setting.probe and not run.inner:  # else all weights are new
            before = zero_head(run.build(len(pictures.names)))
            weights = path.with_name(f"{run.name}-weights.npz")
            recorded.save(weights, changes(model.cpu(), before), record)
    distributed.barrier()
    return path


def learn_head(network, images, labels, seed):
    """Train the head alone, on features as they are, and put it into the network.

    Fine-tuning from a random head first moves the features to where that head wants them, and
    what they were good for is lost (Kumar et al. 2022, *Fine-tuning can distort pretrained
    features*).
    """
    head, network.head = network.head, nn.Identity()
    x = training.predict_logits(network, images, batch_size=50)
    network.head = head
    standardise = Standardiser(x)
    probe = fit_probes(standardise(x), labels, head.out_features, [0], [PROBE_DECAY], seed)[0]
    weight, bias = map(torch.from_numpy, standardise.to_linear(probe))
    head.load_state_dict({"weight": weight, "bias": bias})


def _record(run, history, device, pictures):
    """Command and settings of a run, and the GPU where there was one."""
    seconds = common.seconds_of(history)
    return common.provenance(f"birds {run.options}", run.seed, device, seconds) | run.about | {
        "name": run.name, "data": pictures.source, "kind": pictures.kind, "split": run.split,
        "recipe": asdict(run.recipe), "draws": DRAWS, "history": common.HISTORY,
    }  # fmt: skip


def _fit(network, pictures, parts, run, checkpoint, device):
    setting = run.setting
    rise = setting.ramp * run.recipe.epochs * -(-len(parts[0]) // run.recipe.batch_size)
    about = run.about | {"last": list(setting.last)}
    about["probe"] = PROBE_DECAY if setting.probe else None
    return common.fit(
        network, run.recipe, pictures, parts, checkpoint, run.seed, device,
        ramped(network, keyed_masks(run.seed), rise), about,
        training.random_resized_crop, batch_size=100,
    )  # fmt: skip


def ramped(network, masks, steps):
    """Masks for `training.fit_minibatches` whose probabilities to drop rise in so many steps."""
    full = {m: m.p for m in network.modules() if isinstance(m, nn.modules.dropout._DropoutNd)}

    def rising(step, first, cases):
        for module, p in full.items():
            module.p = p * min(1.0, (step + 1) / max(steps, 1))
        return masks(step, first, cases)

    return rising


def _outputs(network, pictures, parts, run):
    """Arrays of a trained network."""
    train, test = parts
    labels = pictures.labels[test]
    off, learned = (
        training.predict_logits(network, pictures.images[part], batch_size=100)
        for part in (test, train)
    )
    scores = common.validation_scores(learned, pictures.labels[train])  # whole and without masks
    arrays = {
        "cases": test, "labels": labels,
        "off_log_probs": log_softmax(off.astype(float), axis=1),
        "learned_loss": scores["val_loss"], "learned_accuracy": scores["val_accuracy"],
    }  # fmt: skip
    if not run.drop:
        return arrays
    samples = sample_logits(network, pictures.images[test], DRAWS)
    own = log_softmax(samples.astype(float), axis=2)[:, np.arange(len(labels)), labels]
    loss = common.loss_by_draws(np.exp(own))
    return arrays | common.pass_scores(samples) | {"loss_of_draws": loss, "label_log_probs": own}
