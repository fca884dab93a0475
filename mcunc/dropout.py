r"""Dropout as a Bayesian neural network: put masks into a network, and sample what it says.

Gal & Ghahramani (2016) read a network with dropout as a distribution over weights,
:math:`W_i = M_i \, \mathrm{diag}(z_i)` with :math:`z_{ij} \sim \mathrm{Bernoulli}` for each of the
:math:`K_{i-1}` inputs of layer i.  A forward pass with fresh masks draws from it, and T passes
are samples of the predictive distribution.  Here as in torch, p is the probability to *drop*
(the paper's p is that to keep), and what is kept is multiplied by 1 / (1 - p).

Introduced in chapter 5.
"""

import copy
import math
import sys
import warnings
from contextlib import contextmanager, nullcontext
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.random import fork_rng
from torch.utils._pytree import tree_leaves

from mcunc._internal.checks import check_choice, check_count, check_from_zero
from mcunc._internal.inference import (
    as_cases,
    as_network,
    batches,
    check_finite,
    device_of,
    logits_in,
    not_taken,
    seed_noise,
)
from mcunc._internal.replay import DROPOUTS, Passes

_CONVOLUTIONS = {
    **{nn.Conv1d: nn.Dropout1d, nn.ConvTranspose1d: nn.Dropout1d},
    **{nn.Conv2d: nn.Dropout2d, nn.ConvTranspose2d: nn.Dropout2d},
    **{nn.Conv3d: nn.Dropout3d, nn.ConvTranspose3d: nn.Dropout3d},
}
_DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)
_KEEP_MODE = (nn.modules.batchnorm._NormBase, torch.jit.ScriptModule)
_CLOSED = (nn.MultiheadAttention, nn.RNNBase, nn.RNNCellBase, nn.Bilinear, torch.jit.ScriptModule)
_COMPILED = (torch.jit.ScriptModule, torch.fx.GraphModule)
_BLOCK = 4096  # masks are drawn for so many cases at once that they have at least these elements
_SMALL = {"cpu": 2**15, "cuda": 2**20}  # elements of a mask that is drawn before its pass


def with_dropout(network, p, layers=None, masks="channel"):
    """Copy a network, with dropout on the inputs of its weight layers.

    Masking the inputs of every weight layer is the rule of Gal & Ghahramani (2016), section 3.
    Each convolution and linear layer of the copy has one more part, named "dropout", through
    which its input goes; names and shapes of the weights stay as they are, so that
    ``copy.load_state_dict(network.state_dict())`` works both ways.  Introduced in chapter 5.

    Parameters
    ----------
    network : torch.nn.Module; left as it is
    p : float in [0, 1), probability to drop
    layers : sequence of str, optional
        Parts of the network to treat, by their names in ``network.named_modules()``, each with
        all that is in it: ``["features.inception5b", "head"]``.  None is the whole network.
    masks : {"channel", "element"}
        At a convolution, whether whole channels are dropped, which is a draw of the kernel, or
        single elements, which is common practice and no draw of the weights.

    Returns
    -------
    torch.nn.Module, in the mode `network` is in
        A layer right behind a dropout that is there already, in the order in which the network
        registers its parts, gets no second one.

    Raises
    ------
    ValueError
        For an argument outside its range, a part that is not in the network, no weight layer at
        all, or one whose inputs cannot be masked from outside: attention, recurrent, bilinear,
        scripted or exported.
    """
    as_network(network, runs=False)
    check_from_zero("p", p, 1)
    check_choice("masks", masks, ("channel", "element"))
    treated = _copied(network)
    for module, before in _to_treat(treated, _names(layers, network)).items():
        if not (isinstance(before, nn.modules.dropout._DropoutNd) and before.p > 0):
            if hasattr(module, "dropout"):
                raise ValueError(
                    f"network: a {type(module).__name__} in it has a `dropout` of its own; name "
                    "the parts to treat in `layers`"
                )
            kinds = _CONVOLUTIONS.items() if masks == "channel" else ()
            kind = next((kind for layer, kind in kinds if isinstance(module, layer)), nn.Dropout)
            module.dropout = kind(p).train(module.training)
            module.register_forward_pre_hook(_mask_input, with_kwargs=True)
    return treated


