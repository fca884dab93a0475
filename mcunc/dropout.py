r"""Dropout as a Bayesian neural network: put masks into a network and sample its predictions.

Gal & Ghahramani (2016) read a network with dropout as a distribution over weights,
:math:`W_i = M_i \, \mathrm{diag}(z_i)` with :math:`z_{ij} \sim \mathrm{Bernoulli}` for each of the
:math:`K_{i-1}` inputs of layer i.  A forward pass with fresh masks draws from it, and T passes
are samples of the predictive distribution.  Here as in torch, p is the probability to *drop*
(the paper's p is the probability to keep), and what is kept is multiplied by 1 / (1 - p).
"""

import copy
import math
import pickle
import random
import re
import sys
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial, update_wrapper
from itertools import pairwise

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from mcunc._internal.checks import check_choice, check_count, check_from_zero
from mcunc._internal.deprecation import renamed_arguments
from mcunc._internal.inference import (
    Refusal,
    as_cases,
    as_network,
    batches,
    check_finite,
    device_of,
    forward,
    logits_in,
    own_noise,
    seed_noise,
)

__all__ = ["keyed_masks", "pass_masks", "sample_logits", "sample_outputs", "with_dropout"]

DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)
_FUNCTIONS = (F.dropout, F.dropout1d, F.dropout2d, F.dropout3d)
_CONVOLUTION = nn.modules.conv._ConvNd
_SCRIPTED = torch.jit.ScriptModule
_KEEP_MODE = (nn.modules.batchnorm._NormBase, _SCRIPTED)
_CLOSED = (nn.MultiheadAttention, nn.RNNBase, nn.RNNCellBase, nn.Bilinear, _SCRIPTED)
_COMPILED = (_SCRIPTED, torch.fx.GraphModule)
_FIXED = (int, float, str, type(None))
_NO_DROPOUT = (
    "it has no dropout, or only with p = 0 or training=False; with_dropout(network, p) adds it, to "
    "the module from before it was scripted, traced or exported"
)
_BLOCK = 4096  # masks are drawn for so many cases at once that they have at least these elements
_LARGE = 2**18  # elements of a mask that several threads draw


@renamed_arguments(masks="mask_type")
def with_dropout(network, p, layers=None, mask_type="channel"):
    """Copy a network, with dropout on the inputs of its weight layers.

    Each convolution and linear layer of the copy gets a submodule "dropout", through which its
    input goes.  Names and shapes of the weights stay as they are, so that
    ``copy.load_state_dict(network.state_dict())`` works both ways.

    Parameters
    ----------
    network : torch.nn.Module
        It is left as it is.
    p : float in [0, 1)
        Probability to drop.
    layers : sequence of str, optional
        Names in ``network.named_modules()`` of the parts to treat, each with all that is in it:
        ``["features.inception5b", "head"]``.  None treats the whole network.
    mask_type : {"channel", "element"}
        At a convolution, drop whole channels, which is a draw of the kernel, or single elements,
        which is common practice but no draw of the weights.

    Returns
    -------
    torch.nn.Module
        In the mode of `network`.  A layer that comes right behind existing dropout, in the order in
        which the network registers its parts, gets no second one.

    Raises
    ------
    ValueError
        For an argument outside its range, a part that is not in the network, no weight layer, or a
        layer whose inputs cannot be masked from outside: attention, recurrent, bilinear, scripted
        or exported.

    Notes
    -----
    Source: Gal & Ghahramani (2016), section 3, who mask the inputs of every weight layer.

    Examples
    --------
    >>> from mcunc import dropout, networks
    >>> network = networks.mlp((4, 50, 3))
    >>> dropout.with_dropout(network, p=0.1)[2]
    Linear(
      in_features=50, out_features=3, bias=True
      (dropout): Dropout(p=0.1, inplace=False)
    )
    """
    as_network(network, runs=False)
    check_from_zero("p", p, 1)
    check_choice("mask_type", mask_type, ("channel", "element"))
    treated = _copied(network)
    for module, before in _to_treat(treated, [""] if layers is None else layers).items():
        if _masked(module) or (isinstance(before, nn.modules.dropout._DropoutNd) and before.p > 0):
            continue
        if hasattr(module, "dropout"):
            kind = type(module).__name__
            raise ValueError(
                f"network: a {kind} in it has a `dropout` of its own; name others in layers"
            )
        whole_channels = mask_type == "channel" and isinstance(module, _CONVOLUTION)
        kind = f"Dropout{len(module.kernel_size)}d" if whole_channels else "Dropout"
        module.dropout = getattr(nn, kind)(p).train(module.training)
        module.register_forward_pre_hook(_mask_input, with_kwargs=True)
    return treated


