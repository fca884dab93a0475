r"""Monte Carlo dropout: add dropout to a network and sample its predictions.

Gal & Ghahramani (2016) interpret a network with dropout as a distribution over weights,
:math:`W_i = M_i \, \mathrm{diag}(z_i)` with :math:`z_{ij} \sim \mathrm{Bernoulli}` for each of the
:math:`K_{i-1}` inputs of layer i.  A forward pass with new masks is a draw of the weights, and T
passes sample the predictive distribution.  As in torch, p is the probability to *drop* an input
(in the paper it is the probability to keep it), and kept inputs are multiplied by 1 / (1 - p).
"""

import copy
import math
import random
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from mcunc._internal import inference
from mcunc._internal.checks import check_choice, check_count, check_from_zero
from mcunc._internal.deprecation import renamed_arguments

__all__ = ["keyed_masks", "pass_masks", "sample_logits", "sample_outputs", "with_dropout"]

DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)
_FUNCTIONS = (F.dropout, F.dropout1d, F.dropout2d, F.dropout3d)
_CONVOLUTION = nn.modules.conv._ConvNd
_SCRIPTED = torch.jit.ScriptModule
_CLOSED = (nn.MultiheadAttention, nn.RNNBase, nn.RNNCellBase, nn.Bilinear, _SCRIPTED)
_BATCHNORM = nn.modules.batchnorm._BatchNorm
# Modules that draw nothing by functions, so that only their dropout layers need switching on.
_PLAIN = (
    r"mcunc|torch\.nn(?!.*(\.rnn|Multihead|Alpha|RReLU))"
    r"|torchvision\.(ops\.misc|models\.(?!.*swin|densenet))"
)
_BLOCK = 4096  # masks are drawn for so many cases at once that they have at least these elements
_LARGE = 2**18  # elements of a mask that several threads draw


@renamed_arguments(masks="mask_type")
def with_dropout(network, p, layers=None, mask_type="channel"):
    """Copy a network and add dropout to the inputs of its weight layers.

    Each convolution and linear layer of the copy gets a submodule "dropout" that its input passes
    through.  Names and shapes of the weights do not change, so state dicts of the network and the
    copy are interchangeable.

    Parameters
    ----------
    network : torch.nn.Module
        It is not changed.
    p : float in [0, 1)
        Dropout probability.
    layers : sequence of str, optional
        Names in ``network.named_modules()`` of the parts that get dropout in all their layers, such
        as ``["features.inception5b", "head"]``.  By default the whole network.
    mask_type : {"channel", "element"}
        For the inputs of convolutions.  "channel" drops whole channels, which is a draw of the
        kernel.  "element" drops single elements, which is common practice but no draw of weights.

    Returns
    -------
    torch.nn.Module
        In the mode of `network`.  A layer gets no further dropout if it has a submodule "dropout"
        or comes directly after an nn.Dropout in the same part of the network.

    Raises
    ------
    ValueError
        For an argument out of range, no weight layers, or a layer whose inputs cannot be masked
        from outside: attention, recurrent, bilinear or scripted.

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
    inference.as_network(network)
    check_from_zero("p", p, 1)
    check_choice("mask_type", mask_type, ("channel", "element"))
    tensors = [v for m in network.modules() for v in vars(m).values() if torch.is_tensor(v)]
    # What is computed from weights, as by weight_norm, is copied as a constant.
    treated = copy.deepcopy(network, {id(v): v.detach().clone() for v in tensors if not v.is_leaf})
    behind = _behind_dropout(treated)
    for layer in _weight_layers(treated, [""] if layers is None else layers):
        if layer not in behind and not hasattr(layer, "dropout"):
            whole_channels = mask_type == "channel" and isinstance(layer, _CONVOLUTION)
            kind = f"Dropout{len(layer.kernel_size)}d" if whole_channels else "Dropout"
            layer.dropout = getattr(nn, kind)(p).train(layer.training)
            layer.register_forward_pre_hook(_mask_input, with_kwargs=True)
    return treated


def sample_logits(network, x, draws=50, scope="network", seed=0, batch_size=None, first=0):
    """Logits of T stochastic passes, with dropout on and all other modules in their own mode.

    With scope "network", all cases of a pass share the same masks.  A pass is then a draw of the
    weights, and a sample is a function of x, as in Gal & Ghahramani (2016).  With scope "case",
    every case has its own masks, which is common practice.  The distribution of a single case is
    the same, but the dependence between cases is lost.

    Parameters
    ----------
    network : torch.nn.Module, (B, ...) -> (B, K)
        Other outputs are accepted as in `training.predict_logits`.  Dropout is sampled in the
        layers nn.Dropout and nn.Dropout1d to 3d.  The network is not changed, including the
        statistics of BatchNorm.
    x : (N, ...) tensor or array
        Pictures as uint8 (N, 3, H, W) are divided by 255.
    draws : int
        Number of passes, T.
    scope : {"network", "case"}
    seed : int, from 0
    batch_size : int, optional
        Cases per batch.  By default a batch has about two million numbers of `x`, or eight times as
        many on a GPU.
    first : int
        Number of the first draw.  With ``draws=50, first=50`` you get the last 50 of ``draws=100``,
        so that several processes can share the draws.

    Returns
    -------
    (T, N, K) float32 array

    Raises
    ------
    ValueError
        For an argument out of range, logits of another shape, and NaN or infinity (-inf is allowed
        for some of the classes).  For a network without randomness, with BatchNorm that uses batch
        statistics, or with dropout on tensors whose first axis is not the cases.  For randomness
        that is on in training mode only: inside attention or recurrent layers, stochastic depth,
        RReLU, or calls of functions that evaluation mode switches off.

    Notes
    -----
    Modules before the first dropout run only once.  Masks depend on the seed, the number of the
    draw, the position in the network and, with scope "case", the number of the case, but not on
    batch size or device.  Other noise, from the global generators of torch, Python or numpy, is
    drawn anew in every pass.  Torch's noise is reproducible with the seed but depends on the
    batches.  Do not sample the same network in two threads at once.

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
    if math.prod(samples.shape[3:]) != 1:
        raise ValueError(f"network: must return logits (B, K), got (B, {samples.shape[2:]})")
    return samples.reshape(samples.shape[:3])