def sample_logits(network, x, draws=50, scope="network", seed=0, batch_size=None, first=0):
    """Logits of T stochastic passes: the dropout of the network on, all else in its own mode.

    In scope "network" one mask serves all cases of a pass.  A pass is then a draw of the weights,
    and a sample is a function of x, as in Gal & Ghahramani (2016).  In scope "case" every case
    gets masks of its own, which is common practice: each case by itself has the same
    distribution, and what two cases have in common is lost.

    The cases must be the first axis wherever dropout acts.  A further pass over two or three cases
    in training mode checks it, and that training draws nothing else.  What is random in the
    network's own mode, other than dropout, is drawn anew in every pass.  It repeats with the seed,
    but depends on the batches too.  Do not sample one network in two threads at once.

    Modules that come before the first dropout run once.  Masks depend on the seed, the number of
    the draw, the place in the network and, in scope "case", the number of the case, and on nothing
    else: not on the size of the batches, nor on the device.  Introduced in chapter 5.

    Parameters
    ----------
    network : torch.nn.Module, (B, ...) -> (B, K), or what else `training.predict_logits` takes
        Its layers nn.Dropout, nn.Dropout1d to 3d, and the calls of their functions in
        torch.nn.functional that act in training mode are what is sampled.  It is left as it was,
        BatchNorm's statistics included.
    x : (N, ...) tensor or array; pictures as uint8 (N, 3, H, W) are divided by 255
    draws : int, T
    scope : {"network", "case"}
    seed : int, from 0
    batch_size : int, optional
        Cases in one pass.  By default about two million numbers of `x`, or eight times as many on a
        GPU.
    first : int
        Number of the first draw: draws 50 to 99 are those that ``draws=100`` would add to
        ``draws=50``.

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
    """
    samples = sample_outputs(network, x, draws, scope, seed, batch_size, first)
    if samples.shape[3:].count(1) < samples.ndim - 3:
        raise ValueError(f"network: must return logits (B, K), got (B, {samples.shape[2:]})")
    return samples.reshape(samples.shape[:3])


def sample_outputs(
    network, x, draws=50, scope="network", seed=0, batch_size=None, first=0, first_case=0
):
    """As `sample_logits`, for a network whose output has any number of axes, cases first.

    Parameters
    ----------
    network, x, draws, scope, seed, batch_size, first : see `sample_logits`
    first_case : int, number of the first case, where `x` is a part of more

    Returns
    -------
    (T, N, ...) float32 array

    Raises
    ------
    ValueError
        As `sample_logits`.
    """
    as_network(network)
    x = as_cases(x)
    numbers, seed = _check_draws(draws, scope, seed, first)
    first_case = check_count("first_case", first_case, 0, 2**62)
    parts, silent, survey, device = [], True, None, device_of(network)
    with _sampling(network, device):
        for start, batch in batches(x, batch_size, network):
            survey = _survey(network, batch) if start == 0 else survey
            masks = _Masks(seed, scope, first_case + start, len(batch))
            parts.append(_passes(network, batch, masks, numbers, survey))
            silent = silent and bool((parts[-1] == parts[-1][0]).all())
        if silent:  # perhaps by chance, perhaps because nothing random acts
            _refuse_silence(network, batch, masks, survey)
    return np.concatenate(parts, axis=1)