def sample_logits(network, x, draws=50, scope="network", seed=0, batch_size=None, first=0):
    """Logits of T stochastic passes: the network's dropout is on, all else in its own mode.

    In scope "network" one mask serves all cases of a pass.  A pass is then a draw of the weights,
    and a sample is a function of x, as in Gal & Ghahramani (2016).  In scope "case" every case
    gets masks of its own, which is common practice.  Each case by itself has the same distribution,
    but the dependence between cases is lost.

    Parameters
    ----------
    network : torch.nn.Module, (B, ...) -> (B, K)
        It may return what `training.predict_logits` takes.  Sampled are its layers nn.Dropout and
        nn.Dropout1d to 3d, and those calls of their functions in torch.nn.functional that act in
        training mode.  It is left as it was, BatchNorm's statistics included.
    x : (N, ...) tensor or array
        Pictures as uint8 (N, 3, H, W) are divided by 255.
    draws : int
        Number of passes, T.
    scope : {"network", "case"}
    seed : int, from 0
    batch_size : int, optional
        Cases in one pass.  By default about two million numbers of `x`, or eight times as many on a
        GPU.
    first : int
        Number of the first draw.  Draws 50 to 99 are those that ``draws=100`` would add to
        ``draws=50``, so that several processes can share the draws.

    Returns
    -------
    (T, N, K) float32 array

    Raises
    ------
    ValueError
        For an argument outside its range, logits of another shape, NaN or infinity (-inf may mask
        some of the classes), and a network in which nothing random acts, whose BatchNorm the passes
        would disturb, in which dropout acts on tensors that do not have the cases first, or with a
        part, such as attention, a recurrent layer or stochastic depth, that is random in training
        mode only and is no dropout layer.

    Notes
    -----
    Modules that come before the first dropout run once.  Masks depend on the seed, the number of
    the draw, the place in the network and, in scope "case", the number of the case, but not on the
    size of the batches or the device.  Other noise of the network's own mode, from the global
    generators of torch, Python or numpy, is drawn anew in every pass.  Torch's repeats with the
    seed, but depends on the batches.

    A further pass over two or three copies of one case, in training mode, finds out what is random
    and whether the cases come first wherever dropout acts.  Do not sample one network in two
    threads at once.

    Examples
    --------
    >>> import torch
    >>> from mcunc import dropout, networks
    >>> network = dropout.with_dropout(networks.mlp((4, 50, 3)), p=0.1)
    >>> samples = dropout.sample_logits(network, torch.ones(5, 4), draws=20)
    >>> samples.shape  # (T, N, K)
    (20, 5, 3)
    >>> rest = dropout.sample_logits(network, torch.ones(5, 4), draws=10, first=10)
    >>> bool((rest == samples[10:]).all())
    True
    """
    samples = sample_outputs(network, x, draws, scope, seed, batch_size, first)
    if samples.shape[3:].count(1) < samples.ndim - 3:
        raise ValueError(f"network: must return logits (B, K), got (B, {samples.shape[2:]})")
    return samples.reshape(samples.shape[:3])