def sample_outputs(
    network, x, draws=50, scope="network", seed=0, batch_size=None, first=0, first_case=0
):
    """Outputs of T stochastic passes, for network outputs with any number of axes.

    Parameters
    ----------
    network, x, draws, scope, seed, batch_size, first : see `sample_logits`
        The first axis of the output must be the cases.
    first_case : int
        Number of the first case, if `x` is a part of a larger array.

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
    inference.as_network(network)
    x = inference.as_cases(x)
    numbers, seed = check_draws(draws, scope, seed, first)
    first_case = check_count("first_case", first_case, 0, 2**62)
    parts, ambiguous = [], False
    with _sampling(network, x):
        for start, batch in inference.batches(x, batch_size, network):
            masks = Masks(seed, scope, first_case + start, len(batch))
            parts.append(_outputs(network, batch, masks, numbers))
            ambiguous |= masks.ambiguous or batch.shape[1] == len(batch)
        few = 3 if len(x) == 2 else 2  # for positions that are just as many as the cases
        for _, batch in inference.batches(x[[0] * few * ambiguous], few, network):
            _outputs(network, batch, Masks(seed, scope, 0, few), numbers[:1])
    return np.concatenate(parts, axis=1)


def pass_masks(network, x, draw=0, scope="network", seed=0):
    """The masks of one pass of `sample_logits`, to reproduce it by hand.

    Parameters
    ----------
    network, x, scope, seed : see `sample_logits`
    draw : int
        Number of the pass.

    Returns
    -------
    list of float32 arrays, one for each application of dropout, in the order of the pass
        0 for dropped elements, 1 / (1 - p) for others.  The first axis has length N for scope
        "case", 1 for scope "network".

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
    inference.as_network(network)
    x, factors = inference.as_cases(x), {}
    numbers, seed = check_draws(1, scope, seed, check_count("draw", draw, 0, 2**62))

    class RecordedMasks(Masks):
        def kept(self, site, x, p, whole_channels):
            kept = super().kept(site, x, p, whole_channels)
            factors[site] = (kept / ((1 - p) or 1)).cpu().numpy()
            return kept

    with _sampling(network, x):
        ((_, batch),) = inference.batches(x, len(x), network)
        _outputs(network, batch, RecordedMasks(seed, scope, 0, len(x)), numbers)
    return list(factors.values())


def check_draws(draws, scope, seed, first):
    """The numbers of the draws and the seed, from checked arguments of `sample_logits`."""
    draws, first = check_count("draws", draws), check_count("first", first, 0, 2**62)
    check_choice("scope", scope, ("network", "case"))
    return range(first, first + draws), check_count("seed", seed, minimum=0)


