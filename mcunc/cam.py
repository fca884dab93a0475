r"""Class activation maps: where in a picture the evidence for a class lies.

For a network that ends in global average pooling and one linear layer,

.. math:: \text{logit}_c = b_c + \frac1{hw} \sum_{x,y} M_c(x, y), \qquad
          M_c(x, y) = \sum_k w_{ck} A_k(x, y)

(Zhou et al. 2016, equations 1 and 2).  The map M splits the logit exactly into contributions of
positions.  Maps are in units of the logit; use `normalise` and `enlarge` to draw them.

For other networks use gradient methods such as Grad-CAM in the library pytorch-grad-cam.  They
scale every map to [0, 1], so their maps should not be averaged over passes.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from mcunc._internal import inference
from mcunc._internal.checks import as_array, as_classes, check_count
from mcunc.dropout import DROPOUTS, Masks, check_draws, sample_outputs
from mcunc.networks import standardised

__all__ = ["MapMoments", "class_activation_maps", "enlarge", "map_moments", "normalise"]
__all__ += ["last_layer", "pointing_hits", "sample_maps"]

OTHERWISE = "pytorch-grad-cam draws maps of other networks"


@dataclass(frozen=True, eq=False)
class MapMoments:
    """Mean and standard deviation of maps and logits under dropout before the head.

    Attributes
    ----------
    classes : (N,) integer array, the class of each map
    mean, std : (N, h, w) float32 arrays, for the map, in units of the logit
    logit_mean, logit_std : (N,) float32 arrays, for the logit of the class

    Examples
    --------
    See `map_moments`.

    >>> from mcunc import cam
    >>> cam.MapMoments.__match_args__[1:3]
    ('mean', 'std')
    """

    classes: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    logit_mean: np.ndarray
    logit_std: np.ndarray


def class_activation_maps(network, x, classes=None, batch_size=None):
    """Class activation map of one class for each picture, and the logits of all classes.

    Parameters
    ----------
    network : networks.ImageClassifier
        It must end in global average pooling and one linear layer, with or without dropout between
        them.  It runs in evaluation mode; its own mode is restored.
    x : (N, C, H, W) tensor or array, as in `training.predict_logits`
    classes : int or (N,) integers, optional
        The class of each map; by default the predicted class.
    batch_size : int, optional

    Returns
    -------
    maps : (N, h, w) float32 array; the mean of a map plus the bias of its class is the logit
    logits : (N, K) float32 array

    Raises
    ------
    ValueError
        For pictures or classes that do not fit, or a network of another form.

    Examples
    --------
    >>> from mcunc import birdwatch, cam, networks
    >>> network = networks.small_inception(classes=8).eval()
    >>> x = birdwatch.as_bytes(birdwatch.draw_birds(3, seed=0, eight_bit=True))
    >>> maps, logits = cam.class_activation_maps(network, x)
    >>> maps.shape
    (3, 8, 8)
    >>> bias = network.head.bias.detach().numpy()[logits.argmax(axis=1)]
    >>> bool((abs(maps.mean(axis=(1, 2)) + bias - logits.max(axis=1)) < 1e-4).all())
    True
    """
    maps, logits = [], []
    for _, batch, chosen in _batches(network, x, classes, batch_size):
        features, scores, chosen = _forward(network, batch, chosen)
        maps.append(_maps(features, last_layer(network).weight[chosen][:, None])[:, 0])
        logits.append(scores)
    return _numpy(maps), _numpy(logits)


def map_moments(network, x, classes=None, batch_size=None):
    r"""Exact mean and standard deviation of map and logit, for dropout before the head only.

    A mask is 0 with probability p and 1/(1-p) otherwise.  Its variance is p/(1-p), so

    .. math:: \mathrm{var}\, M_c(x, y) = \frac{p}{1-p} \sum_k w_{ck}^2 A_k(x, y)^2, \qquad
              \mathrm{var}\, \text{logit}_c = \frac{p}{1-p} \sum_k w_{ck}^2 g_k^2

    with g the average of A over the picture.  The mean is the map without dropout.  The number of
    training cases enters only through w and A.

    Parameters
    ----------
    network, x, classes, batch_size : see `class_activation_maps`

    Returns
    -------
    MapMoments

    Raises
    ------
    ValueError
        As `class_activation_maps`, and for a network with other dropout or none before the head.

    Examples
    --------
    >>> from mcunc import birdwatch, cam, dropout, networks
    >>> network = networks.small_inception(classes=8).eval()
    >>> x = birdwatch.as_bytes(birdwatch.draw_birds(3, seed=0, eight_bit=True))
    >>> network = dropout.with_dropout(network, 0.5, layers=["head"])
    >>> moments = cam.map_moments(network, x)
    >>> moments.std.shape, bool((moments.std >= 0).all())
    ((3, 8, 8), True)
    """
    _check_network(network)
    _only_before_head(network)
    keep = np.prod([1 - dropout.p for dropout in _head_dropouts(network)])
    factor = ((1 - keep) / keep) ** 0.5
    parts = []
    for _, batch, chosen in _batches(network, x, classes, batch_size):
        features, logits, chosen = _forward(network, batch, chosen)
        weight = last_layer(network).weight[chosen]
        spread = factor * _maps(features**2, weight[:, None] ** 2)[:, 0].sqrt()
        pooled = features.mean(dim=(2, 3))
        logit_spread = factor * (pooled * weight).norm(dim=1)
        logit = logits.gather(1, chosen[:, None])[:, 0]
        mean = _maps(features, weight[:, None])[:, 0]
        parts.append((chosen, mean, spread, logit, logit_spread))
    return MapMoments(*(_numpy(part) for part in zip(*parts, strict=True)))


def sample_maps(
    network, x, classes=None, draws=50, scope="network", seed=0, batch_size=None, first=0
):
    """Class activation maps of T stochastic passes.

    The class of a picture is the same in every pass, so that maps can be averaged.  The masks equal
    those of `dropout.sample_logits` with the same arguments, so the mean of a map plus the bias is
    the logit of that pass.

    Parameters
    ----------
    network, x : see `class_activation_maps`; the network needs dropout
    classes : int, (N,) integers or "all", optional
        The class of each map; by default the class predicted without dropout.
    draws, scope, seed, batch_size, first : see `dropout.sample_logits`

    Returns
    -------
    (T, N, h, w) float32 array, or (T, N, K, h, w) for "all"

    Raises
    ------
    ValueError
        As `class_activation_maps` and `dropout.sample_logits`.

    Examples
    --------
    >>> from mcunc import birdwatch, cam, dropout, networks
    >>> network = networks.small_inception(classes=8).eval()
    >>> x = birdwatch.as_bytes(birdwatch.draw_birds(3, seed=0, eight_bit=True))
    >>> network = dropout.with_dropout(network, 0.05)
    >>> cam.sample_maps(network, x, draws=4).shape
    (4, 3, 8, 8)
    >>> cam.sample_maps(network, x, "all", draws=4).shape
    (4, 3, 8, 8, 8)
    """
    numbers, seed = check_draws(draws, scope, seed, first)
    every = isinstance(classes, str) and classes == "all"
    _check_network(network)
    before_head = not _active(network.features)
    if before_head:
        _only_before_head(network)
    parts = []
    for start, batch, chosen in _batches(network, x, None if every else classes, batch_size):
        features, _, chosen = _forward(network, batch, chosen)
        weight = last_layer(network).weight  # (K, C), then (N, K or 1, C)
        weight = weight.expand(len(batch), -1, -1) if every else weight[chosen][:, None]
        if before_head:
            masks = _head_masks(network, features, numbers, scope, seed, start)
            with torch.no_grad():
                maps = [_maps(features, mask[:, None] * weight).cpu().numpy() for mask in masks]
            maps = np.stack(maps)
        else:
            maps = sample_outputs(
                _MapNetwork(network, weight), batch, draws, scope, seed, len(batch), first, start
            )
        parts.append(maps if every else maps[:, :, 0])
    return np.concatenate(parts, axis=1)


def normalise(maps, shared=False):
    """Scale maps to [0, 1] for drawing.

    Parameters
    ----------
    maps : (..., h, w) array
    shared : bool
        Whether all maps have the same scale, so that you can compare them.

    Returns
    -------
    array of the same shape; a constant map becomes 0

    Raises
    ------
    ValueError
        If `maps` is not such an array.

    Examples
    --------
    >>> from mcunc import cam
    >>> cam.normalise([[1.0, 3.0], [2.0, 1.0]]).tolist()
    [[0.0, 1.0], [0.5, 0.0]]
    """
    maps = _as_maps(maps)
    axes = None if shared else (-2, -1)
    low, high = maps.min(axis=axes, keepdims=True), maps.max(axis=axes, keepdims=True)
    span = high - low
    return (maps - low) / np.where(span > 0, span, 1)


def enlarge(maps, size):
    """Enlarge maps to the size of the picture by bilinear interpolation.

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
        If `maps` is not such an array or `size` is not one or two positive whole numbers.

    Examples
    --------
    >>> from mcunc import cam
    >>> cam.enlarge([[0.0, 1.0], [0.0, 1.0]], 4)[0].tolist()
    [0.0, 0.25, 0.75, 1.0]
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
    """Pointing game: whether the maximum of each map lies in the mask (Zhang et al. 2018).

    Maps are first enlarged to the size of the masks.  The hit rate of a random point is
    ``masks.mean(axis=(1, 2))``.

    Parameters
    ----------
    maps : (N, h, w) array
    masks : (N, H, W) bool array, True in the part that the map should point at

    Returns
    -------
    (N,) bool array

    Raises
    ------
    ValueError
        If the shapes disagree.

    Examples
    --------
    >>> import numpy as np
    >>> from mcunc import cam
    >>> maps = np.array([[[9, 1], [1, 1]], [[1, 1], [1, 9]]])
    >>> masks = np.zeros((2, 4, 4), bool)
    >>> masks[:, :2, :2] = True  # the part in question is at the top left
    >>> cam.pointing_hits(maps, masks).tolist()
    [True, False]
    """
    maps, masks = as_array("maps", maps, ndim=3), np.asarray(masks)
    if masks.ndim != 3 or masks.dtype != bool or len(masks) != len(maps) or not masks.size:
        raise ValueError(f"masks: expected {len(maps)} bool arrays (H, W), got {masks.shape}")
    peaks = enlarge(maps, masks.shape[1:]).reshape(len(maps), -1).argmax(axis=1)
    return masks.reshape(len(masks), -1)[np.arange(len(masks)), peaks]