def sample_outputs(
    network, x, draws=50, scope="network", seed=0, batch_size=None, first=0, first_case=0
):
    """Outputs of T stochastic passes, for networks whose output has any number of axes.

    Parameters
    ----------
    network, x, draws, scope, seed, batch_size, first : see `sample_logits`
        The first axis of the output must be the cases.
    first_case : int
        Number of the first case, where `x` is a part of more.

    Returns
    -------
    (T, N, ...) float32 array

    Raises
    ------
    ValueError
        As `sample_logits`.

    Examples
    --------
    >>> import torch
    >>> from mcunc import dropout
    >>> network = torch.nn.Sequential(torch.nn.Dropout2d(0.5), torch.nn.Conv2d(3, 8, 3))
    >>> dropout.sample_outputs(network, torch.ones(2, 3, 6, 6), draws=10).shape
    (10, 2, 8, 4, 4)
    """
    as_network(network)
    x = as_cases(x)
    numbers, seed = check_draws(draws, scope, seed, first)
    first_case = check_count("first_case", first_case, 0, 2**62)
    parts, survey = [], None
    with _sampling(network):
        for start, batch in batches(x, batch_size, network):
            survey = survey or _survey(network, batch)
            masks = Masks(seed, scope, first_case + start, len(batch))
            parts.append(_outputs(network, batch, masks, numbers, survey))
        if all((part == part[0]).all() for part in parts):  # perhaps by chance
            _refuse_silence(network, batch, survey)
    return np.concatenate(parts, axis=1)


def pass_masks(network, x, draw=0, scope="network", seed=0):
    """The masks of one pass of `sample_logits`, to follow it by hand.

    Parameters
    ----------
    network, x, scope, seed : see `sample_logits`
    draw : int
        Number of the pass.

    Returns
    -------
    list of float32 arrays, one for each place where dropout acts, in the order of the pass
        0 where dropped, 1 / (1 - p) elsewhere.  The first axis has length N, or 1 where one mask
        serves all cases.

    Raises
    ------
    ValueError
        As `sample_logits`.

    Examples
    --------
    >>> import numpy as np
    >>> import torch
    >>> from mcunc import dropout, networks
    >>> network = dropout.with_dropout(networks.mlp((4, 50, 3)), p=0.5)
    >>> first, second = dropout.pass_masks(network, torch.ones(5, 4))
    >>> first.shape, second.shape, np.unique(second).tolist()
    ((1, 4), (1, 50), [0.0, 2.0])
    """
    as_network(network)
    x, factors = as_cases(x), []
    numbers, seed = check_draws(1, scope, seed, check_count("draw", draw, 0, 2**62))
    masks = Masks(seed, scope, 0, len(x))

    def recorded(site, x, p, whole_channels):
        kept = masks.kept(site, x, p, whole_channels)
        factors.append((kept / ((1 - p) or 1)).cpu().numpy())
        return masks(site, x, p, whole_channels)

    with _sampling(network):
        ((_, batch),) = batches(x, len(x), network)
        _outputs(network, batch, masks, numbers, _survey(network, batch), recorded)
    return factors


def check_draws(draws, scope, seed, first):
    """The numbers of the draws and the seed, after a check of the arguments of `sample_logits`."""
    draws, first = check_count("draws", draws), check_count("first", first, 0, 2**62)
    check_choice("scope", scope, ("network", "case"))
    return range(first, first + draws), check_count("seed", seed, minimum=0)


def keyed_masks(seed=0):
    """Dropout for training whose masks depend on seed, step, place and case alone.

    Torch's own masks depend on everything that was drawn before, and so on how a batch is divided
    among processes.

    Parameters
    ----------
    seed : int, from 0

    Returns
    -------
    callable (step, first, cases) -> context manager
        In it torch.nn.functional's dropouts, and the layers that call them, act on a tensor of the
        cases `first` to `first` + `cases`.  For `training.fit_minibatches`.

    Raises
    ------
    ValueError
        For a seed below 0.

    Examples
    --------
    >>> import torch
    >>> from mcunc import dropout
    >>> layer, masks, x = torch.nn.Dropout(0.5), dropout.keyed_masks(seed=1), torch.ones(6, 4)
    >>> with masks(step=3, first=0, cases=6):
    ...     whole = layer(x)
    >>> with masks(step=3, first=4, cases=2):
    ...     bool((layer(x[4:]) == whole[4:]).all())
    True
    """
    seed = check_count("seed", seed, minimum=0)

    def at_step(step, first, cases):
        return MaskedDropout(Masks(seed, "case", first, cases, step))

    return at_step


# Passes ---------------------------------------------------------------------------------------


class MaskedDropout(TorchFunctionMode):
    """A context in which `masks` mask what dropout acts on, at places counted from 0."""

    def __init__(self, masks):
        super().__init__()
        self.masks, self.sites = masks, 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in _FUNCTIONS:
            return self._dropout(func, *args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))

    def _dropout(self, func, input, p=0.5, training=True, inplace=False):
        if not training or p == 0:
            return input
        self.sites += 1
        output = self.masks(self.sites - 1, input, p, func is not F.dropout)
        return input.copy_(output) if inplace else output


