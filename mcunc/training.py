"""Training networks."""

import os
import re
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from hashlib import sha256
from time import perf_counter

import numpy as np
import torch
from tqdm import tqdm

from mcunc._internal import checkpoint as checkpoints
from mcunc._internal import distributed
from mcunc._internal.checks import (
    as_classes,
    check_choice,
    check_count,
    check_fraction,
    check_from_zero,
    check_positive,
)
from mcunc._internal.inference import (
    as_cases,
    as_input,
    as_network,
    as_pictures,
    batches,
    check_finite,
    differentiating,
    evaluating,
    forward,
    logits_in,
    seed_noise,
)


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
    parameters = [p for p in as_network(network).parameters() if p.requires_grad]
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


_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Recipe:
    """How `fit_minibatches` trains: stochastic gradient descent with Nesterov momentum.

    Attributes
    ----------
    epochs : int
    batch_size : int
    learning_rate : float, at the start
    drops : tuple of floats in (0, 1)
        After these fractions of the epochs (rounded to whole ones, halves to even) the learning
        rate is divided by ten.
    momentum : float in [0, 1); 0 is plain gradient descent
    weight_decay : float, not negative
    keep_statistics : bool
        Leave BatchNorm in evaluation mode, with the means and variances that it has, and
        InstanceNorm that has such; their scale and shift are trained.  For networks that come
        trained.
    halved : float in [0, 1)
        In this part of the epochs, from the first (rounded as for `drops`), pictures come at half
        their side, for a quarter of the time.

    Raises
    ------
    ValueError
        For an attribute outside its range.
    """

    epochs: int
    batch_size: int = 128
    learning_rate: float = 0.1
    drops: tuple = (0.5, 0.75)
    momentum: float = 0.9
    weight_decay: float = 1e-4
    keep_statistics: bool = False
    halved: float = 0.0

    def __post_init__(self):
        """Check, and convert to Python's own numbers: a checkpoint takes no others."""
        drops = self.drops if np.iterable(self.drops) else [self.drops]
        checked = {
            "epochs": check_count("epochs", self.epochs),
            "batch_size": check_count("batch_size", self.batch_size),
            "learning_rate": check_positive("learning_rate", self.learning_rate),
            "drops": tuple(check_fraction("drops", drop) for drop in drops),
            "momentum": check_from_zero("momentum", self.momentum, 1),
            "weight_decay": check_from_zero("weight_decay", self.weight_decay, _LARGEST),
            "halved": check_from_zero("halved", self.halved, 1),
        }
        check_from_zero("learning_rate", self.learning_rate, _LARGEST)
        if not isinstance(self.keep_statistics, bool):
            raise ValueError(
                f"keep_statistics: must be True or False, got {self.keep_statistics!r}"
            )
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    def rate(self, epoch):
        """The learning rate in an epoch, counted from 0."""
        passed = sum(epoch >= round(drop * self.epochs) for drop in self.drops)
        return self.learning_rate * 0.1**passed