def keyed_masks(seed=0):
    """Dropout masks for training that depend only on seed, step, position and case.

    Torch's own masks depend on all earlier random numbers, and so on how a batch is divided among
    processes.

    Parameters
    ----------
    seed : int, from 0

    Returns
    -------
    callable (step, first, cases) -> context manager
        Pass it to `training.fit_minibatches`.  Within the context, dropout layers and
        torch.nn.functional's dropout use the masks of `cases` cases from number `first`.

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
    """A context in which dropout uses `masks`; its applications are counted from 0."""

    def __init__(self, masks):
        super().__init__()
        self.masks, self.sites, self.own = masks, 0, 0  # calls with a generator of their own

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in _FUNCTIONS:
            return self._dropout(func, *args, **kwargs)
        self.own += kwargs.get("generator") is not None
        return func(*args, **kwargs)

    def _dropout(self, func, input, p=0.5, training=True, inplace=False):
        if not training or p == 0:
            return input
        self.sites += 1
        output = self.masks(self.sites - 1, input, p, func is not F.dropout)
        return input.copy_(output) if inplace else output


class _Passes(MaskedDropout):
    """Passes of a network over one batch, in which modules before the first random draw run once.

    The first pass stores the outputs of modules that are called before any random draw.  Later
    passes use these outputs instead of calling the modules.  Code between modules runs in every
    pass, on the same tensors as in the first.

    Attributes
    ----------
    random : bool, whether there has been a random draw
    kept : dict, from the number of a call to its output and the number of the next call
    """

    def __init__(self, network, masks):
        super().__init__(masks)
        self.network, self.kept, self.first, self.random = network, {}, True, False

    def run(self, x):
        """The network's output in one more pass over a copy of the batch, within `watching`."""
        self.sites, self.calls, self.device = 0, 0, x.device
        if self.first:
            self.noise = self._noise()
        with self:
            output = self.network(_copy_on_write(x))
        self.first = False
        return output

    @contextmanager
    def watching(self):
        """Route the calls of every module through `_call`."""
        own = {module: vars(module).get("forward") for module in self.network.modules()}
        try:
            for module in own:
                module.forward = partial(self._call, module.forward)
            yield
        finally:
            for module, call in own.items():
                del module.forward
                if call is not None:
                    module.forward = call

    def _call(self, call, *args, **kwargs):
        """Call a module or use its stored output."""
        number, self.calls = self.calls, self.calls + 1
        if number in self.kept:
            output, self.calls = self.kept[number]
            return _copy_on_write(output)
        inputs = (*args, *kwargs.values())
        before = _writes(inputs) if self.first and not self.random else None
        output = call(*args, **kwargs)
        if before and self._still_fixed() and before == _writes(inputs):
            memory = _writes([output])
            if memory and not memory.keys() & before.keys():
                for inner in range(number + 1, self.calls):
                    self.kept.pop(inner, None)
                self.kept[number] = _copy_on_write(output), self.calls
        return output

    def _still_fixed(self):
        """Whether this is the first pass and there was no random draw in it."""
        if self.first and not self.random:
            self.random = self.own > 0 or self._noise() != self.noise
        return self.first and not self.random

    def _noise(self):
        """State of the global generators of torch, Python and numpy."""
        cuda = [torch.cuda.get_rng_state(self.device)] if self.device.type == "cuda" else []
        torchs = [state.numpy().tobytes() for state in (torch.default_generator.get_state(), *cuda)]
        _, words, *others = np.random.get_state()  # noqa: NPY002
        return torchs, random.getstate(), words.tobytes(), others

    def _dropout(self, func, input, p=0.5, training=True, inplace=False):
        self.random |= p > 0 and training
        return super()._dropout(func, input, p, training, inplace)


def _writes(values):
    """How often each tensor's memory was written to; None if a value may contain other tensors."""
    tensors = [v for v in values if torch.is_tensor(v) and v.layout is torch.strided]
    if len(tensors) + sum(isinstance(v, int | float | str | None) for v in values) < len(values):
        return None
    return {v.untyped_storage()._cdata: v._version for v in tensors}


def _copy_on_write(tensor):
    """A copy that needs memory only once it or the original is written to."""
    try:
        return torch._lazy_clone(tensor)
    except RuntimeError:  # memory that is not torch's own, as of a numpy array
        return tensor.clone()