class _Passes(MaskedDropout):
    """Passes of a network over one batch, in which modules before the first random draw run once.

    The first pass keeps the outputs of modules that were called before anything random happened.
    Later passes take these outputs in place of the calls.  What is computed between modules runs in
    every pass, on the same tensors as in the first.

    Parameters
    ----------
    network : torch.nn.Module
    masks : callable (site, tensor, p, whole_channels) -> tensor, see `Masks`
    survey : _Passes, of `_survey`, which itself has none

    Attributes
    ----------
    acting : dict, p of each call of dropout in a survey, by its module and its number in there
    drawing : set of modules that drew other random numbers in the first pass
    """

    def __init__(self, network, masks, survey=None):
        super().__init__(masks)
        self.network, self.survey = network, survey
        self.acting, self.drawing, self.kept, self.first = {}, set(), {}, True

    def run(self, x):
        """The network's output in one more pass over a copy of the batch, inside of `watching`."""
        self.x, self.inside, self.random = x, self.network, False
        self.sites, self.calls, self.counts = 0, 0, Counter()
        self.noise, others = _noise(x.device), self.first and _other_noise()
        with self:
            output = self.network(x.clone())
        if self.first and others != _other_noise():
            self.drawing.add(self.network)
            self.kept = {}
        if self.survey is None and torch.is_tensor(output) and output.ndim > 1:
            self._check_rows(output)
        self.first = False
        return output

    @contextmanager
    def watching(self):
        """Let `_call` make the calls of every module that Python can look into."""
        modules = [m for m in self.network.modules() if not isinstance(m, _SCRIPTED)]
        own = {module: vars(module).get("forward") for module in modules}
        try:
            for module in own:
                call = partial(self._call, module, module.forward)
                vars(module)["forward"] = update_wrapper(call, module.forward)
            yield
        finally:
            for module, call in own.items():
                del vars(module)["forward"]
                if call is not None:
                    vars(module)["forward"] = call

    def _call(self, module, call, *args, **kwargs):
        """Call a module, or take the output that was kept."""
        number, self.calls = self.calls, self.calls + 1
        if number in self.kept:
            output, self.calls = self.kept[number]
            return _copy_on_write(output)
        self._listen()
        outer, self.inside, inputs = self.inside, module, (*args, *kwargs.values())
        before = _writes(inputs) if self.first and not self.random else None
        output = call(*args, **kwargs)
        self._listen()
        self.inside = outer
        if before and not self.random and before == _writes(inputs):
            memory = _writes([output])
            if memory and not memory.keys() & before.keys():
                inner = range(number + 1, self.calls)
                self.kept = {n: kept for n, kept in self.kept.items() if n not in inner}
                self.kept[number] = _copy_on_write(output), self.calls
        return output

    def _listen(self):
        """Note, in the first pass, which module has drawn random numbers since the last look."""
        if self.first:
            before, self.noise = self.noise, _noise(self.x.device)
            if self.noise != before:
                self.random = True
                self.drawing.add(self.inside)

    def _dropout(self, func, input, p=0.5, training=True, inplace=False):
        place = self.inside, self.counts[self.inside]
        self.counts[self.inside] += 1
        if not training or p == 0:  # unless it acts in training mode
            p = self.survey.acting.get(place, 0) if self.survey else 0
        self.random |= p > 0
        if p > 0 and self.survey is None:
            self._check_rows(input, self.inside)
            self.acting[place] = p
        return super()._dropout(func, input, p, True, inplace)

    def _check_rows(self, tensor, caller=None):
        """Refuse a first axis that is not the cases; in a survey all cases are the same."""
        rows = tensor[None] if len(tensor) % len(self.x) else tensor.reshape(len(self.x), -1)
        apart = (rows - rows[0]).abs() > 1e-3 * rows.abs().max()
        if len(rows) < len(self.x) or (apart.any() and not self.drawing):
            what = "it returns"
            if caller is not None:
                what = f"dropout in {_titles(self.network, [caller])} acts on"
            raise Refusal(
                f"network: {what} {tuple(tensor.shape)} for {len(self.x)} cases, whose rows are "
                "not those of one case after the other; put the cases first everywhere inside it, "
                "as by batch_first=True (dropout of weights or learned tokens is not sampled)"
            )


