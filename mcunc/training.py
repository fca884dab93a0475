"""Train networks on the full data or on minibatches, and compute their logits."""

from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from hashlib import sha256
from time import perf_counter

import numpy as np
import torch
from torch.nn import functional
from tqdm import tqdm

from mcunc._internal import checkpoint as checkpoints
from mcunc._internal import checks, distributed, inference
from mcunc._internal.deprecation import moved, renamed_arguments, renamed_attribute

__all__ = ["Recipe", "crop_and_flip", "fit_full_batch", "fit_minibatches", "predict_logits"]
__all__ += ["random_resized_crop"]
__getattr__ = moved(__name__, {"zoom_and_flip": "training.random_resized_crop"})


@renamed_arguments(watch="evaluate")
def fit_full_batch(network, loss, steps=500, learning_rate=0.01, optimiser="adam", evaluate=None):
    """Minimise a loss over a network's parameters; every step evaluates the loss on all data.

    Parameters
    ----------
    network : torch.nn.Module, trained in place
    loss : callable network -> scalar tensor
    steps : int
    learning_rate : float
    optimiser : {"adam", "sgd", "lbfgs"}
        "sgd" is plain gradient descent. "lbfgs" uses a strong-Wolfe line search and solves small
        smooth problems to many digits.
    evaluate : callable network -> float, optional
        Called after every step.

    Returns
    -------
    list of float
        The value of `evaluate` after each step; without it, the loss before each step.

    Raises
    ------
    ValueError
        For another optimiser, a network without trainable parameters, or a loss that is not finite.
        In the last case the parameters keep their values from before the step, except with "lbfgs".

    Examples
    --------
    >>> import torch
    >>> from mcunc import networks, training
    >>> x = torch.linspace(-1, 1, 50)[:, None]
    >>> network = networks.mlp((1, 8, 1), "tanh")
    >>> losses = training.fit_full_batch(network, lambda net: (net(x) - x**2).square().mean(), 300)
    >>> len(losses), losses[-1] < losses[0] / 10
    (300, True)
    """
    kind = _OPTIMISERS[checks.check_choice("optimiser", optimiser, tuple(_OPTIMISERS))]
    update, history = kind(_trainable(network), lr=learning_rate), []

    def closure():
        update.zero_grad()
        value = loss(network)
        if not value.isfinite():
            raise ValueError("loss: is not finite; lower learning_rate or scale the inputs")
        value.backward()
        return value

    for _ in range(steps):
        value = update.step(closure)
        with torch.no_grad():
            history.append(float(value if evaluate is None else evaluate(network)))
    return history


_OPTIMISERS = {
    "adam": partial(torch.optim.Adam, fused=True),
    "sgd": torch.optim.SGD,
    "lbfgs": partial(
        torch.optim.LBFGS, max_iter=50, history_size=50, tolerance_grad=1e-14,
        tolerance_change=1e-18, line_search_fn="strong_wolfe",
    ),
}  # fmt: skip


def _trainable(network):
    parameters = [p for p in inference.as_network(network).parameters() if p.requires_grad]
    if not parameters:
        raise ValueError("network: has no parameters to train")
    return parameters