def fit_minibatches(
    network, images, labels, recipe, augment=None, watch=None, checkpoint=None, seed=0,
    device="cpu", masks=None, setting=None,
):  # fmt: skip
    """Train a classifier on minibatches by cross-entropy; a killed run resumes exactly.

    Every epoch draws its order, its augmentation and torch's own random numbers from `seed` and
    the number of the epoch alone, and ends with a checkpoint.  A run that was killed therefore
    repeats at most the epoch it was in, and ends with the same weights as one that was not.
    Started by ``torchrun``, each process takes its part of every batch and the gradients are added:
    up to rounding the result is that of one process if the network's BatchNorm is kept as it is
    and `masks` are keyed.  Introduced in chapter 1.

    Parameters
    ----------
    network : torch.nn.Module, (B, C, H, W) -> (B, K) logits; trained in place
        All of it is put into training mode.  If BatchNorm alone was put into evaluation mode, to
        freeze its statistics, this is refused unless the recipe has `keep_statistics`.
    images : (N, C, H, W) array or tensor, as in `predict_logits`
    labels : (N,) whole numbers from 0, of any type; or (N, 1), or one-hot (N, K)
    recipe : Recipe
    augment : callable (images (B, C, H, W), of the type of `images`, generator) -> images, optional
        The pictures are on `device`, the generator is the CPU's, so that all devices draw alike.
        A checkpoint knows it by its name.
    watch : callable network -> dict of numbers, optional
        Called after every epoch, in evaluation mode; joined to the history.
    checkpoint : path, optional
        Written after every epoch; read first if it is there.
    seed : int
    device : str, "cpu" or "cuda"; on "cuda" in mixed precision where the GPU has bfloat16, and
        exact only as far as CUDA's own sums are
    masks : callable (step, first, cases) -> context manager, optional
        Entered for each forward pass of the cases `first` to `first` + `cases` of a step's batch:
        `dropout.keyed_masks(seed)`.  Without it dropout draws from torch's generator.
    setting : dict of numbers, strings and their lists, optional
        What else tells this run from others, such as where dropout is, which weights do not show.

    Returns
    -------
    list of dict, one per epoch: epoch, train_loss and train_accuracy on the augmented training
    batches as they came, what `watch` returned, and seconds

    Raises
    ------
    ValueError
        For arrays that do not match, frozen BatchNorm, a loss or weights that are not finite, or a
        checkpoint that is damaged or of another recipe, seed, setting, augmentation, network or
        data; one that was written before augmentations were noted goes on.  Where the loss is not
        finite, the network keeps the weights it had before that step and the checkpoint those after
        the last whole epoch; a checkpoint that does not fit leaves both as they were.
    """
    _trainable(network)
    _check_run(network, recipe, augment, watch, checkpoint, masks)
    seed, device = check_count("seed", seed, minimum=0), check_device(device)
    images = as_pictures(images, "images").cpu().contiguous()
    with _own_noise(device), evaluating(network.to(device)):  # one picture tells format and classes
        output, layout = forward(network, as_input(images[:1], network), "images", convert=True)
    classes = logits_in(output, 1).shape[1]
    if classes == 1:
        raise ValueError("network: returns one logit; cross-entropy needs two for two classes")
    labels = torch.from_numpy(as_classes("labels", labels, len(images), classes).astype(np.int64))
    optimiser = torch.optim.SGD(
        network.parameters(), lr=recipe.learning_rate, momentum=recipe.momentum,
        nesterov=recipe.momentum > 0, weight_decay=recipe.weight_decay,
    )  # fmt: skip
    run = _identity(recipe, seed, images, labels, augment, masks, setting)
    history = checkpoints.resume(checkpoint, run, network, optimiser)
    steps = -(-len(images) // recipe.batch_size)
    bar = tqdm(
        total=recipe.epochs * steps, initial=len(history) * steps, unit="batch", disable=None
    )
    with bar, _own_noise(device):
        for epoch in range(len(history), recipe.epochs):
            begin = perf_counter()
            optimiser.param_groups[0]["lr"] = recipe.rate(epoch)
            row = _one_epoch(
                network, optimiser, images, labels, recipe, augment, (seed, epoch), bar, masks,
                layout,
            )  # fmt: skip
            row |= _watched(watch, network)
            history.append({"epoch": epoch + 1, **row, "seconds": perf_counter() - begin})
            if distributed.rank_and_world_size()[0] == 0:
                checkpoints.save(checkpoint, run, network, optimiser, history)
            distributed.barrier()
    network.eval()
    return history


def predict_logits(network, images, batch_size=500):
    """Logits of many pictures in evaluation mode, batch after batch.

    Parameters
    ----------
    network : torch.nn.Module, (B, C, H, W) -> (B, K); its mode is restored
        It may also return a dictionary or an object whose "logits" these are, a tuple with one
        tensor of this shape, or (B,) for a single logit.
    images : (N, C, H, W) array or tensor
        Bytes (uint8) are divided by 255.  Floating-point numbers are taken as they are, mostly in
        [0, 1], and cast to the type of the network's weights.  The same rule holds for all
        functions here that run a network.
    batch_size : int

    Returns
    -------
    (N, K) float32 array

    Raises
    ------
    ValueError
        For images that are not finite or that the network does not take, or a network that
        returns something else, or NaN.
    """
    as_network(network)
    images, parts = as_cases(images, "images"), []
    with evaluating(network):
        for _, batch in batches(images, batch_size, network):
            logits = logits_in(forward(network, batch, "images")[0], len(batch)).float()
            check_finite(network, batch, logits, "images")
            parts.append(logits.cpu())
    return torch.cat(parts).numpy()


def crop_and_flip(images, generator, padding=4):
    """Shift each picture by up to `padding` pixels over a black ground; mirror half of them.

    The augmentation of He, Zhang, Ren & Sun (2016), section 4.2.

    Parameters
    ----------
    images : (B, C, H, W) tensor
    generator : torch.Generator, of the CPU wherever the pictures are
    padding : int

    Returns
    -------
    (B, C, H, W) tensor

    Raises
    ------
    ValueError
        For something else than such a tensor, a torch.Generator and a padding of at least 0.
    """
    if not (torch.is_tensor(images) and images.ndim == 4):
        raise ValueError("images: expected a tensor (B, C, H, W)")
    if not isinstance(generator, torch.Generator):
        raise ValueError("generator: expected a torch.Generator; torch.Generator().manual_seed(0)")
    padding = check_count("padding", padding, minimum=0, maximum=2**20)
    count, _, height, width = images.shape
    padded = torch.nn.functional.pad(images, [padding] * 4)
    top, left = torch.randint(0, 2 * padding + 1, (2, count, 1), generator=generator)
    rows = top + torch.arange(height)
    columns = left + torch.arange(width)
    mirrored = torch.rand(count, 1, generator=generator) < 0.5
    columns = torch.where(mirrored, columns.flip(1), columns)
    rows, columns = rows.to(images.device), columns.to(images.device)
    index = torch.arange(count, device=images.device)[:, None, None]
    # Indices on both sides of the slice put its axis last.
    return padded[index, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def zoom_and_flip(images, generator, least=0.4):
    """Cut a square of random area and place out of each picture and scale it up; mirror half.

    The augmentation of Szegedy et al. (2015), section 6, with the sides' ratio kept.

    Parameters
    ----------
    images : (B, C, H, W) uint8 tensor
    generator : torch.Generator, of the CPU wherever the pictures are
    least : float in (0, 1], part of the area that a cut has at least; uniform from there to 1

    Returns
    -------
    (B, C, H, W) uint8 tensor

    Raises
    ------
    ValueError
        For something else than such a tensor, a torch.Generator and such a number.
    """
    if not (torch.is_tensor(images) and images.ndim == 4 and images.dtype == torch.uint8):
        raise ValueError("images: expected a uint8 tensor (B, C, H, W)")
    if not isinstance(generator, torch.Generator):
        raise ValueError("generator: expected a torch.Generator; torch.Generator().manual_seed(0)")
    least = (
        1.0 if isinstance(least, (int, float)) and least == 1 else check_fraction("least", least)
    )
    area, left, top, mirrored = torch.rand(4, len(images), generator=generator)
    side = torch.sqrt(least + (1 - least) * area)  # as a part of the picture's
    sign = torch.where(mirrored < 0.5, -1.0, 1.0)
    move = torch.zeros(len(images), 2, 3)
    move[:, 0, 0], move[:, 0, 2] = sign * side, (1 - side) * (2 * left - 1)
    move[:, 1, 1], move[:, 1, 2] = side, (1 - side) * (2 * top - 1)
    move = move.to(images.device)
    grid = torch.nn.functional.affine_grid(move, images.shape, align_corners=False)
    cut = torch.nn.functional.grid_sample(
        images.float(), grid, padding_mode="border", align_corners=False
    )
    return cut.round().to(torch.uint8)


def _check_run(network, recipe, augment, watch, checkpoint, masks):
    if not isinstance(recipe, Recipe):
        raise ValueError(f"recipe: expected a Recipe, got {type(recipe).__name__}")
    frozen = [name for name, module in _batchnorm(network) if not module.training]
    if frozen and network.training and not recipe.keep_statistics:  # by intent, not by eval()
        raise ValueError(
            f"network: {', '.join(frozen[:3])} is in evaluation mode, and training would move its "
            "statistics; pass Recipe(keep_statistics=True), or call network.train() first"
        )
    for name, value in (("augment", augment), ("watch", watch), ("masks", masks)):
        if not (value is None or callable(value)):
            raise ValueError(f"{name}: expected a callable or None, got {value!r}")
    if not (checkpoint is None or isinstance(checkpoint, (str, os.PathLike))):
        raise ValueError(f"checkpoint: expected a path or None, got {checkpoint!r}")


def _identity(recipe, seed, images, labels, augment, masks, setting):
    """What tells a run from others, for its checkpoint."""
    settings = asdict(recipe)
    for later in ("keep_statistics", "halved"):  # unknown to checkpoints written before them
        if not settings[later]:
            del settings[later]
    run = {"recipe": settings, "seed": seed, "data": _fingerprint(images, labels)}
    run |= {"augment": _name(augment), "masks": masks is not None}
    return run if setting is None else run | {"setting": setting}


def _batchnorm(network):
    """Names and modules of what normalises by statistics of its own; InstanceNorm can, too."""
    kind = torch.nn.modules.batchnorm._NormBase
    return [(name, module) for name, module in network.named_modules() if isinstance(module, kind)]


def _own_noise(device):
    """Torch's global generators are afterwards as they were."""
    return torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])