def pass_masks(network, x, draw=0, scope="network", seed=0):
    """The masks of one pass of `sample_logits`, to follow it by hand.

    Parameters
    ----------
    network, x, scope, seed : see `sample_logits`
    draw : int, number of the pass

    Returns
    -------
    list of float32 arrays, one for each place where dropout acts, in the order of the pass
        0 where dropped, 1 / (1 - p) elsewhere; the first axis has length N, or 1 where one mask
        serves all cases.

    Raises
    ------
    ValueError
        As `sample_logits`.
    """
    found = []

    class Recorder(_Masks):
        def __call__(self, site, x, p, whole_channels):
            if self.forced is None:
                kept = self.kept(site, x, p, whole_channels)
                found.append((kept / (1 - p) if p < 1 else kept.float()).cpu().numpy())
            return super().__call__(site, x, p, whole_channels)

    as_network(network)
    device = device_of(network)
    numbers, seed = _check_draws(1, scope, seed, check_count("draw", draw, 0, 2**62))
    with _sampling(network, device):
        x = as_cases(x)
        _, batch = next(batches(x, len(x), network))
        masks = Recorder(seed, scope, 0, len(x))
        _replayed(Passes(network, batch, masks, _survey(network, batch)), numbers)
    return found


def _check_draws(draws, scope, seed, first):
    """The numbers of the draws and the seed, after a check of what `sample_logits` is given."""
    draws, first = check_count("draws", draws), check_count("first", first, 0, 2**62)
    check_choice("scope", scope, ("network", "case"))
    return range(first, first + draws), check_count("seed", seed, minimum=0)


def keyed_masks(seed=0):
    """Dropout for training whose masks depend on seed, step, place and case alone.

    Torch's own depend on everything that was drawn before, and so on how a batch is divided among
    processes.  For `training.fit_minibatches`.  Introduced in chapter 6.

    Parameters
    ----------
    seed : int, from 0

    Returns
    -------
    callable (step, first, cases) -> context manager, in which torch.nn.functional's dropouts, and
    the layers that call them, act on a tensor of the cases `first` to `first` + `cases`

    Raises
    ------
    ValueError
        For a seed below 0.
    """
    seed = check_count("seed", seed, minimum=0)
    last = {}  # by number of cases: masks of the last step, which asked for what this will

    def of_step(step, first, cases):
        masks = _Masks(seed, "case", first, cases)
        if cases in last:
            masks.asked = last[cases].asked
        last[cases] = masks
        return _KeyedDropout(masks, step)

    return of_step


class _KeyedDropout(TorchFunctionMode):
    def __init__(self, masks, step):
        super().__init__()
        self.masks, self.sites = masks, 0
        masks.begin(step)

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in DROPOUTS:
            return self._dropout(func, *args, **kwargs)
        return func(*args, **kwargs)

    def _dropout(self, func, input, p=0.5, training=True, inplace=False):
        if not training or p == 0:
            return input
        self.sites += 1
        output = self.masks(self.sites - 1, input, p, func is not nn.functional.dropout)
        return input.copy_(output) if inplace else output


# Passes ---------------------------------------------------------------------------------------


def _survey(network, batch):
    """One pass in training mode over few cases: which calls of dropout act, and what else draws.

    A network that does not take another number of cases, or has no training mode of its own, is
    surveyed over the batch or in the mode it is in; if that fails too, the result is None.
    """
    few = batch[torch.arange(3 if len(batch) == 2 else 2) % len(batch)]
    modes = [(m, m.training) for m in network.modules() if not isinstance(m, _KEEP_MODE)]
    buffers = _buffers(network)
    ways = [(x, True) for x in (*_layouts(few), batch)]
    for x, training in (*ways, (few, False)):
        try:
            for module, mode in modes:
                module.training = training or mode
            survey = Passes(network, x)
            seed_noise(0, x.device)
            with survey.watching(), warnings.catch_warnings(action="ignore"):
                output = survey.run()
                if survey.foreign:  # once more: who was it?
                    survey.fresh = True
                    survey.run()
                elif len(x) == len(few):
                    seed_noise(0, x.device)
                    survey.compare(torch.cat([x[1:2], x[1:]]))
        except Exception:  # whatever a network may raise; its own passes will tell
            continue
        else:
            _check_rows(output, x)
            survey.inputs.clear()
            return survey
        finally:
            for module, mode in modes:
                module.training = mode
            _restore(buffers)
    return None