@dataclass(frozen=True)
class Recipe:
    """How `fit_minibatches` trains: stochastic gradient descent with Nesterov momentum.

    Attributes
    ----------
    epochs : int
    batch_size : int
    learning_rate : float, at the start
    lr_milestones : tuple of floats in (0, 1)
        The learning rate is divided by ten after each of these fractions of the epochs, rounded to
        whole epochs (halves to even).
    momentum : float in [0, 1); 0 is plain stochastic gradient descent
    weight_decay : float, not negative
    freeze_batchnorm : bool
        Keep the running means and variances of BatchNorm and InstanceNorm layers by evaluation
        mode, and train only their scale and shift. Useful for pretrained networks.
    half_resolution_fraction : float in [0, 1)
        During this first fraction of the epochs, rounded as above, pictures have half their height
        and width, which takes about a quarter of the time.

    Raises
    ------
    ValueError
        For an attribute outside its range.

    Examples
    --------
    >>> from mcunc.training import Recipe
    >>> recipe = Recipe(epochs=10, learning_rate=0.1, lr_milestones=(0.6, 0.8))
    >>> [round(recipe.rate(epoch), 5) for epoch in (0, 5, 6, 8)]
    [0.1, 0.1, 0.01, 0.001]
    """

    epochs: int
    batch_size: int = 128
    learning_rate: float = 0.1
    lr_milestones: tuple = (0.5, 0.75)
    momentum: float = 0.9
    weight_decay: float = 1e-4
    freeze_batchnorm: bool = False
    half_resolution_fraction: float = 0.0

    drops = renamed_attribute("drops", "lr_milestones")
    keep_statistics = renamed_attribute("keep_statistics", "freeze_batchnorm")
    halved = renamed_attribute("halved", "half_resolution_fraction")

    def __post_init__(self):
        """Check the attributes and convert them to Python numbers, as a checkpoint needs them."""
        for name, check in _CHECKS.items():
            object.__setattr__(self, name, check(name, getattr(self, name)))

    def rate(self, epoch):
        """The learning rate in epoch number `epoch`, counted from 0."""
        passed = sum(epoch >= round(m * self.epochs) for m in self.lr_milestones)
        return self.learning_rate * 0.1**passed


_CHECKS = {
    "epochs": checks.check_count,
    "batch_size": checks.check_count,
    "learning_rate": checks.check_positive,
    "lr_milestones": lambda name, value: tuple(checks.check_fraction(name, v) for v in value),
    "momentum": partial(checks.check_from_zero, below=1),
    "weight_decay": partial(checks.check_from_zero, below=np.inf),
    "freeze_batchnorm": lambda name, value: bool(value),
    "half_resolution_fraction": partial(checks.check_from_zero, below=1),
}
Recipe.__init__ = renamed_arguments(**checkpoints.RENAMED)(Recipe.__init__)