def _name(function):
    """What tells an augmentation from others in every process: no address in memory."""
    if function is None:
        return None
    if isinstance(function, partial):
        return f"{_name(function.func)}{(*function.args, function.keywords)}"
    if hasattr(function, "__qualname__"):
        return f"{function.__module__}.{function.__qualname__}"
    return re.sub(r" at 0x\w+", "", f"{type(function).__module__}: {function!r}")


def check_device(name):
    """The torch.device of a name, or a ValueError where there is none."""
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"device: {error}") from None
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"device: must be 'cpu' or 'cuda', got {str(device)!r}")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError("device: torch finds no GPU here; use 'cpu'")
    return device


def _one_epoch(network, optimiser, images, labels, recipe, augment, key, bar, masks, layout):
    """Train on every picture once; returns the mean loss and the accuracy on the way."""
    order, noise = map(int, np.random.SeedSequence(key).generate_state(2))
    generator = torch.Generator().manual_seed(order)
    device = next(network.parameters()).device
    seed_noise(noise, device)
    total = correct = 0.0
    steps = torch.randperm(len(images), generator=generator).split(recipe.batch_size)
    _into_training(network, recipe)
    try:
        for step, chosen in enumerate(steps, key[1] * len(steps)):
            batch, target = images[chosen].to(device), labels[chosen].to(device)
            if augment is not None:  # all of the batch in every process, so that all draw alike
                batch = augment(batch, generator)
            if key[1] < round(recipe.halved * recipe.epochs):
                batch = _half(batch)
            optimiser.zero_grad()
            mine = distributed.shard(len(chosen))
            draws = nullcontext() if masks is None else masks(step, mine.start, len(batch[mine]))
            with draws:
                x = as_input(batch[mine], network).contiguous(memory_format=layout)
                found = _backward(network, x, target[mine], len(chosen))
            _share(network, found)
            loss, right = found.tolist()
            if not np.isfinite(loss):
                raise ValueError("recipe: the loss is not finite; lower learning_rate")
            optimiser.step()
            total += loss * len(chosen)
            correct += right
            bar.update()
    finally:
        network.eval()
    if not all(value.isfinite().all() for value in (*network.parameters(), *network.buffers())):
        raise ValueError("recipe: the weights are not finite any more; lower learning_rate")
    return {"train_loss": total / len(images), "train_accuracy": correct / len(images)}