def _titles(network, modules):
    """What to call modules in a message."""
    parts = [(name, module) for name, module in network.named_modules() if module in modules]
    return ", ".join(f"{type(module).__name__} {name or 'itself'!r}" for name, module in parts)


def _writes(values):
    """How often each tensor's memory was written to; None where a value may hold other tensors."""
    tensors = [v for v in values if torch.is_tensor(v) and v.layout is torch.strided]
    if len(tensors) + sum(isinstance(v, _FIXED) for v in values) < len(values):
        return None
    return {v.untyped_storage()._cdata: v.is_inference() or v._version for v in tensors}


def _copy_on_write(tensor):
    """A copy that takes memory only when it, or the original, is written to."""
    try:
        return torch._lazy_clone(tensor)
    except RuntimeError:  # memory that is not torch's own, as of a numpy array
        return tensor.clone()


def _noise(device):
    """State of the generators that functions draw from when they are given none."""
    cuda = [torch.cuda.get_rng_state(device)] if device.type == "cuda" else []
    return [state.numpy().tobytes() for state in (torch.default_generator.get_state(), *cuda)]


def _other_noise():
    return pickle.dumps((random.getstate(), np.random.get_state()))  # noqa: NPY002


def _survey(network, batch):
    """A pass in training mode over copies of one case: what acts there, and what else draws.

    A network that does not take another number of cases is surveyed with as many.  Where that fails
    too, nothing is known of it beyond its own mode.
    """

    def surveyed(x):
        survey = _Passes(network, lambda site, x, p, whole_channels: x)
        with survey.watching():
            survey.run(x)
        return survey

    for cases in (3 if len(batch) == 2 else 2, len(batch)):
        with _restoring(network), warnings.catch_warnings(action="ignore"):
            for module in network.modules():
                if not isinstance(module, _KEEP_MODE):
                    module.training = True
            seed_noise(0, batch.device)
            try:
                return forward(surveyed, batch[:1].expand(cases, *batch.shape[1:]))[0]
            except Refusal:
                raise
            except Exception:  # whatever a network may raise; its own passes will tell
                continue
    return _Passes(network, None)


def _outputs(network, batch, masks, numbers, survey, masking=None):
    """(T, B, ...) outputs of the passes with these numbers over one batch."""

    def passed(x):
        passes, outputs = _Passes(network, masking or masks, survey), []
        with passes.watching():
            for masks.draw in numbers:
                key = masks.seed, masks.draw, masks.first_case
                seed_noise(int(np.random.SeedSequence(key).generate_state(1)[0]), x.device)
                output = passes.run(x)
                _refuse_unsampled(network, survey, passes)
                outputs.append(_as_array(network, x, output))
        return np.stack(outputs)

    return forward(passed, batch)[0]


def _as_array(network, x, output):
    plain = torch.is_tensor(output) and output.is_floating_point() and output.ndim >= 2
    rows = output if plain and len(output) == len(x) else logits_in(output, len(x))
    array = rows.float().cpu().numpy()
    if not np.isfinite(array).all():
        check_finite(network, x, rows)
    return array


def _refuse_unsampled(network, survey, passes):
    """Raise if the network draws more at random in training mode than in its first pass."""
    hidden, survey.drawing = survey.drawing - passes.drawing, set()  # later batches may draw less
    if hidden:
        raise Refusal(
            f"network: {_titles(network, hidden)} draws random numbers in training mode, which "
            "sampling would miss; set its probability to 0 or, to sample it too, its `training` to "
            "True, by network.get_submodule(name)"
        )


def _refuse_silence(network, batch, survey):
    """Raise, unless dropping everything gives other outputs than dropping nothing."""
    masks, sites = Masks(0, "network", 0, len(batch)), []

    def masked(site, x, p, whole_channels):
        sites.append(site)
        return x * int(masks.draw == 1 and p < 1)

    dropped, kept = _outputs(network, batch, masks, (0, 1), survey, masked)
    if np.array_equal(dropped, kept):
        cause = "its dropout does not reach the output" if sites else _NO_DROPOUT
        raise ValueError(f"network: nothing random acts in it, every pass gives the same: {cause}")


