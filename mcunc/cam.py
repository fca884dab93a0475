r"""Class activation maps: where in a picture the evidence for a class lies.

For a network that ends in an average over the picture and one linear layer,

.. math:: \text{logit}_c = b_c + \frac1{hw} \sum_{x,y} M_c(x, y), \qquad
          M_c(x, y) = \sum_k w_{ck} A_k(x, y)

(Zhou et al. 2016, equations 1 and 2): the map M takes the logit apart exactly, pixel by pixel.
Maps here are raw, in units of the logit; `normalise` and `enlarge` make pictures of them.

Introduced in chapter 6.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from mcunc._internal.checks import as_array, as_classes, check_count
from mcunc._internal.inference import (
    as_network,
    as_pictures,
    batches,
    check_finite,
    device_of,
    differentiating,
    evaluating,
    forward,
    logits_in,
)
from mcunc.dropout import DROPOUTS, Masks, check_draws, sample_outputs
from mcunc.networks import standardised


@dataclass(frozen=True, eq=False)
class MapMoments:
    """Mean and standard deviation of maps and logits under dropout before the head.

    Attributes
    ----------
    classes : (N,) integer array, the class each map is of
    mean, std : (N, h, w) float32 arrays, of the map in units of the logit
    logit_mean, logit_std : (N,) float32 arrays, of the logit of that class
    """

    classes: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    logit_mean: np.ndarray
    logit_std: np.ndarray


def class_activation_maps(network, x, classes=None, batch_size=None):
    """Maps of one class for each picture, in the same forward pass as the logits.

    Parameters
    ----------
    network : networks.ImageClassifier whose head is one linear layer, with or without dropout
        before it, behind an average over the picture; it runs in evaluation mode and is left in
        its own.
    x : (N, C, H, W) tensor or array, as in `training.predict_logits`
    classes : int or (N,) integers, optional
        The class of each map; by default the one predicted.
    batch_size : int, optional

    Returns
    -------
    maps : (N, h, w) float32 array; its mean plus the bias of the class is the class's logit
    logits : (N, K) float32 array

    Raises
    ------
    ValueError
        For pictures or classes that do not fit, or a network of another form.
    """
    maps, logits = [], []
    for _, batch, chosen in _batches(network, x, classes, batch_size):
        features, scores, chosen = _forward(network, batch, chosen)
        maps.append(_maps(features, _linear(network).weight[chosen]))
        logits.append(scores)
    return _numpy(maps), _numpy(logits)


def map_moments(network, x, classes=None, batch_size=None):
    r"""Mean and standard deviation of map and logit in closed form, for dropout before the head.

    Each mask is 0 with probability p and 1/(1-p) otherwise, so that its variance is p/(1-p) and

    .. math:: \mathrm{var}\, M_c(x, y) = \frac{p}{1-p} \sum_k w_{ck}^2 A_k(x, y)^2, \qquad
              \mathrm{var}\, \text{logit}_c = \frac{p}{1-p} \sum_k w_{ck}^2 g_k^2

    with g the average of A over the picture.  The mean is the map without dropout.  Nothing in
    this depends on how much data the network has seen, other than through w and A.

    Parameters
    ----------
    network, x, classes, batch_size : see `class_activation_maps`

    Returns
    -------
    MapMoments

    Raises
    ------
    ValueError
        As `class_activation_maps`; for a network with dropout elsewhere, or none before the head.
    """
    _check_network(network)
    _only_before_head(network)
    keep = np.prod([1 - dropout.p for dropout in _head_dropouts(network)])
    factor = ((1 - keep) / keep) ** 0.5
    parts = []
    for _, batch, chosen in _batches(network, x, classes, batch_size):
        features, logits, chosen = _forward(network, batch, chosen)
        weight = _linear(network).weight[chosen]
        spread = factor * _maps(features**2, weight**2).sqrt()
        pooled = features.mean(dim=(2, 3))
        logit_spread = factor * (pooled * weight).norm(dim=1)
        logit = logits.gather(1, chosen[:, None])[:, 0]
        parts.append((chosen, _maps(features, weight), spread, logit, logit_spread))
    return MapMoments(*(_numpy(part) for part in zip(*parts, strict=True)))


def sample_maps(
    network, x, classes=None, draws=50, scope="network", seed=0, batch_size=None, first=0
):
    """Class activation maps of T stochastic passes.

    The class of a picture is the same in every pass, so that maps can be averaged.  Masks are those
    of `dropout.sample_logits` with the same arguments: the mean of a map, plus the bias, is the
    logit of that pass.

    Parameters
    ----------
    network, x : see `class_activation_maps`; the network needs dropout
    classes : int or (N,) integers, optional
        The class of each map; by default the one predicted without dropout.
    draws, scope, seed, batch_size, first : see `dropout.sample_logits`

    Returns
    -------
    (T, N, h, w) float32 array; its mean and standard deviation are over the first axis

    Raises
    ------
    ValueError
        As `class_activation_maps` and `dropout.sample_logits`.
    """
    numbers, seed = check_draws(draws, scope, seed, first)
    _check_network(network)
    before_head = not _active(network.features)
    if before_head:
        _only_before_head(network)
    parts = []
    for start, batch, chosen in _batches(network, x, classes, batch_size):
        features, _, chosen = _forward(network, batch, chosen)
        weight = _linear(network).weight[chosen]
        if before_head:
            masks = _head_masks(network, features, numbers, scope, seed, start)
            with torch.no_grad():  # T maps of a picture are one product of matrices
                flat = (masks * weight).transpose(0, 1) @ features.flatten(2)
            parts.append(flat.transpose(0, 1).unflatten(2, features.shape[2:]).cpu().numpy())
        else:
            maps = sample_outputs(
                _MapNetwork(network, weight), batch, draws, scope, seed, len(batch), first, start
            )
            parts.append(maps)
    return np.concatenate(parts, axis=1)


def grad_cam(network, x, classes=None, layer="features", batch_size=None, reshape=None):
    r"""Maps by Grad-CAM (Selvaraju et al. 2017), for networks without the head that CAM needs.

    The map of a class is the positive part of :math:`\sum_k \bar g_k A_k(x, y)`, with A the output
    of a layer and :math:`\bar g_k` the mean over x and y of the logit's derivative by
    :math:`A_k(x, y)`.  It is scaled to [0, 1], enlarged, and scaled again: sizes cannot be compared
    between maps, so that means and standard deviations over passes must be taken from
    `sample_maps`.  For a head as in `class_activation_maps` it is the positive part of that map,
    up to scale.

    Parameters
    ----------
    network : torch.nn.Module, (B, C, H, W) -> (B, K), or what else `training.predict_logits` takes
        It runs in evaluation mode and is left in its own.
    x : (N, C, H, W) tensor or array, as in `training.predict_logits`
    classes : int or (N,) integers, optional
        The class of each map; by default the one predicted.
    layer : str
        Name in ``network.named_modules()`` of the part whose output is mapped.
    batch_size : int, optional
    reshape : callable tensor -> (B, C, h, w) tensor, optional
        What makes maps of the layer's output where it is of another form.  Vision transformers
        return (B, tokens, C): with one class token and 14 × 14 patches,
        ``lambda a: a[:, 1:].unflatten(1, (14, 14)).permute(0, 3, 1, 2)``.  Swin transformers return
        (B, h, w, C): ``lambda a: a.permute(0, 3, 1, 2)``.

    Returns
    -------
    (N, H, W) float32 array in [0, 1]

    Raises
    ------
    ValueError
        For pictures or classes that do not fit, a layer that is not in the network, that the logits
        do not depend on, or whose output is not (B, C, h, w).  Outputs of four axes are taken for
        (B, h, w, C) if their second and third axis are more nearly in the proportion of the
        picture's sides than the third and fourth.  Where they are nearly alike (logarithms within
        0.1), it depends on whether the layer has linear layers or LayerNorm and no convolution.
    """
    parts = dict(as_network(network).named_modules())
    part = parts.get(layer) if isinstance(layer, str) else None
    if part is None:
        found = layer if isinstance(layer, str) else f"of type {type(layer).__name__}"
        raise ValueError(f"layer: the network has no part {found!r}; name one of its modules")
    _refuse_scripted(part)
    if not (reshape is None or callable(reshape)):
        raise ValueError(f"reshape: expected a callable or None, got {reshape!r}")
    maps = []
    for _, batch, chosen in _batches(network, x, classes, batch_size, check=False):
        output, gradient = _with_gradient(network, batch, chosen, layer, part)
        if reshape is None:
            _refuse_other_layouts(output, batch, layer, part)
        else:
            output, gradient = _reshaped(reshape, output), _reshaped(reshape, gradient)
        if output.shape[2:] == (1, 1):
            raise ValueError(
                f"layer: the maps of {layer!r} are of one pixel, which shows no place; take an "
                "earlier layer, or larger pictures"
            )
        if not gradient.any():
            raise ValueError(
                f"layer: the logits do not depend on the maps of {layer!r}; take an earlier layer"
            )
        maps.append(_maps(output, gradient.mean(dim=(2, 3))).clamp(min=0))
    large = enlarge(normalise(_numpy(maps)), batch.shape[2:])
    return normalise(large).astype(np.float32)


def normalise(maps, shared=False):
    """Scale maps to [0, 1], for drawing.

    Parameters
    ----------
    maps : (..., h, w) array
    shared : bool
        One scale for all maps, so that they can be compared, instead of one for each.

    Returns
    -------
    array of the same shape; a constant map becomes 0

    Raises
    ------
    ValueError
        If `maps` is no such array.
    """
    maps = _as_maps(maps)
    axes = None if shared else (-2, -1)
    low, high = maps.min(axis=axes, keepdims=True), maps.max(axis=axes, keepdims=True)
    span = high - low
    return (maps - low) / np.where(span > 0, span, 1)


def enlarge(maps, size):
    """Interpolate maps to the size of the picture, linearly in both directions.

    Parameters
    ----------
    maps : (..., h, w) array
    size : int, or pair of int, height and width in pixels

    Returns
    -------
    (..., H, W) array

    Raises
    ------
    ValueError
        If `maps` is no such array or `size` is not one or two positive whole numbers.
    """
    maps = _as_maps(maps)
    pair = tuple(size) if np.iterable(size) else (size, size)
    if len(pair) != 2:
        raise ValueError(f"size: expected height and width, got {size!r}")
    pair = [check_count("size", side, maximum=2**14) for side in pair]
    flat = torch.tensor(maps.reshape(1, -1, *maps.shape[-2:]))
    large = F.interpolate(flat, size=pair, mode="bilinear", align_corners=False)
    return large.numpy().reshape(*maps.shape[:-2], *pair)


def pointing_hits(maps, masks):
    """Whether the highest point of each map falls on the part it should: the pointing game.

    Zhang et al. (2018).  A map is enlarged to the size of the mask first.  Chance, for a point
    anywhere in the picture, is ``masks.mean(axis=(1, 2))``.

    Parameters
    ----------
    maps : (N, h, w) array
    masks : (N, H, W) bool array

    Returns
    -------
    (N,) bool array

    Raises
    ------
    ValueError
        If the shapes disagree.
    """
    maps, masks = as_array("maps", maps, ndim=3), np.asarray(masks)
    if masks.ndim != 3 or masks.dtype != bool or len(masks) != len(maps) or not masks.size:
        raise ValueError(f"masks: expected {len(maps)} bool arrays (H, W), got {masks.shape}")
    peaks = enlarge(maps, masks.shape[1:]).reshape(len(maps), -1).argmax(axis=1)
    return masks.reshape(len(masks), -1)[np.arange(len(masks)), peaks]


# The network taken apart ----------------------------------------------------------------------


def _head_masks(network, features, numbers, scope, seed, first_case):
    """(T, N or 1, C) masks of the averages of the channels: those that the whole network draws."""
    masks = Masks(seed, scope, first_case, len(features))
    pooled = features[:, :, 0, 0]
    dropouts = [dropout for dropout in _head_dropouts(network) if dropout.p > 0]
    found = []
    for masks.draw in numbers:
        kept = [masks.kept(site, pooled, d.p, False) / (1 - d.p) for site, d in enumerate(dropouts)]
        found.append(math.prod(kept))
    return torch.stack(found)


class _MapNetwork(nn.Module):
    """Pictures -> maps of the classes whose weights (N, C) are given, under the same masks."""

    def __init__(self, network, weight):
        super().__init__()
        self.network, self.weight = network, weight
        self.dropouts = nn.Sequential(*_head_dropouts(network))

    def forward(self, x):
        features = _features(self.network, x)
        masks = self.dropouts(torch.ones_like(features[:, :, 0, 0]))
        return _maps(features, self.weight * masks)


def _features(network, x):
    return network.features(standardised(x, network.mean, network.std))


def _maps(features, weight):
    """(N, h, w) from features (N, C, h, w) and a row of weights for each picture (N, C)."""
    return (weight[:, None] @ features.flatten(2))[:, 0].unflatten(1, features.shape[2:])


def _linear(network):
    return network.head if isinstance(network.head, nn.Linear) else network.head[-1]


def _head_dropouts(network):
    """All dropout between the averages and the weights of the head, in the order it acts."""
    before = [] if isinstance(network.head, nn.Linear) else list(network.head[:-1])
    own = getattr(_linear(network), "dropout", None)  # put there by with_dropout
    return [*before, *([] if own is None else [own])]


def _active(network):
    return any(isinstance(m, DROPOUTS) and m.p > 0 for m in network.modules())


def _only_before_head(network):
    if _active(network.features):
        raise ValueError("network: has dropout in its features; sample_maps draws their maps")
    if any(dropout.p == 1 for dropout in _head_dropouts(network)):
        raise ValueError("network: its head drops everything, p = 1")
    if not any(dropout.p > 0 for dropout in _head_dropouts(network)):
        raise ValueError("network: has no dropout before its head; see dropout.with_dropout")


def _refuse_scripted(part):
    if isinstance(part, torch.jit.ScriptModule):
        raise ValueError("network: is scripted, and hides its parts; pass what it was made from")


def _check_network(network):
    _refuse_scripted(network)
    names = ("features", "pooling", "head", "mean", "std")
    parts = [getattr(network, name, None) for name in names]
    if not all(isinstance(part, (nn.Module, torch.Tensor)) for part in parts):
        raise ValueError(
            f"network: expected {', '.join(names)}, as in networks.ImageClassifier; "
            "networks.torchvision_classifier takes torchvision's networks apart, and grad_cam "
            "needs no such parts"
        )
    head = list(network.head) if isinstance(network.head, nn.Sequential) else [network.head]
    if not (head and isinstance(head[-1], nn.Linear)):
        raise ValueError("network: its head must end in one linear layer; see grad_cam")
    if not all(isinstance(layer, DROPOUTS) for layer in head[:-1]):
        raise ValueError(
            "network: its head has more than dropout and one linear layer; see grad_cam"
        )
    if any(isinstance(module, DROPOUTS) for module in network.pooling.modules()):
        raise ValueError("network: has dropout in its pooling; put it at the start of the head")


class _Draws(TorchDispatchMode):
    """Notes whether this thread draws random numbers, whatever others do to torch's generators."""

    drawn = False

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if torch.Tag.nondeterministic_seeded in func.tags:
            names = [argument.name for argument in func._schema.arguments]
            given = {a.name: a.default_value for a in func._schema.arguments}
            given |= dict(zip(names, args, strict=False)) | (kwargs or {})
            off = ("dropout_p", "dropout", "p", "train", "training")  # attention without dropout
            self.drawn |= not any(given.get(name) in (0, False) for name in off if name in given)
        return func(*args, **(kwargs or {}))