def _into_training(network, recipe):
    try:
        network.train()
    except NotImplementedError:
        raise ValueError("network: was exported; train the module it was made from") from None
    if recipe.keep_statistics:
        for _, module in _batchnorm(network):
            module.training = False


def _half(images):
    """Pictures at half their side."""
    half = torch.nn.functional.avg_pool2d(images.float(), 2)
    return (half if images.is_floating_point() else half.round()).to(images.dtype)


def _has_bfloat16(device):
    """Whether it computes in bfloat16 by itself: GPUs from 2020 on; a T4 would only imitate it."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device)[0] >= 8


def _backward(network, batch, target, cases):
    """Gradients of the part of a batch of so many cases; its loss and how many were right."""
    device = target.device
    if not len(batch):  # fewer cases than processes
        return torch.zeros(2, device=device)
    with torch.autocast(device.type, torch.bfloat16, enabled=_has_bfloat16(device)):
        with differentiating():
            output = network(batch)
        logits = logits_in(output, len(batch))
        loss = torch.nn.functional.cross_entropy(logits, target) * (len(batch) / cases)
    if loss.isfinite() or distributed.rank_and_world_size()[1] > 1:  # else the caller raises
        with differentiating():
            loss.backward()
    return torch.stack([loss.detach().float(), (logits.argmax(dim=1) == target).sum()])


def _share(network, found):
    """Add gradients and counts of all processes; where one had no case, its gradient is 0."""
    if distributed.rank_and_world_size()[1] == 1:
        return
    trained = [p for p in network.parameters() if p.requires_grad]
    for parameter in trained:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    distributed.sum_over_processes([found, *(parameter.grad for parameter in trained)])


def _watched(watch, network):
    """What `watch` says, as Python's own numbers: a checkpoint takes no others."""
    if watch is None:
        return {}
    with torch.no_grad():
        found = watch(network)
    try:
        return {str(name): float(value) for name, value in found.items()}
    except (AttributeError, TypeError, ValueError):
        raise ValueError(f"watch: must return a dict of numbers, got {found!r}") from None


def _fingerprint(images, labels):
    """SHA-256 of all values, a block at a time: the pictures together can be gigabytes."""
    digest = sha256()
    for values in (images, labels):
        for block in values.split(256):
            digest.update(block.contiguous().view(torch.uint8).numpy())
    return digest.hexdigest()