def last_layer(network):
    """The linear layer at the end of a network's head.

    Parameters
    ----------
    network : networks.ImageClassifier

    Returns
    -------
    torch.nn.Linear

    Examples
    --------
    >>> from mcunc import cam, networks
    >>> cam.last_layer(networks.small_inception(classes=8)).out_features
    8
    """
    return network.head if isinstance(network.head, nn.Linear) else network.head[-1]


# The network taken apart ----------------------------------------------------------------------


def _head_masks(network, features, numbers, scope, seed, first_case):
    """T masks (N or 1, C) of the pooled channels, equal to those that the whole network draws."""
    masks = Masks(seed, scope, first_case, len(features))
    pooled = features[:, :, 0, 0]
    dropouts = [dropout for dropout in _head_dropouts(network) if dropout.p > 0]
    products = []
    for masks.draw in numbers:
        kept = [masks.kept(site, pooled, d.p, False) / (1 - d.p) for site, d in enumerate(dropouts)]
        products.append(math.prod(kept))
    return products


class _MapNetwork(nn.Module):
    """A network that returns the maps for weights (N, J, C), with the dropout of `network`."""

    def __init__(self, network, weight):
        super().__init__()
        self.network, self.weight = network, weight
        self.dropouts = nn.Sequential(*_head_dropouts(network))

    def forward(self, x):
        features = _features(self.network, x)
        masks = self.dropouts(torch.ones_like(features[:, :, 0, 0]))
        weight = self.weight if len(x) == len(self.weight) else self.weight[:1]  # when probed
        return _maps(features, weight * masks[:, None])