def _forward(network, batch, chosen):
    """Features (N, C, h, w), logits (N, K) and the classes of one deterministic pass."""

    def both(x):
        features = _features(network, x)
        return features, network.head(network.pooling(features))

    with evaluating(network), _Draws() as draws:
        (features, logits), _ = forward(both, batch)
    if draws.drawn:
        raise ValueError(
            "network: draws at random in evaluation mode, perhaps by a call of "
            "torch.nn.functional.dropout; use nn.Dropout, which can be switched off to choose "
            "the class"
        )
    linear = _linear(network)
    if features.ndim != 4 or features.shape[1] != linear.in_features:
        raise ValueError("network: its features must be maps (N, C, h, w), C inputs of the head")
    check_finite(network, batch, logits)
    with torch.no_grad():
        exact = F.linear(features.mean(dim=(2, 3)), linear.weight, linear.bias)
    if not torch.allclose(exact, logits, rtol=1e-3, atol=1e-3 * float(logits.abs().max())):
        raise ValueError("network: its pooling is no average over the picture; see grad_cam")
    _check_classes(chosen, logits.shape[1])
    return features, logits, logits.argmax(dim=1) if chosen is None else chosen


def _with_gradient(network, batch, chosen, layer, part):
    """The output of a part of the network and the derivative of the classes' logits by it."""
    seen = []

    def keep(module, given, output):
        parts = output.values() if isinstance(output, Mapping) else output
        parts = [output] if torch.is_tensor(output) else parts
        seen[:] = [next(filter(torch.is_tensor, parts), None)]
        return output.clone() if torch.is_tensor(output) else None  # against changes in place

    hook = part.register_forward_hook(keep)
    try:
        with evaluating(network), torch.inference_mode(False), torch.enable_grad():
            output, _ = forward(network, batch.clone().requires_grad_().clone())
    finally:
        hook.remove()
    logits = logits_in(output, len(batch))
    check_finite(network, batch, logits)
    _check_classes(chosen, logits.shape[1])
    chosen = logits.argmax(dim=1) if chosen is None else chosen
    gradient = None
    if seen and seen[0] is not None and seen[0].requires_grad and logits.requires_grad:
        with differentiating(), torch.inference_mode(False), torch.enable_grad():
            score = logits.gather(1, chosen.clone()[:, None]).sum()
            (gradient,) = torch.autograd.grad(score, seen[0], allow_unused=True)
    if gradient is None:
        raise ValueError(
            f"layer: nothing leads from the output of {layer!r} to the logits; name another (in a "
            "traced or exported network no layer can be seen)"
        )
    return seen[0].detach(), gradient


