"""How every function of the package runs a network: its inputs, its modes, its outputs."""

from collections.abc import Mapping
from contextlib import contextmanager

import numpy as np
import torch

from mcunc._internal.checks import check_count


class Refusal(ValueError):
    """An error from inside a network's pass whose message names its argument already."""


def as_network(network):
    """Return `network` if it is a torch module."""
    if not isinstance(network, torch.nn.Module):
        cure = "; pass its module()" if hasattr(network, "module") else ""
        raise ValueError(f"network: expected a torch.nn.Module, got {type(network).__name__}{cure}")
    return network


def as_cases(x, name="x"):
    """Return `x` as a tensor (N, ...) with at least one case."""
    try:
        if not torch.is_tensor(x):
            x = torch.from_numpy(np.require(x, requirements=["C", "W"]))  # copied where it is not
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{name}: expected a tensor or an array of numbers ({error})") from None
    if x.ndim < 2 or x.numel() == 0:
        raise ValueError(f"{name}: expected at least one case (N, ...), got shape {tuple(x.shape)}")
    return x.detach()


def batches(x, batch_size, network):
    """Yield the number of the first case and the input of each batch, as `as_input` makes it.

    By default a batch holds about two million numbers, and eight times as many on a GPU.
    """
    if batch_size is None:
        numbers = 2**24 if device_of(network).type == "cuda" else 2**21
        batch_size = max(1, numbers * len(x) // x.numel())
    batch_size = check_count("batch_size", batch_size)
    for start in range(0, len(x), batch_size):
        yield start, as_input(x[start : start + batch_size], network)


def as_input(batch, network):
    """What a network is fed, on its device: the one rule for every function that runs one.

    Pictures (B, C, H, W) of uint8 become numbers from 0 to 1.  Floating-point numbers become the
    type of the network's weights.  Other integers, such as those of words, stay as they are.
    """
    batch = batch.to(device_of(network))
    if batch.ndim == 4 and batch.dtype == torch.uint8:
        batch = batch.float() / 255
    dtype = next((w.dtype for w in network.parameters() if w.is_floating_point()), None)
    return batch.to(dtype) if batch.is_floating_point() and dtype else batch


def as_pictures(x, name="x"):
    """Return `x` as a tensor (N, C, H, W) of uint8 or finite floating-point numbers."""
    x = as_cases(x, name)
    channels_last = x.ndim == 4 and x.shape[3] in (1, 3, 4) and x.shape[1] > x.shape[3]
    if x.ndim != 4 or channels_last or not (x.dtype == torch.uint8 or x.is_floating_point()):
        raise ValueError(
            f"{name}: expected pictures (N, C, H, W), uint8 or floats in [0, 1], got "
            f"{tuple(x.shape)} {str(x.dtype)[6:]}; bring the channels to the front, np.transpose("
            f"{name}, (0, 3, 1, 2)); grey pictures need an axis for their channel, {name}[:, None]"
        )
    if not x.isfinite().all():
        raise ValueError(f"{name}: contains NaN or infinity")
    return x


@contextmanager
def differentiating():
    """Name the network where torch does not run it in training, or finds no gradient in it."""
    try:
        yield
    except torch.cuda.OutOfMemoryError:
        raise
    except (RuntimeError, ValueError) as error:
        cure = "; choose a batch_size that leaves no single case over"
        cure = cure if "more than 1 value" in str(error) else ""
        raise ValueError(f"network: cannot be differentiated ({error}){cure}") from error


def forward(network, x, name="x", convert=False):
    """The network's output for an input, and the memory format of pictures that it takes.

    Channels last halves the time of a convolution on a CPU, but ``view`` fails on what comes of it.

    Parameters
    ----------
    network : callable tensor -> anything; a module in evaluation mode, since it may run twice
    x : tensor (B, ...)
    name : str, of the argument that `x` comes from
    convert : bool, to bring the network's weights into the format too

    Raises
    ------
    ValueError
        Naming the argument, for whatever the network raises; a `Refusal` comes through as it is.
    """
    formats = (torch.channels_last, torch.contiguous_format)
    for layout in formats if x.ndim == 4 else formats[1:]:
        if convert:
            network.to(memory_format=layout)
        try:
            return network(x.contiguous(memory_format=layout)), layout
        except (torch.cuda.OutOfMemoryError, Refusal):
            raise
        except (RuntimeError, ValueError, IndexError, AssertionError, TypeError) as error:
            cause = error
    cure = "" if x.is_floating_point() else "; convert it to floats, or to int64 for an embedding"
    shape = f"{tuple(x.shape)} {str(x.dtype)[6:]}"
    raise ValueError(f"{name}: the network does not take {shape} ({cause}){cure}") from cause


def logits_in(output, cases):
    """The logits (B, K) in what a network returned for B cases.

    A tensor, or what is called "logits" in a dictionary or an object.  One logit for each case may
    come as (B,), and the logits of a single case as (K,).
    """
    logits = getattr(output, "logits", output)
    if isinstance(output, Mapping):
        logits = output.get("logits")
    if torch.is_tensor(logits) and logits.is_floating_point() and logits.numel():
        if logits.ndim < 2 and (cases == 1 or logits.numel() == cases):
            logits = logits.reshape(cases, -1)
        if logits.ndim >= 2 and len(logits) == cases and logits.shape[2:].numel() == 1:
            return logits.flatten(1)
    kind = tuple(output.shape) if torch.is_tensor(output) else type(output).__name__
    raise Refusal(
        f"network: must return logits (B, K), one row per case, not {kind}; wrap it in a module "
        "that does"
    )


def check_finite(network, x, logits, name="x"):
    """Refuse logits that are not numbers, and name the cause; -inf may mask some of the classes."""
    if not x.isfinite().all():
        raise Refusal(f"{name}: contains NaN or infinity")
    if logits.amax(dim=1).isfinite().all():
        return
    state = network.state_dict().items()
    bad = [key for key, value in state if torch.is_tensor(value) and not value.isfinite().all()]
    cause = f"; so does its {', '.join(bad[:3])}" if bad else " from finite weights and inputs"
    raise Refusal(f"network: returns NaN or infinity{cause}")


def device_of(network):
    """The device of a network's weights; the CPU if it has none."""
    weight = next(network.parameters(), None)
    return torch.device("cpu") if weight is None else weight.device


@contextmanager
def evaluating(network):
    """Evaluation mode without gradients, and afterwards every module in the mode it was in."""
    training = [m for m in network.modules() if getattr(m, "training", False)]  # frozen: neither
    for module in training:
        module.training = False
    try:
        with torch.no_grad():
            yield
    finally:
        for module in training:
            module.training = True


def own_noise(device):
    """Torch's global generators are afterwards as they were."""
    return torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])


def seed_noise(seed, device):
    """Seed what dropout and the like draw from, and no generator of another device."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)