def _check_rows(output, x):
    if torch.is_tensor(output) and output.ndim > 1 and len(output) != len(x):
        raise ValueError(
            f"network: returns {tuple(output.shape)} for {len(x)} cases; the first axis of x and "
            "of what it returns must be the cases"
        )


def _layouts(batch):
    """Pictures with channels last, which halves their time on a CPU but .view may refuse; as is."""
    return [batch.to(memory_format=torch.channels_last), batch] if batch.ndim == 4 else [batch]


def _passes(network, batch, masks, numbers, survey):
    """(T, B, ...) outputs of one batch."""
    for x in _layouts(batch):
        try:
            return _replayed(Passes(network, x, masks, survey), numbers)
        except torch.cuda.OutOfMemoryError:
            raise
        except (RuntimeError, IndexError, AssertionError, TypeError) as error:
            cause = error
    raise not_taken("x", batch, cause) from cause


def _replayed(passes, numbers):
    outputs, masks = [], passes.drop
    with passes.watching():
        for number in numbers:
            masks.begin(number)
            _seed_other_noise(masks, number, passes.x.device)
            output = _as_output(passes.run(), len(passes.x))
            _refuse_unsampled(passes)
            if not np.isfinite(output).all():
                check_finite(passes.network, passes.x, torch.from_numpy(output))
            outputs.append(output)
    return np.stack(outputs)


def _refuse_unsampled(passes):
    """Raise if the network would draw more at random in training mode than it did in a pass."""
    more = sorted(passes.survey.drawing - passes.drawing) if passes.survey else []
    if more:
        others = f" (and {len(more) - 1} more)" if len(more) > 1 else ""
        raise ValueError(
            f"network: {passes.title(more[0])}{others} draws random numbers in training mode, "
            "which sampling would miss. To leave it out, set its probability to 0. To sample it "
            "too, anew for each case, set network.get_submodule(name).training = True for each "
            f"name in {more}"
        )
    if passes.survey:  # as later batches may draw less
        passes.survey.drawing = set()


def _as_output(output, cases):
    tensor = torch.is_tensor(output) and output.is_floating_point() and output.ndim >= 2
    rows = output if tensor and len(output) == cases else logits_in(output, cases)
    return rows.float().cpu().numpy()


def _refuse_silence(network, batch, masks, survey):
    """Raise, unless dropping everything gives other outputs than dropping nothing."""
    outputs, passes = [], Passes(network, batch, masks, survey)
    with passes.watching():
        for number, masks.forced in enumerate((True, False)):
            _seed_other_noise(masks, number, batch.device)
            outputs.append(_as_output(passes.run(), len(batch)))
    masks.forced = None
    if not np.array_equal(*outputs):
        return
    if passes.acting:
        cause = "its dropout does not reach the output"
    elif passes.idle:
        cause = "its dropout has p = 0, or is called with training=False"
    elif any(isinstance(module, _COMPILED) for module in network.modules()):
        cause = "no dropout is left in it; pass the module from before it was traced or exported"
    else:
        cause = "it has no dropout; with_dropout(network, p) adds it"
    raise ValueError(f"network: nothing random acts in it, every pass gives the same: {cause}")


@contextmanager
def _sampling(network, device):
    """Dropout on, gradients off; afterwards all as it was, buffers and random numbers too."""
    _refuse_compiled(network)
    modes = [(m, m.training) for m in network.modules() if isinstance(m, _DROPOUTS)]
    buffers, changed = _buffers(network), []
    devices = [device] if device.type == "cuda" else []
    try:
        for module, _ in modes:
            module.training = True
        with torch.inference_mode(False), torch.no_grad(), _uncompiled(), fork_rng(devices=devices):
            yield
    finally:
        for module, mode in modes:
            module.training = mode
        changed = _restore(buffers)
    if changed:
        raise ValueError(
            f"network: the passes changed {', '.join(changed[:3])} (now as before); call "
            "network.eval() first, dropout is switched on by itself"
        )


