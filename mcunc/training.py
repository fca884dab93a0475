"""Training networks."""

from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from tqdm import tqdm

from mcunc._checks import check_choice, check_count, check_positive


def fit_full_batch(network, loss, steps=500, learning_rate=0.01, optimiser="adam", watch=None):
    """Minimise a loss over a network's parameters, every step on all the data.

    Introduced in chapter 3.

    Parameters
    ----------
    network : torch.nn.Module, trained in place
    loss : callable network -> scalar tensor
    steps : int
    learning_rate : float
    optimiser : {"adam", "sgd", "lbfgs"}
        "sgd" is plain gradient descent; "lbfgs" uses a strong-Wolfe line search, for small smooth
        problems that are to be solved to many digits.
    watch : callable network -> float, optional
        Called after every step.

    Returns
    -------
    list of float
        `watch` after each step, or the loss before each step where `watch` is not given.

    Raises
    ------
    ValueError
        Where the loss is not finite (the network keeps the parameters it had before that step),
        is not a scalar that depends on the parameters, or there are none to train.
    """
    parameters = _trainable(network)
    if not callable(loss):
        raise ValueError("loss: expected a callable that takes the network and returns a scalar")
    if not (watch is None or callable(watch)):
        raise ValueError("watch: expected a callable that takes the network, or None")
    steps = check_count("steps", steps)
    learning_rate = check_positive("learning_rate", learning_rate)
    check_choice("optimiser", optimiser, ("adam", "sgd", "lbfgs"))
    update = _optimiser(parameters, optimiser, learning_rate)

    def closure():
        update.zero_grad()
        value = loss(network)
        if not (torch.is_tensor(value) and value.numel() == 1 and value.requires_grad):
            raise ValueError("loss: must return a scalar tensor that depends on the parameters")
        if not torch.isfinite(value):
            raise ValueError("loss: is not finite; lower learning_rate or scale the inputs")
        value.backward()
        return value

    history = []
    for _ in range(steps):
        before = [p.detach().clone() for p in parameters]
        try:
            value = update.step(closure)
        except ValueError:  # a line search moves the parameters before it evaluates the loss
            with torch.no_grad():
                for parameter, old in zip(parameters, before, strict=True):
                    parameter.copy_(old)
            raise
        with torch.no_grad():
            history.append(float(value if watch is None else watch(network)))
    return history


def _trainable(network):
    if not isinstance(network, torch.nn.Module):
        raise ValueError(f"network: expected a torch.nn.Module, got {type(network).__name__}")
    parameters = [p for p in network.parameters() if p.requires_grad]
    if not parameters:
        raise ValueError("network: has no parameters to train")
    return parameters


def _optimiser(parameters, name, learning_rate):
    if name == "adam":
        return torch.optim.Adam(parameters, lr=learning_rate)
    if name == "sgd":
        return torch.optim.SGD(parameters, lr=learning_rate)
    return torch.optim.LBFGS(
        parameters, lr=learning_rate, max_iter=50, history_size=50,
        tolerance_grad=1e-14, tolerance_change=1e-18, line_search_fn="strong_wolfe",
    )  # fmt: skip


@dataclass(frozen=True)
class Recipe:
    """How `fit_minibatches` trains: stochastic gradient descent with Nesterov momentum.

    Attributes
    ----------
    epochs : int
    batch_size : int
    learning_rate : float, at the start
    drops : tuple of floats in (0, 1)
        After these fractions of the epochs the learning rate is divided by ten.
    momentum : float
    weight_decay : float
    """

    epochs: int
    batch_size: int = 128
    learning_rate: float = 0.1
    drops: tuple = (0.5, 0.75)
    momentum: float = 0.9
    weight_decay: float = 1e-4

    def rate(self, epoch):
        """The learning rate in epoch 0, 1, …"""
        passed = sum(epoch >= round(drop * self.epochs) for drop in self.drops)
        return self.learning_rate * 0.1**passed