def _outputs(network, batch, masks, numbers):
    """(T, B, ...) outputs of the passes with these numbers over one batch."""

    def passed(x):
        passes, outputs = _Passes(network, masks), []
        with passes.watching():
            for masks.draw in numbers:
                key = masks.seed, masks.draw, masks.first_case
                noise = np.random.SeedSequence(key).generate_state(1)[0]
                inference.seed_noise(int(noise), x.device)
                outputs.append(_as_array(network, x, passes.run(x)))
        if not passes.random:
            raise inference.Refusal(
                "network: nothing random acts in it, every pass gives the same: it has no dropout, "
                "or only with p = 0; with_dropout(network, p) adds it, to the module from before "
                "it was traced or exported"
            )
        return np.stack(outputs)

    return inference.forward(passed, batch)[0]


def _as_array(network, x, output):
    plain = torch.is_tensor(output) and output.is_floating_point() and output.ndim >= 2
    rows = output if plain and len(output) == len(x) else inference.logits_in(output, len(x))
    array = rows.float().cpu().numpy()
    if not np.isfinite(array).all():
        inference.check_finite(network, x, rows)
    return array


@contextmanager
def _sampling(network, x):
    """Switch dropout on and gradients off; restore modes, buffers and generators afterwards."""
    _refuse_fixed(network)
    off = [m for m in network.modules() if isinstance(m, DROPOUTS) and not m.training]
    compiled = "torch._dynamo" in sys.modules  # masks cannot be put into compiled code
    eager = torch.compiler.set_stance("force_eager") if compiled else nullcontext()
    noise = inference.own_noise(inference.device_of(network))
    try:
        for module in off:
            module.training = True
        with torch.inference_mode(False), torch.no_grad(), eager, noise:
            kinds = {f"{type(m).__module__}.{type(m).__name__}" for m in network.modules()}
            if not all(re.match(_PLAIN, kind) for kind in kinds):
                _refuse_missed(network, x)
            with _same_buffers(network):
                yield
    finally:
        for module in off:
            module.training = False


@contextmanager
def _same_buffers(network):
    """Restore the buffers of a network afterwards."""
    buffers = [(name, buffer, buffer.clone()) for name, buffer in network.named_buffers()]
    try:
        yield
    finally:
        for name, buffer, before in buffers:
            if network.get_buffer(name) is not buffer or not torch.equal(buffer, before):
                part, _, own = name.rpartition(".")
                setattr(network.get_submodule(part), own, buffer.copy_(before))


def _refuse_fixed(network):
    """Raise an error if dropout cannot be switched on or cases depend on one another."""
    for name, module in network.named_modules():
        title = f"{type(module).__name__} {name or 'itself'!r}"
        if isinstance(module, _SCRIPTED):
            raise ValueError(
                f"network: {title} is scripted or traced, and dropout in it cannot be switched on; "
                "pass the module it was made from"
            )
        if isinstance(module, _BATCHNORM) and (module.training or module.running_mean is None):
            raise ValueError(
                f"network: {title} uses the statistics of the batch; call network.eval() first, "
                "dropout is switched on by itself, and let it track running statistics"
            )