@contextmanager
def _sampling(network):
    """Dropout on, gradients off; afterwards all as it was, buffers and random numbers too."""
    _refuse_fixed(network)
    compiled = "torch._dynamo" in sys.modules  # masks cannot be put into compiled code
    eager = torch.compiler.set_stance("force_eager") if compiled else nullcontext()
    noise = own_noise(device_of(network))
    with _restoring(network) as changed, torch.inference_mode(False), torch.no_grad(), eager, noise:
        for module in network.modules():
            if isinstance(module, DROPOUTS):
                module.training = True
        yield
    if changed:
        raise ValueError(
            f"network: the passes changed {', '.join(changed[:3])} (now as before); call "
            "network.eval() first, dropout is switched on by itself"
        )


def _refuse_fixed(network):
    """Raise where a part that is no Python code any more has a dropout whose switch is lost."""
    for name, module in network.named_modules():
        graph = getattr(module, "inlined_graph", "") or getattr(module, "graph", "")
        if isinstance(module, _COMPILED) and re.search(
            r"(aten|functional)\W+\w*dropout", str(graph)
        ):
            raise ValueError(
                f"network: {name or 'it'} is a {type(module).__name__}, scripted, traced or "
                "exported, whose dropout cannot be switched on; pass the module it was made from"
            )


@contextmanager
def _restoring(network):
    """Modes and buffers are afterwards as they were; gives the names of buffers that changed."""
    modes = [(m, m.training) for m in network.modules() if not isinstance(m, _SCRIPTED)]
    buffers = [(n, b, b.clone()) for n, b in network.named_buffers() if b.layout is torch.strided]
    changed = []
    try:
        yield changed
    finally:
        for module, mode in modes:
            module.training = mode
        for name, buffer, before in buffers:
            part, _, own = name.rpartition(".")
            same = torch.allclose(buffer, before, rtol=0, atol=0, equal_nan=True)
            if network.get_buffer(name) is not buffer or not same:
                setattr(network.get_submodule(part), own, buffer.copy_(before))
                changed.append(name)


# Masks ----------------------------------------------------------------------------------------