def _features(network, x):
    return network.features(standardised(x, network.mean, network.std))


def _maps(features, weight):
    """(N, J, h, w) from features (N, C, h, w) and J rows of weights for each picture (N, J, C)."""
    return (weight @ features.flatten(2)).unflatten(2, features.shape[2:])


def _head_dropouts(network):
    """All dropout between pooling and the weights of the head, in the order of application."""
    before = [] if isinstance(network.head, nn.Linear) else list(network.head[:-1])
    own = getattr(last_layer(network), "dropout", None)  # put there by with_dropout
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


def _check_network(network):
    names = ("features", "pooling", "head", "mean", "std")
    parts = [getattr(network, name, None) for name in names]
    if not all(isinstance(part, (nn.Module, torch.Tensor)) for part in parts):
        raise ValueError(
            f"network: expected {', '.join(names)}, as in networks.ImageClassifier; "
            f"networks.torchvision_classifier takes GoogLeNet and ResNets apart; {OTHERWISE}"
        )
    head = list(network.head) if isinstance(network.head, nn.Sequential) else [network.head]
    if not (head and isinstance(head[-1], nn.Linear)):
        raise ValueError(f"network: its head must end in one linear layer; {OTHERWISE}")
    if not all(isinstance(layer, DROPOUTS) for layer in head[:-1]):
        raise ValueError(f"network: its head has more than dropout and a linear layer; {OTHERWISE}")
    if any(isinstance(module, DROPOUTS) for module in network.pooling.modules()):
        raise ValueError("network: has dropout in its pooling; put it at the start of the head")