def _uncompiled():
    """Let modules by torch.compile run as they were written: masks cannot be put into others."""
    compiled = "torch._dynamo" in sys.modules
    return torch.compiler.set_stance("force_eager") if compiled else nullcontext()


def _refuse_compiled(network):
    """Raise where a part that is no Python code any more has a dropout whose switch is lost."""
    for name, module in network.named_modules():
        if _fixed_dropout(module):
            raise ValueError(
                f"network: {name or 'it'} is a {type(module).__name__}, scripted, traced or "
                "exported, whose dropout cannot be switched on; pass the module that it was made "
                "from"
            )


def _fixed_dropout(module):
    if isinstance(module, torch.jit.ScriptModule):
        return "dropout" in str(getattr(module, "inlined_graph", ""))
    calls = module.graph.nodes if isinstance(module, torch.fx.GraphModule) else ()
    return any(
        "dropout" in str(call.target)
        and call.kwargs.get("p", [*call.args, 0.5, 0.5][1]) != 0
        and not any(value is True for value in (*call.args, *call.kwargs.values()))
        for call in calls
        if call.op == "call_function"
    )


def _buffers(network):
    """Module, name, buffer and its content, for every buffer."""
    return [
        (module, f"{part}.{name}".strip("."), buffer, buffer.clone())
        for part, module in network.named_modules()
        for name, buffer in module._buffers.items()
        if buffer is not None and buffer.layout is torch.strided
    ]


def _restore(buffers):
    """Put buffers back as they were, and return the names of those that had changed."""
    changed = []
    for module, name, buffer, before in buffers:
        own = name.rpartition(".")[2]
        if module._buffers.get(own) is not buffer or not _same(buffer, before):
            buffer.copy_(before)
            module._buffers[own] = buffer
            changed.append(name)
    return changed


def _same(a, b):
    """Equal, NaN for NaN."""
    return torch.equal(a, b) or bool(((a == b) | ((a != a) & (b != b))).all())


def _seed_other_noise(masks, number, device):
    """Noise that is not dropout comes from torch's own generators: the same in the same pass."""
    key = masks.seed, number, masks.first_case
    seed_noise(int(np.random.SeedSequence(key).generate_state(1)[0]), device)


# Masks ----------------------------------------------------------------------------------------


class _Asked(NamedTuple):
    """What a pass asked for at one place."""

    like: torch.Tensor
    p: float
    whole_channels: bool
    steady: bool  # whether p was the same in the pass before