def _refuse_missed(network, x):
    """Raise an error for a part that is random in training mode but not in its own mode."""
    ((_, batch),) = inference.batches(x[[0, 0]], 2, network)
    off = [m for m in network.modules() if not (m.training or isinstance(m, _BATCHNORM))]

    def drawn(*modules):
        """The random draws of a pass with these in training mode, or None if the pass fails."""
        passes = _Passes(network, lambda site, x, *_: x)
        inference.seed_noise(0, batch.device)
        try:
            for module in modules:
                module.training = True
            with passes.watching(), _same_buffers(network):
                passes.run(batch)
        except Exception:  # a network may have no training mode, or need targets in it
            return None
        finally:
            for module in modules:
                module.training = False
        return passes.sites, passes.own, (noise := passes._noise())[0], noise == passes.noise

    own = drawn()
    if own is None or drawn(*off) in (own, None):
        return
    named = [(n or "itself", m) for n, m in network.named_modules() if m in off]
    parts = [f"{type(m).__name__} {n!r}" for n, m in named if drawn(m) not in (own, None)]
    raise ValueError(
        f"network: {', '.join(parts)} draws at random in training mode, which sampling would miss; "
        "set its probability to 0 or, to sample it too, its `training` to True"
    )


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
    ambiguous : bool
        Whether dropout has acted on a tensor with equally long first and second axes, so that the
        cases may be the second.
    """

    seed: int
    scope: str
    first_case: int
    cases: int
    draw: int = 0
    ambiguous: bool = False

    def __call__(self, site, x, p, whole_channels):
        """`x` with dropped elements set to 0 and the others divided by 1 - p."""
        kept, rest = self.kept(site, x, p, whole_channels), 1 - p or 1
        if kept.numel() == x.numel():
            return (x * kept).div_(rest)
        # In bfloat16 1 / 0.98 itself would be rounded, by up to 0.4 %, and all of x be off by it.
        factor = kept.to(torch.promote_types(x.dtype, torch.float32)) / rest
        return (x * factor).to(x.dtype)

    def kept(self, site, x, p, whole_channels):
        """Tensor of 0 (drop) and 1 (keep) that broadcasts to `x`, on its device."""
        if x.ndim < 2 or len(x) != self.cases:
            raise inference.Refusal(
                f"network: dropout acts on {tuple(x.shape)}, whose first axis should be the "
                f"{self.cases} cases; put them first everywhere inside it, as by batch_first=True"
            )
        self.ambiguous |= x.shape[1] == len(x)
        inner = x.shape[1:2] if whole_channels else (*x.shape[2:], x.shape[1])
        kept = torch.from_numpy(self._drawn(site, inner, p)).to(x.device, non_blocking=True)
        # Drawn with channels last, as pictures lie in memory here.
        return kept[(...,) + (None,) * (x.ndim - 2)] if whole_channels else kept.movedim(-1, 1)

    def _drawn(self, site, shape, p):
        """(N or 1, *shape) array of bytes 0 and 1, `shape` being that of one case."""
        size, start, stop = math.prod(shape), 0, 1
        if self.scope == "case":
            start, stop = self.first_case, self.first_case + self.cases
        together = max(1, _BLOCK // size)
        blocks = range(start // together, (stop - 1) // together + 1)
        kept = np.empty((len(blocks), together * size), bool)
        counters = [(0, block, site, self.draw) for block in blocks]
        # Half of torch's threads, since these go on spinning for a while after their last work.
        threads = min(torch.get_num_threads() // 2, len(blocks)) if kept.size >= _LARGE else 1
        if threads <= 1:
            _draw(kept, p, self.seed, counters)
        else:
            parts = [slice(i, None, threads) for i in range(threads)]
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(lambda i: _draw(kept[i], p, self.seed, counters[i]), parts))
        offset = start - blocks[0] * together
        return kept.view(np.uint8).reshape(-1, *shape)[offset : offset + stop - start]


def _draw(kept, p, seed, counters):
    """Fill each row of `kept` with True with probability 1 - p, using its own counter.

    Counter-based generators allow draws in any order (Salmon et al. 2011).  A random byte b keeps
    the element if b > floor(256 p) and drops it if b is smaller.  If they are equal, one case in
    256, a further draw makes the probability of dropping exactly p.
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


def _weight_layers(network, names):
    """The convolutions and linear layers in the named parts."""
    parts, modules = dict(network.named_modules(remove_duplicate=False)), {}
    for name in names:
        if name not in parts:
            raise ValueError(
                f"layers: the network has no part {name!r}; expected a list of names in "
                "network.named_modules()"
            )
        modules.update(dict.fromkeys(parts[name].modules()))
    closed = [type(module).__name__ for module in modules if isinstance(module, _CLOSED)]
    if closed:
        raise ValueError(
            f"network: the inputs of the weights inside {closed[0]} cannot be masked from outside; "
            "name the parts to treat in `layers`, or pass the module from before it was scripted"
        )
    layers = [module for module in modules if isinstance(module, (nn.Linear, _CONVOLUTION))]
    if not layers:
        raise ValueError("layers: there is no convolution and no linear layer to mask in them")
    return layers


def _behind_dropout(network):
    """The modules directly after a dropout layer with p > 0 among the children of a module."""
    behind = set()
    for part in network.modules():
        children = [m for m in part.children() if not isinstance(m, (nn.Flatten, nn.Identity))]
        behind.update(m for b, m in pairwise(children) if isinstance(b, DROPOUTS) and b.p > 0)
    return behind


def _mask_input(module, inputs, named):
    """Forward pre-hook that passes the input of a weight layer through its dropout."""
    x = inputs[0] if inputs else named.pop("input")
    return (module.dropout(x), *inputs[1:]), named