@dataclass
class Masks:
    """The masks of a batch of cases: keyed by seed, draw, site and case.

    Attributes
    ----------
    seed : int
    scope : {"network", "case"}
    first_case, cases : int
        Number of the first case, and how many there are.
    draw : int
    """

    seed: int
    scope: str
    first_case: int
    cases: int
    draw: int = 0

    def __call__(self, site, x, p, whole_channels):
        """`x` with what is dropped at 0 and the rest divided by 1 - p."""
        kept, rest = self.kept(site, x, p, whole_channels), 1 - p or 1
        if kept.numel() == x.numel():
            return (x * kept).div_(rest)
        # In bfloat16 1 / 0.98 itself would be rounded, by up to 0.4 %, and all of x be off by it.
        factor = kept.to(torch.promote_types(x.dtype, torch.float32)) / rest
        return (x * factor).to(x.dtype)

    def kept(self, site, x, p, whole_channels):
        """Tensor of 0 and 1 that goes with `x`, where `x` is."""
        if x.ndim < 2 or len(x) % self.cases:
            raise Refusal(
                f"network: dropout acts on {tuple(x.shape)}, whose first axis should be the "
                f"{self.cases} cases"
            )
        rows = len(x) // self.cases  # of each case, as where a picture is cut into windows
        inner = x.shape[1:2] if whole_channels else (*x.shape[2:], x.shape[1])
        kept = torch.from_numpy(self._drawn(site, (rows, *inner), p)).to(
            x.device, non_blocking=True
        )
        if self.scope == "network" and rows > 1:
            kept = kept.tile((self.cases,) + (1,) * len(inner))
        # Drawn with channels last, as pictures lie in memory here.
        return kept[(...,) + (None,) * (x.ndim - 2)] if whole_channels else kept.movedim(-1, 1)

    def _drawn(self, site, shape, p):
        """(rows of all cases, ...) array of bytes 0 and 1, for `shape` of one case."""
        size, start, stop = math.prod(shape), 0, 1
        if self.scope == "case":
            start, stop = self.first_case, self.first_case + self.cases
        together = max(1, _BLOCK // size)
        blocks = range(start // together, (stop - 1) // together + 1)
        kept = np.empty((len(blocks), together * size), bool)
        counters = [(0, block, site, self.draw) for block in blocks]
        threads = min(torch.get_num_threads(), len(blocks)) if kept.size >= _LARGE else 1
        if threads == 1:
            _draw(kept, p, self.seed, counters)
        else:
            parts = [slice(i, None, threads) for i in range(threads)]
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(lambda i: _draw(kept[i], p, self.seed, counters[i]), parts))
        offset = start - blocks[0] * together
        kept = kept.view(np.uint8).reshape(-1, *shape)[offset : offset + stop - start]
        return kept.reshape(-1, *shape[1:])


def _draw(kept, p, seed, counters):
    """Fill each row of `kept` with True with probability 1 - p, from a generator of its own.

    A generator whose state is a counter needs no order of draws (Salmon et al. 2011).  A byte b
    decides for keeping where b > floor(256 p), and against it below.  In the one case of 256 where
    they are equal a further draw makes the probability exactly p.
    """
    bits = np.random.Philox(key=seed)
    generator, state = np.random.Generator(bits), bits.state
    whole, rest = int(256 * p), 256 * p % 1
    for row, counter in zip(kept, counters, strict=True):
        state["state"]["counter"][:] = counter
        bits.state = state
        byte = bits.random_raw(-(-row.size // 8)).astype("<u8", copy=False).view(np.uint8)
        byte = byte[: row.size]
        np.greater_equal(byte, whole, out=row)
        if rest:
            ties = np.flatnonzero(byte == whole)
            row[ties] = generator.random(len(ties)) >= rest


# Parts ----------------------------------------------------------------------------------------


def _copied(network):
    """A deep copy; what was computed from weights, as by weight_norm, is copied as a constant."""
    tensors = [v for m in network.modules() for v in tree_leaves(vars(m)) if torch.is_tensor(v)]
    memo = {id(value): value.detach().clone() for value in tensors if not value.is_leaf}
    return copy.deepcopy(network, memo)


def _to_treat(network, names):
    """The weight layers in the named parts, each with the layer that comes right before it."""
    if isinstance(names, str) or not np.iterable(names):
        raise ValueError(f"layers: expected names of parts in a list, got {names!r}")
    parts, targets = dict(network.named_modules(remove_duplicate=False)), set()
    for name in names:
        if name not in parts:
            known = ", ".join(repr(part) for part, _ in network.named_children())
            raise ValueError(f"layers: the network has no part {name!r}; its largest are {known}")
        targets.update(parts[name].modules())
    for module in targets:
        if isinstance(module, _CLOSED) and any(True for _ in module.parameters()):
            raise ValueError(
                f"network: the inputs of the weights inside {type(module).__name__} cannot be "
                "masked from outside; name the parts to treat in `layers`, or pass the module from "
                "before it was scripted, traced or exported"
            )
    order = [None, *_in_order(nn.ModuleList([network]))]
    layers = {m: before for before, m in pairwise(order) if m in targets and _has_weights(m)}
    if not layers:
        raise ValueError(
            "layers: there is no convolution and no linear layer to put dropout before (in an "
            "exported network none can be found)"
        )
    return layers


def _has_weights(module):
    return isinstance(module, (nn.Linear, _CONVOLUTION))


def _in_order(module):
    """The layers inside a module in the order of registration; None where a module ends whose last
    part need not give its output."""
    for child in module.children():
        if _has_weights(child) or not any(True for _ in child.children()):
            if not isinstance(child, (nn.Flatten, nn.Identity)):
                yield child
        else:
            yield from _in_order(child)
            if not isinstance(child, nn.Sequential):
                yield None


def _masked(module):
    """Whether `with_dropout` has been here."""
    return _mask_input in module._forward_pre_hooks.values()


def _mask_input(module, inputs, named):
    """Pass the input of a weight layer through its dropout first: a forward pre-hook."""
    if inputs:
        return (module.dropout(inputs[0]), *inputs[1:]), named
    return inputs, named | {"input": module.dropout(named["input"])}