class _Masks:
    """The masks of a batch: keyed by seed, draw, site and case."""

    def __init__(self, seed, scope, first_case, cases):
        self.seed, self.scope, self.first_case, self.cases = seed, scope, first_case, cases
        self.draw, self.forced = 0, None
        self.before = {}
        self.asked, self.ready = {}, {}  # by site: what this pass asks for; what was drawn for it

    def begin(self, draw):
        """Start a pass: draw the small masks now, as the last pass asked for them.

        One right after the other they cost a fifth of what they cost between two convolutions,
        which leave nothing of them in the processor's cache.  Where p changed from one pass to the
        next it will again, and they are drawn when asked for.
        """
        self.draw = draw
        before = {site: asked for site, asked in self.asked.items() if asked.steady}
        drawn = [
            _factor(
                self._shaped(site, asked.like, asked.p, asked.whole_channels), asked.like, asked.p
            )
            for site, asked in before.items()
        ]
        drawn = _moved(drawn, [asked.like.device for asked in before.values()])
        self.ready = dict(zip(before, zip(before.values(), drawn, strict=True), strict=True))
        self.before, self.asked = self.asked, {}

    def __call__(self, site, x, p, whole_channels):
        """`x` with what is dropped at 0 and the rest divided by 1 - p."""
        if self._is_ready(site, x, p, whole_channels):
            self.asked[site], factor = self.ready[site]
            return (x * factor).to(x.dtype)
        kept = self.kept(site, x, p, whole_channels)
        if self.forced is None:
            self._note(site, x, p, whole_channels)
        if kept.numel() == x.numel():
            return (x * kept).div_(1 - p) if p < 1 else x * kept
        return (x * _factor(kept, x, p)).to(x.dtype)

    def _note(self, site, x, p, whole_channels):
        """Remember what was asked for, if it is small and not as large as `x` itself."""
        size = x.shape[1] if whole_channels else math.prod(x.shape[1:])
        rows = x.shape[0] if self.scope == "case" else x.shape[0] // self.cases
        if rows * size < x.numel() and rows * size <= _SMALL.get(x.device.type, 0):
            steady = site not in self.before or self.before[site].p == p
            like = x.new_empty(()).expand(x.shape)
            self.asked[site] = _Asked(like, p, whole_channels, steady)

    def _is_ready(self, site, x, p, whole_channels):
        if self.forced is not None or site not in self.ready:
            return False
        asked, _ = self.ready[site]
        like = asked.like
        same = like.shape == x.shape and like.dtype == x.dtype and like.device == x.device
        return same and (asked.p, asked.whole_channels) == (p, whole_channels)

    def kept(self, site, x, p, whole_channels):
        """Tensor of 0 and 1 that goes with `x`, where `x` is."""
        return self._shaped(site, x, p, whole_channels).to(x.device)

    def _shaped(self, site, x, p, whole_channels):
        if x.ndim < 2 or x.shape[0] % self.cases:
            raise ValueError(
                f"network: dropout acts on {tuple(x.shape)}, whose first axis should be the "
                f"{self.cases} cases"
            )
        rows = x.shape[0] // self.cases  # of each case, as where a picture is cut into windows
        inner = tuple(x.shape[1:2] if whole_channels else (*x.shape[2:], x.shape[1]))
        kept = self._kept(site, (rows, *inner), p)
        if self.scope == "network" and rows > 1:
            kept = kept.tile((self.cases,) + (1,) * len(inner))
        # Drawn with channels last, as pictures lie in memory here.
        return kept[(...,) + (None,) * (x.ndim - 2)] if whole_channels else kept.movedim(-1, 1)

    def _kept(self, site, shape, p):
        """(rows of all cases, *inner) tensor of 0 and 1."""
        size = math.prod(shape)
        if self.forced is not None:
            cases = 1 if self.scope == "network" else self.cases
            return torch.full((cases * shape[0], *shape[1:]), int(p < 1 and not self.forced)).byte()
        start, stop = (0, 1) if self.scope == "network" else self._range()
        together = max(1, _BLOCK // size)
        blocks = range(start // together, (stop - 1) // together + 1)
        dropped = [_dropped(p, together * size, self.seed, self.draw, site, b) for b in blocks]
        dropped = np.concatenate(dropped).reshape(-1, *shape)
        offset = start - blocks[0] * together
        kept = ~dropped[offset : offset + stop - start]
        return torch.from_numpy(kept.reshape(-1, *shape[1:]).view(np.uint8))

    def _range(self):
        return self.first_case, self.first_case + self.cases


def _moved(tensors, devices):
    """Each tensor on its device; those of one GPU by one copy, as each copy is waited for."""
    moved = list(tensors)
    kinds = [(device, tensor.dtype) for device, tensor in zip(devices, tensors, strict=True)]
    for device, dtype in {kind for kind in kinds if kind[0].type != "cpu"}:
        places = [i for i, kind in enumerate(kinds) if kind == (device, dtype)]
        flat = torch.cat([tensors[i].flatten() for i in places]).pin_memory()
        parts = flat.to(device, non_blocking=True).split([tensors[i].numel() for i in places])
        for i, part in zip(places, parts, strict=True):
            moved[i] = part.view(tensors[i].shape)
    return moved


def _factor(kept, x, p):
    """0 where dropped, elsewhere 1 / (1 - p), in the type of `x` or in single precision.

    In bfloat16 1 / 0.98 itself would be rounded, by up to 0.4 %, and all of `x` be off by it.
    """
    wide = torch.promote_types(x.dtype, torch.float32)
    return kept.to(wide) / (1 - p) if p < 1 else kept


def _dropped(p, count, seed, draw, site, block):
    """(count,) bool array, True with probability p.

    Salmon et al. (2011): a generator whose state is a counter needs no order of draws.  A byte
    b decides for b < floor(256 p), and against for more; in the one case of 256 where it is equal
    a further draw makes the probability exactly p.
    """
    bits = np.random.Philox(key=seed, counter=[0, block, site, draw])
    byte = bits.random_raw(-(-count // 8)).astype("<u8", copy=False).view(np.uint8)[:count]
    whole, rest = divmod(256 * p, 1)
    dropped = byte < whole
    if rest:
        ties = np.flatnonzero(byte == whole)
        dropped[ties] = np.random.Generator(bits).random(len(ties)) < rest
    return dropped


# Parts ----------------------------------------------------------------------------------------


def _copied(network):
    """A deep copy; what was computed from weights, as by weight_norm, is copied as a constant."""
    memo = {}
    for module in network.modules():
        for value in tree_leaves(vars(module)):
            if torch.is_tensor(value) and not value.is_leaf:
                memo[id(value)] = value.detach().clone()
    return copy.deepcopy(network, memo)


def _names(layers, network):
    """Names of parts; that of the whole is the empty one."""
    if layers is None:
        return [""]
    parts = dict(network.named_modules(remove_duplicate=False))
    names = list(layers) if np.iterable(layers) and not isinstance(layers, str) else [None]
    if not all(isinstance(name, str) for name in names):
        raise ValueError(f"layers: expected names of parts in a list, got {layers!r}")
    for name in names:
        if name not in parts:
            known = ", ".join(repr(part) for part, _ in network.named_children())
            raise ValueError(f"layers: the network has no part {name!r}; its largest are {known}")
    return names


def _to_treat(network, names):
    """The weight layers in the named parts, each with what comes right before it."""
    parts = dict(network.named_modules(remove_duplicate=False))
    targets = {module for name in names for module in parts[name].modules()}
    closed = (
        m for m in targets if isinstance(m, _CLOSED) and next(m.parameters(), None) is not None
    )
    closed = next(closed, None)
    if closed is not None:
        raise ValueError(
            f"network: the inputs of the weights inside {type(closed).__name__} cannot be masked "
            "from outside; name the parts to treat in `layers`, or pass the module from before it "
            "was scripted, traced or exported"
        )
    layers = {module: before for module, before in _weight_layers(network) if module in targets}
    if not layers:
        exported = any(isinstance(module, torch.fx.GraphModule) for module in targets)
        raise ValueError(
            "layers: there is no convolution and no linear layer to put dropout before"
            + "; pass the module from before it was exported" * exported
        )
    return layers


def _weight_layers(network):
    """Pairs (weight layer, what comes right before it in the order of registration)."""
    own = {module.dropout for module in network.modules() if _masked(module)}

    def visit(module, before):
        if isinstance(module, (nn.Linear, *_CONVOLUTIONS)):
            pairs.append((module, module.dropout if _masked(module) else before))
        for child in module.children():
            if child not in own and not isinstance(child, (nn.Flatten, nn.Identity)):
                last = visit(child, before)
                inside = isinstance(child, nn.Sequential) or not any(True for _ in child.children())
                before = last if inside else None
        return before if any(True for _ in module.children()) else module

    pairs = []
    visit(network, None)
    return pairs


def _masked(module):
    """Whether `with_dropout` has been here."""
    return _mask_input in module._forward_pre_hooks.values()


def _mask_input(module, inputs, named):
    """Pass the input of a weight layer through its dropout first: a forward pre-hook."""
    if inputs:
        return (module.dropout(inputs[0]), *inputs[1:]), named
    return inputs, named | {"input": module.dropout(named["input"])}