def _forward(network, batch, chosen):
    """Features (N, C, h, w), logits (N, K) and the classes of one deterministic pass."""

    def both(x):
        features = _features(network, x)
        return features, network.head(network.pooling(features))

    with inference.evaluating(network):
        (features, logits), _ = inference.forward(both, batch)
    linear = last_layer(network)
    if features.ndim != 4 or features.shape[1] != linear.in_features:
        raise ValueError("network: its features must be maps (N, C, h, w), C inputs of the head")
    inference.check_finite(network, batch, logits)
    with torch.no_grad():
        exact = F.linear(features.mean(dim=(2, 3)), linear.weight, linear.bias)
    if not torch.allclose(exact, logits, rtol=1e-3, atol=1e-3 * float(logits.abs().max())):
        raise ValueError(f"network: its pooling is no average over the picture; {OTHERWISE}")
    if chosen is None:
        chosen = logits.argmax(dim=1)
    elif chosen.max() >= logits.shape[1]:
        top = logits.shape[1] - 1
        raise ValueError(f"classes: go up to {chosen.max()}; classes are 0 to {top}")
    return features, logits, chosen


# Inputs and outputs ---------------------------------------------------------------------------


def _batches(network, x, classes, batch_size):
    """Number of the first case, pictures and classes (or None) of each batch."""
    _check_network(network)
    x = inference.as_pictures(x)
    if classes is not None:
        value = np.full(len(x), classes) if isinstance(classes, int | np.integer) else classes
        classes = torch.from_numpy(as_classes("classes", value, len(x), 2**31).astype(np.int64))
    for start, batch in inference.batches(x, batch_size, network):
        chosen = None if classes is None else classes[start : start + len(batch)]
        yield start, batch, None if chosen is None else chosen.to(batch.device)


def _as_maps(maps):
    return as_array("maps", maps, ndim=tuple(range(2, 9)))


def _numpy(parts):
    parts = torch.cat(list(parts)).detach().cpu()
    return (parts.float() if parts.is_floating_point() else parts).numpy()