def fit_minibatches(
    network, images, labels, recipe, augment=None, watch=None, checkpoint=None, seed=0, device="cpu"
):
    """Train a classifier on minibatches by cross-entropy; a killed run resumes exactly.

    Every epoch draws its order, its augmentation and torch's own random numbers from `seed` and
    the number of the epoch alone, and ends with a checkpoint.  A run that was killed therefore
    repeats at most the epoch it was in, and ends with the same weights as one that was not.
    Introduced in chapter 1.

    Parameters
    ----------
    network : torch.nn.Module, (B, 3, H, W) in [0, 1] -> (B, K) logits; trained in place
    images : (N, 3, H, W) uint8 array
    labels : (N,) integer array
    recipe : Recipe
    augment : callable (images (B, 3, H, W) uint8 tensor, generator) -> images, optional
    watch : callable network -> dict of numbers, optional
        Called after every epoch, in evaluation mode; joined to the history.
    checkpoint : path, optional
        Written after every epoch; read first if it is there.
    seed : int
    device : str, a torch device; on "cuda" in mixed precision (bfloat16)

    Returns
    -------
    list of dict, one per epoch: loss and accuracy on the augmented training batches as they came,
    seconds, and what `watch` returned

    Raises
    ------
    ValueError
        For arrays that do not match, a loss that is not finite, or a checkpoint of another
        recipe, seed, network or data.
    """
    _trainable(network)
    images, labels = _pictures(images, labels)
    network.to(device, memory_format=torch.channels_last)
    optimiser = torch.optim.SGD(
        network.parameters(), lr=recipe.learning_rate, momentum=recipe.momentum,
        nesterov=recipe.momentum > 0, weight_decay=recipe.weight_decay,
    )  # fmt: skip
    run = {"recipe": asdict(recipe), "seed": seed, "data": _fingerprint(images, labels)}
    history = _resume(checkpoint, run, network, optimiser)
    batches = -(-len(images) // recipe.batch_size)
    bar = tqdm(
        total=recipe.epochs * batches, initial=len(history) * batches, unit="batch", disable=None
    )
    with bar, torch.random.fork_rng(devices=[device] if device != "cpu" else []):
        for epoch in range(len(history), recipe.epochs):
            begin = perf_counter()
            optimiser.param_groups[0]["lr"] = recipe.rate(epoch)
            row = _one_epoch(
                network, optimiser, images, labels, recipe.batch_size, augment, (seed, epoch), bar
            )
            network.eval()
            row |= watch(network) if watch else {}
            history.append({"epoch": epoch + 1, **row, "seconds": perf_counter() - begin})
            _save(checkpoint, run, network, optimiser, history)
    network.eval()
    return history


def predict_logits(network, images, batch_size=500):
    """Logits of many pictures in evaluation mode, batch after batch.

    Parameters
    ----------
    network : torch.nn.Module, (B, 3, H, W) in [0, 1] -> (B, K); its mode is restored
    images : (N, 3, H, W) uint8 array
    batch_size : int

    Returns
    -------
    (N, K) float32 array
    """
    images = _pictures(images)[0]
    device = next(network.parameters()).device
    training = network.training
    network.eval()
    try:
        with torch.no_grad():
            parts = [network(_as_input(part, device)) for part in images.split(batch_size)]
    finally:
        network.train(training)
    return torch.cat(parts).float().cpu().numpy()


def crop_and_flip(images, generator, padding=4):
    """Shift each picture by up to `padding` pixels over a black ground; mirror half of them.

    The augmentation of He, Zhang, Ren & Sun (2016), section 4.2.

    Parameters
    ----------
    images : (B, C, H, W) tensor
    generator : torch.Generator
    padding : int

    Returns
    -------
    (B, C, H, W) tensor
    """
    count, _, height, width = images.shape
    padded = torch.nn.functional.pad(images, [padding] * 4)
    top, left = torch.randint(0, 2 * padding + 1, (2, count, 1), generator=generator)
    rows = top + torch.arange(height)
    columns = left + torch.arange(width)
    mirrored = torch.rand(count, 1, generator=generator) < 0.5
    columns = torch.where(mirrored, columns.flip(1), columns)
    index = torch.arange(count)[:, None, None]
    # Indices on both sides of the slice put its axis last.
    return padded[index, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _one_epoch(network, optimiser, images, labels, batch_size, augment, key, bar):
    """Train on every picture once; returns the mean loss and the accuracy on the way."""
    order, noise = map(int, np.random.SeedSequence(key).generate_state(2))
    generator = torch.Generator().manual_seed(order)
    torch.manual_seed(noise)  # dropout and the like
    device = next(network.parameters()).device
    network.train()
    total = correct = 0.0
    for chosen in torch.randperm(len(images), generator=generator).split(batch_size):
        batch, target = images[chosen], labels[chosen].to(device)
        if augment is not None:
            batch = augment(batch, generator)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            logits = network(_as_input(batch, device))
            loss = torch.nn.functional.cross_entropy(logits, target)
        if not torch.isfinite(loss):
            raise ValueError("recipe: the loss is not finite; lower learning_rate")
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        total += loss.item() * len(chosen)
        correct += (logits.argmax(dim=1) == target).sum().item()
        bar.update()
    return {"train_loss": total / len(images), "train_accuracy": correct / len(images)}


def _as_input(images, device):
    """uint8 pictures as floats in [0, 1], channels last: half the time of a convolution on CPU."""
    images = images.to(device, memory_format=torch.channels_last)
    return images.float() / 255


def _pictures(images, labels=None):
    images = np.asarray(images)
    if images.ndim != 4 or images.dtype != np.uint8 or len(images) == 0:
        raise ValueError(f"images: expected (N, 3, H, W) uint8, got {images.shape} {images.dtype}")
    if labels is None:
        return torch.from_numpy(images), None
    labels = np.asarray(labels)
    if labels.shape != (len(images),) or labels.dtype.kind not in "iu":
        raise ValueError(
            f"labels: expected {len(images)} integers, got {labels.shape} {labels.dtype}"
        )
    return torch.from_numpy(images), torch.from_numpy(labels.astype(np.int64))


def _fingerprint(images, labels):
    return sha256(images.numpy().tobytes() + labels.numpy().tobytes()).hexdigest()


def _save(path, run, network, optimiser, history):
    """Write the checkpoint under another name first, so that a kill leaves the old one whole."""
    if path is None:
        return
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {"network": network.state_dict(), "optimiser": optimiser.state_dict()}
    torch.save({"run": run, "history": history, **state}, path.with_suffix(".part"))
    path.with_suffix(".part").replace(path)


def _resume(path, run, network, optimiser):
    """Load the checkpoint if there is one; returns its history."""
    if path is None or not Path(path).exists():
        return []
    saved = torch.load(path, map_location="cpu", weights_only=True)
    for key, value in run.items():
        if saved["run"][key] != value:
            raise ValueError(
                f"checkpoint: {path} is of another {key} ({saved['run'][key]}, not {value}); "
                "delete it or name another file"
            )
    network.load_state_dict(saved["network"])
    optimiser.load_state_dict(saved["optimiser"])
    return saved["history"]