@renamed_arguments(watch="evaluate")
def fit_minibatches(
    network, images, labels, recipe, augment=None, evaluate=None, checkpoint=None, seed=0,
    device="cpu", masks=None, setting=None,
):  # fmt: skip
    """Train a classifier on minibatches by cross-entropy; an interrupted run resumes exactly.

    The order of the cases, the augmentation and torch's random numbers of an epoch depend only on
    `seed` and the number of the epoch, and each epoch ends with a checkpoint. An interrupted run
    therefore repeats at most one epoch and ends with the same weights as an uninterrupted one.

    Under ``torchrun``, each process takes a part of every batch, and the gradients are added. If
    BatchNorm is frozen and `masks` are keyed, the result is that of one process up to rounding.

    Parameters
    ----------
    network : torch.nn.Module, (B, C, H, W) -> (B, K) logits; trained in place
        The whole network is put into training mode. To keep the statistics of BatchNorm, use
        `freeze_batchnorm` of the recipe.
    images : (N, C, H, W) array or tensor, as in `predict_logits`
    labels : (N,) whole numbers from 0, of any type; or (N, 1), or one-hot (N, K)
    recipe : Recipe
    augment : callable (images, generator) -> images, optional
        It gets a batch (B, C, H, W) of the type of `images` on `device`, and a CPU generator, so
        that random numbers are the same on all devices. A checkpoint stores its name.
    evaluate : callable network -> dict of numbers, optional
        Called in evaluation mode after every epoch; its numbers are added to the history.
    checkpoint : path, optional
        Written after every epoch. If it exists, training resumes from it.
    seed : int
    device : str, "cpu" or "cuda"
        "cuda" trains in mixed precision if the GPU supports bfloat16. Results on a GPU are not
        exactly reproducible.
    masks : callable (step, first, cases) -> context manager, optional
        Pass `dropout.keyed_masks(seed)`. The context is entered for each forward pass, on `cases`
        cases of the batch of a step, starting with number `first`. By default dropout draws from
        torch's generator.
    setting : dict of numbers, strings and their lists, optional
        Further properties that identify the run, such as the positions of dropout. A checkpoint
        with another setting is not accepted.

    Returns
    -------
    list of dict, one per epoch
        The number of the epoch, train_loss and train_accuracy on the augmented batches during
        training, the numbers of `evaluate`, and seconds.

    Raises
    ------
    ValueError
        For arrays that do not match; BatchNorm in evaluation mode without `freeze_batchnorm`; a
        loss or weights that are not finite; or a checkpoint that is damaged or from another run. If
        the loss is not finite, the network keeps the weights from before that step, and the
        checkpoint those of the last complete epoch.

    Examples
    --------
    >>> import numpy as np
    >>> from mcunc import networks, training
    >>> images = np.random.default_rng(0).integers(0, 256, (16, 3, 32, 32), dtype=np.uint8)
    >>> labels, network = np.arange(16) % 2, networks.lenet5(classes=2)
    >>> recipe = training.Recipe(epochs=2, batch_size=8, learning_rate=0.01)
    >>> history = training.fit_minibatches(network, images, labels, recipe)
    >>> list(history[1])
    ['epoch', 'train_loss', 'train_accuracy', 'seconds']
    """
    _trainable(network)
    _check_frozen(network, recipe)
    seed, device = checks.check_count("seed", seed, minimum=0), distributed.check_device(device)
    with inference.own_noise(device):
        data = _data(network.to(device), images, labels)
    optimiser = torch.optim.SGD(
        network.parameters(), lr=recipe.learning_rate, momentum=recipe.momentum,
        nesterov=recipe.momentum > 0, weight_decay=recipe.weight_decay,
    )  # fmt: skip
    run = {
        "recipe": asdict(recipe), "seed": seed, "data": _fingerprint(*data[:2]),
        "augment": _name(augment), "masks": masks is not None, "setting": setting,
    }  # fmt: skip
    history = checkpoints.resume(checkpoint, run, network, optimiser)
    steps = -(-len(data[0]) // recipe.batch_size)
    total, done = recipe.epochs * steps, len(history) * steps
    bar = tqdm(total=total, initial=done, unit="batch", disable=None)
    with bar, inference.own_noise(device):
        for epoch in range(len(history), recipe.epochs):
            begin = perf_counter()
            optimiser.param_groups[0]["lr"] = recipe.rate(epoch)
            key = seed, epoch
            row = _one_epoch(network, optimiser, data, recipe, augment, masks, key, bar.update)
            row |= _evaluated(evaluate, network)
            history.append({"epoch": epoch + 1, **row, "seconds": perf_counter() - begin})
            if distributed.rank_and_world_size()[0] == 0:
                checkpoints.save(checkpoint, run, network, optimiser, history)
            distributed.barrier()
    network.eval()
    return history


def predict_logits(network, images, batch_size=500):
    """Logits of many pictures in evaluation mode, computed in batches.

    Parameters
    ----------
    network : torch.nn.Module, (B, C, H, W) -> (B, K); its mode is restored
        It may also return a dictionary or an object with an entry "logits", or (B,) for a single
        logit.
    images : (N, C, H, W) array or tensor
        Bytes (uint8) are divided by 255. Floating-point numbers, usually in [0, 1], are not scaled
        but cast to the dtype of the network's weights. All functions of the package that run a
        network do this.
    batch_size : int

    Returns
    -------
    (N, K) float32 array

    Raises
    ------
    ValueError
        For images that are not finite or do not fit the network, and for a network that returns
        NaN or something other than logits.

    Examples
    --------
    >>> import numpy as np
    >>> from mcunc import networks, training
    >>> images = np.zeros((4, 3, 32, 32), np.uint8)
    >>> training.predict_logits(networks.lenet5(classes=10), images).shape
    (4, 10)
    """
    inference.as_network(network)
    images, parts = inference.as_cases(images, "images"), []
    with inference.evaluating(network):
        for _, batch in inference.batches(images, batch_size, network):
            logits = inference.logits_in(
                inference.forward(network, batch, "images")[0], len(batch)
            ).float()
            inference.check_finite(network, batch, logits, "images")
            parts.append(logits.cpu())
    return torch.cat(parts).numpy()


def crop_and_flip(images, generator, padding=4):
    """Shift each picture by up to `padding` pixels, filled with 0, and mirror half of them.

    Parameters
    ----------
    images : (B, C, H, W) tensor
    generator : torch.Generator on the CPU, for images on any device
    padding : int

    Returns
    -------
    (B, C, H, W) tensor

    Raises
    ------
    ValueError
        For a negative padding.

    Notes
    -----
    Source: He, Zhang, Ren & Sun (2016), section 4.2.

    Examples
    --------
    >>> import torch
    >>> from mcunc import training
    >>> images = torch.ones(2, 3, 32, 32)
    >>> training.crop_and_flip(images, torch.Generator().manual_seed(0)).shape
    torch.Size([2, 3, 32, 32])
    """
    padding = checks.check_count("padding", padding, minimum=0)
    count, _, height, width = images.shape
    padded = functional.pad(images, [padding] * 4)
    top, left = torch.randint(0, 2 * padding + 1, (2, count, 1), generator=generator)
    rows = top + torch.arange(height)
    columns = left + torch.arange(width)
    mirrored = torch.rand(count, 1, generator=generator) < 0.5
    columns = torch.where(mirrored, columns.flip(1), columns)
    rows, columns = rows.to(images.device), columns.to(images.device)
    index = torch.arange(count, device=images.device)[:, None, None]
    # Index arrays on both sides of a slice move its axis to the end.
    return padded[index, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def random_resized_crop(images, generator, least=0.4):
    """Crop each picture at random, scale the crop to full size, and mirror half of them.

    Parameters
    ----------
    images : (B, C, H, W) uint8 tensor
    generator : torch.Generator on the CPU, for images on any device
    least : float in (0, 1]
        The crop's fraction of the area is uniform between `least` and 1.

    Returns
    -------
    (B, C, H, W) uint8 tensor

    Raises
    ------
    ValueError
        For images of another type.

    Notes
    -----
    Source: Szegedy et al. (2015), section 6, but with the aspect ratio kept.

    Examples
    --------
    >>> import torch
    >>> from mcunc import training
    >>> images = torch.zeros(2, 3, 64, 64, dtype=torch.uint8)
    >>> training.random_resized_crop(images, torch.Generator().manual_seed(0)).shape
    torch.Size([2, 3, 64, 64])
    """
    if images.dtype != torch.uint8:
        raise ValueError(f"images: expected bytes (uint8), got {images.dtype}")
    area, left, top, mirrored = torch.rand(4, len(images), generator=generator)
    side = torch.sqrt(least + (1 - least) * area)  # as a part of the picture's
    sign = torch.where(mirrored < 0.5, -1.0, 1.0)
    move = torch.zeros(len(images), 2, 3)
    move[:, 0, 0], move[:, 0, 2] = sign * side, (1 - side) * (2 * left - 1)
    move[:, 1, 1], move[:, 1, 2] = side, (1 - side) * (2 * top - 1)
    grid = functional.affine_grid(move.to(images.device), images.shape, align_corners=False)
    options = {"padding_mode": "border", "align_corners": False}
    return functional.grid_sample(images.float(), grid, **options).round().to(torch.uint8)


def _check_frozen(network, recipe):
    """Raise an error if single BatchNorm layers are in evaluation mode but would be trained."""
    frozen = [name for name, module in _batchnorm(network) if not module.training]
    if frozen and network.training and not recipe.freeze_batchnorm:
        raise ValueError(
            f"network: {', '.join(frozen[:3])} is in evaluation mode, and training would move its "
            "statistics; pass Recipe(freeze_batchnorm=True), or call network.train() first"
        )


def _data(network, images, labels):
    """Pictures and classes as tensors, and the memory format that the network takes."""
    images = inference.as_pictures(images, "images").cpu().contiguous()
    with inference.evaluating(network):  # one picture tells format and number of classes
        output, layout = inference.forward(
            network, inference.as_input(images[:1], network), "images", convert=True
        )
    classes = inference.logits_in(output, 1).shape[1]
    labels = checks.as_classes("labels", labels, len(images), classes).astype(np.int64)
    return images, torch.from_numpy(labels), layout


def _batchnorm(network):
    """Names and modules of all BatchNorm and InstanceNorm layers."""
    kind = torch.nn.modules.batchnorm._NormBase
    return [(name, module) for name, module in network.named_modules() if isinstance(module, kind)]


def _name(function):
    """A name that identifies an augmentation, with the arguments of a partial."""
    if function is None:
        return None
    if isinstance(function, partial):
        return f"{_name(function.func)}{(*function.args, function.keywords)}"
    return f"{function.__module__}.{getattr(function, '__qualname__', type(function).__name__)}"


def _one_epoch(network, optimiser, data, recipe, augment, masks, key, progress):
    """Train on every picture once; returns the mean loss and the accuracy of its batches."""
    images, labels, layout = data
    order, noise = map(int, np.random.SeedSequence(key).generate_state(2))
    generator = torch.Generator().manual_seed(order)
    device = next(network.parameters()).device
    inference.seed_noise(noise, device)
    small = key[1] < round(recipe.half_resolution_fraction * recipe.epochs)
    totals = np.zeros(2)
    steps = torch.randperm(len(images), generator=generator).split(recipe.batch_size)
    network.train()
    for _, module in _batchnorm(network) if recipe.freeze_batchnorm else ():
        module.training = False
    try:
        for step, chosen in enumerate(steps, key[1] * len(steps)):
            batch, target = images[chosen].to(device), labels[chosen].to(device)
            if augment is not None:  # all of the batch in every process, so that all draw alike
                batch = augment(batch, generator)
            mine = distributed.shard(len(chosen))
            batch, target = (_half(batch) if small else batch)[mine], target[mine]
            optimiser.zero_grad()
            with nullcontext() if masks is None else masks(step, mine.start, len(batch)):
                x = inference.as_input(batch, network).contiguous(memory_format=layout)
                sums = _backward(network, x, target, len(chosen))
            _sum_over_processes(network, sums)
            loss, correct = sums.tolist()
            if not np.isfinite(loss):
                raise ValueError("recipe: the loss is not finite; lower learning_rate")
            optimiser.step()
            totals += loss * len(chosen), correct
            progress()
    finally:
        network.eval()
    if not all(value.isfinite().all() for value in (*network.parameters(), *network.buffers())):
        raise ValueError("recipe: the weights are not finite any more; lower learning_rate")
    return dict(zip(("train_loss", "train_accuracy"), (totals / len(images)).tolist(), strict=True))


def _half(images):
    """Pictures at half their height and width."""
    small = functional.avg_pool2d(images.float(), 2)
    return (small if images.is_floating_point() else small.round()).to(images.dtype)


def _has_bfloat16(device):
    """Whether the GPU has bfloat16 in hardware, as since 2020; older ones only emulate it."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device)[0] >= 8


def _backward(network, x, target, cases):
    """Add the gradients of a part of a batch of `cases`; return its loss and correct cases."""
    if not len(x):  # fewer cases than processes
        return torch.zeros(2, device=x.device)
    with torch.autocast(x.device.type, torch.bfloat16, enabled=_has_bfloat16(x.device)):
        with inference.differentiating():
            output = network(x)
        logits = inference.logits_in(output, len(x))
        loss = functional.cross_entropy(logits, target) * (len(x) / cases)
    with inference.differentiating():
        loss.backward()
    return torch.stack([loss.detach().float(), (logits.argmax(dim=1) == target).sum()])


def _sum_over_processes(network, sums):
    """Add gradients and sums over all processes; the gradient of one without cases is 0."""
    if distributed.rank_and_world_size()[1] == 1:
        return
    trained = [p for p in network.parameters() if p.requires_grad]
    for parameter in trained:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    distributed.sum_over_processes([sums, *(parameter.grad for parameter in trained)])


def _evaluated(evaluate, network):
    """The numbers of `evaluate` as Python floats, as a checkpoint needs them."""
    if evaluate is None:
        return {}
    with torch.no_grad():
        return {name: float(value) for name, value in evaluate(network).items()}


def _fingerprint(images, labels):
    """SHA-256 of all values."""
    digest = sha256()
    for values in (images, labels):
        for part in values.split(256):  # a part may have to be copied, the whole is not
            digest.update(part.contiguous().view(torch.uint8).numpy())
    return digest.hexdigest()