def _refuse_other_layouts(output, batch, layer, part):
    """Refuse what is not (B, C, h, w); see `grad_cam`."""
    shape = tuple(output.shape)
    if output.ndim != 4 or len(output) != len(batch):
        raise ValueError(
            f"layer: {layer!r} returns {shape}, not (B, C, h, w); pass reshape, which makes such "
            "maps of it, or name a layer that returns them"
        )
    sides = [shape[1:3], shape[2:4], batch.shape[2:4]]
    *found, expected = (math.log(height / width) for height, width in sides)
    first, last = (abs(one - expected) for one in found)
    kinds = [type(module) for module in part.modules()]
    dense = {nn.Linear, nn.LayerNorm} & set(kinds) and nn.Conv2d not in kinds
    if first < last + (0.1 if dense else -0.1):
        raise ValueError(
            f"layer: {layer!r} returns {shape}, which looks like (B, h, w, C); pass "
            "reshape=lambda a: a.permute(0, 3, 1, 2), or reshape=lambda a: a if it is (B, C, h, w)"
        )


def _reshaped(reshape, output):
    try:
        maps = reshape(output)
    except Exception as error:  # whatever a function of the caller may raise
        raise ValueError(f"reshape: fails on {tuple(output.shape)} ({error})") from error
    if not (torch.is_tensor(maps) and maps.ndim == 4 and len(maps) == len(output)):
        shape = tuple(maps.shape) if torch.is_tensor(maps) else type(maps).__name__
        raise ValueError(
            f"reshape: must make (B, C, h, w) of {tuple(output.shape)}, and makes {shape}"
        )
    return maps


def _check_classes(chosen, count):
    if chosen is not None and chosen.max() >= count:
        raise ValueError(f"classes: go up to {chosen.max()}; classes are 0 to {count - 1}")


# Inputs and outputs ---------------------------------------------------------------------------


def _batches(network, x, classes, batch_size, check=True):
    """Number of the first case, pictures and classes (or None) of each batch."""
    if check:
        _check_network(network)
    x = as_pictures(x)
    if classes is not None:
        one = isinstance(classes, (int, np.integer))
        value = np.full(len(x), classes) if one else classes
        classes = torch.from_numpy(as_classes("classes", value, len(x), 2**31).astype(np.int64))
    device = device_of(network)
    for start, batch in batches(x, batch_size, network):
        chosen = None if classes is None else classes[start : start + len(batch)].to(device)
        yield start, batch, chosen


def _as_maps(maps):
    return as_array("maps", maps, ndim=tuple(range(2, 9)))


def _numpy(parts):
    parts = torch.cat(list(parts)).detach().cpu()
    return (parts.float() if parts.is_floating_point() else parts).numpy()
