"""Run a network again and again, and run what comes before its first random draw only once.

The first pass keeps the outputs of the modules that were called before anything random happened.
Later passes take these outputs and skip the modules.  Functions that are called between the
modules run in every pass, and see the same tensors as in the first one.  Python's own state, such
as a counter in a module, is not followed.
"""

import pickle
import random
from collections import Counter
from contextlib import contextmanager
from functools import partial, update_wrapper

import numpy as np
import torch
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_unflatten

DROPOUTS = (F.dropout, F.dropout1d, F.dropout2d, F.dropout3d)
_FIXED = (int, float, complex, bool, str, type(None), torch.dtype, torch.device, torch.Size)


class Passes(TorchFunctionMode):
    """The passes of one network over one batch.

    Parameters
    ----------
    network : torch.nn.Module
    x : tensor, the batch
    drop : callable (site, tensor, p, whole_channels) -> tensor, which masks a tensor, optional
        Sites are counted from 0 in the order in which a pass meets them.  None masks nothing.
    survey : Passes, optional
        One pass in training mode over another number of cases.  It tells which calls of dropout
        would act in training mode, and with which size of their first axis.

    Attributes
    ----------
    acting : dict, of the last pass: p and length of the first axis at each call of dropout that
        acts, by the name of the module that calls and the number of its call
    drawing : set of str, names of modules that drew random numbers themselves in the first pass
    foreign : bool, whether generators of Python or numpy were drawn from.  To look at them takes
        long: it is done at the end of the first pass, and at every call if that of `survey` was so.
    apart : set, of calls of dropout at which the rows of a case do not lie together; see `compare`
    idle : bool, whether a pass met a dropout with p = 0, or one that is switched off
    """

    def __init__(self, network, x, drop=None, survey=None):
        super().__init__()
        self.network, self.x, self.drop, self.survey = network, x, drop, survey
        self.kept, self.drawing, self.fresh, self.idle = {}, set(), True, False
        self.apart = set()
        self.foreign = survey is not None and survey.foreign
        self.generators = [
            value
            for module in network.modules()
            for value in vars(module).values()
            if isinstance(value, (np.random.Generator, np.random.RandomState, random.Random))
        ]
        self.modules = [
            (name, module, vars(module).get("forward"))
            for name, module in network.named_modules()
            if not isinstance(module, torch.jit.ScriptModule)
        ]

    def run(self):
        """Make one pass over a copy of the batch, inside of `watching`."""
        self.calls, self.counts, self.stack = 0, Counter(), [""]
        self.acting, self.inputs, self.random = {}, {}, False
        before = self._foreign_noise() if self.fresh else None
        self.noise = self._noise()
        with self:
            output = self.network(self.x.clone())
        self._hear()
        if self.fresh and before != self._foreign_noise():
            self.foreign = True
            self.kept.clear()
        self.fresh = False
        return output

    def compare(self, other):
        """Make a pass over the batch with another first case: its rows, and no others, change."""
        before, x, self.x = self.inputs, self.x, other
        self.kept.clear()
        self.run()
        for place, first in before.items():
            second, own = self.inputs.get(place, first), len(first) // len(x)
            if first.shape == second.shape:
                moved = ~torch.isclose(first, second, rtol=1e-3).reshape(len(first), -1).all(dim=1)
                if moved[own:].any() and not moved[:own].all():
                    self.apart.add(place)
        self.x = x

    @contextmanager
    def watching(self):
        """Let `_call` make the calls of every module that Python can look into."""
        try:
            for name, module, _ in self.modules:
                call = partial(self._call, name, module.forward)
                vars(module)["forward"] = update_wrapper(call, module.forward)
            yield
        finally:
            for _, module, own in self.modules:
                vars(module)["forward"] = own
                if own is None:
                    del vars(module)["forward"]

    def _call(self, name, forward, *args, **kwargs):
        """Call a module, or give the output that was kept."""
        number = self.calls
        self.calls += 1
        if number in self.kept:
            leaves, form, self.calls, counts = self.kept[number]
            self.counts = counts.copy()
            return tree_unflatten([_shared(leaf) for leaf in leaves], form)
        self._hear()
        inputs = [*args, *kwargs.values()]
        versions = _versions(inputs) if self.fresh and not self.random else None
        self.stack.append(name)
        try:
            output = forward(*args, **kwargs)
        finally:
            self._hear()
            self.stack.pop()
        if versions and not self.random and versions == _versions(inputs):
            self._keep(number, inputs, output)
        return output

    def _keep(self, number, inputs, output):
        """Keep an output in place of those from inside the call, unless it is part of another."""
        leaves, form = tree_flatten(output)
        taken, given = _storages(inputs), _storages(leaves)
        if _versions(leaves) and len({*given}) == len(given) and not {*given} & {*taken}:
            for inner in range(number + 1, self.calls):
                self.kept.pop(inner, None)
            self.kept[number] = [*map(_shared, leaves)], form, self.calls, self.counts.copy()

    def _hear(self):
        """Note which module has drawn random numbers since the last look at the generators."""
        if self.fresh:
            before, self.noise = self.noise, self._noise()
            if self.noise != before:
                self._drawn()

    def _noise(self):
        return noise(self.x.device), self._foreign_noise() if self.foreign else None

    def _foreign_noise(self):
        """State of generators of Python and numpy: the global ones, and those that modules hold."""
        return pickle.dumps((random.getstate(), np.random.get_state(), self.generators))  # noqa: NPY002

    def _drawn(self):
        self.random = True
        self.drawing.add(self.stack[-1])

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in DROPOUTS:
            return self._dropout(func, *args, **kwargs)
        if func is F.batch_norm and self.drop is not None:
            _refuse_training(*args, **kwargs)
        if kwargs.get("generator") is not None:
            self._drawn()
        return func(*args, **kwargs)

    def title(self, name):
        """What to call a module in a message."""
        kind = type(self.network.get_submodule(name)).__name__
        return f"{kind} {name!r}" if name else f"{kind}, the network itself,"

    def _dropout(self, func, input, p=0.5, training=True, inplace=False):
        place = self.stack[-1], self.counts[self.stack[-1]]
        self.counts[place[0]] += 1
        known = None if self.survey is None else self.survey.acting.get(place)
        if not training or p == 0:
            if known is None:
                self.idle = True
                return input
            p = known[0]
        length = input.shape[0] if input.ndim else 0
        grows = known is None or known[1] * len(self.x) == length * len(self.survey.x)
        if not grows or (known and place in self.survey.apart):
            order = "keep the rows of a case together" if grows else "grow with the number of cases"
            raise ValueError(
                f"network: dropout in {self.title(place[0])} acts on {tuple(input.shape)}, whose "
                f"first axis does not {order}; put the cases first everywhere inside it, as "
                "by batch_first=True (dropout of weights or learned tokens is not sampled)"
            )
        site, self.random = len(self.acting), True
        self.acting[place] = p, length
        if self.drop is None:
            self.inputs[place] = input
            return input
        output = self.drop(site, input, p, func is not F.dropout)
        return input.copy_(output) if inplace else output


def _versions(values):
    """How often each tensor was written to; None if there is more in it than fixed values."""
    found = [0]
    for value in values:
        if torch.is_tensor(value) and value.layout is torch.strided and not value.is_inference():
            found.append(value._version)
        elif not isinstance(value, _FIXED):
            return None
    return found


def _storages(values):
    return [value.untyped_storage()._cdata for value in values if torch.is_tensor(value)]


def _shared(leaf):
    """A copy of a tensor that takes memory only when it, or the original, is written to."""
    try:
        return torch._lazy_clone(leaf) if torch.is_tensor(leaf) else leaf
    except RuntimeError:  # memory that is not torch's own, as of a numpy array
        return leaf.clone()


def noise(device):
    """State of the generators that functions draw from when they are given none."""
    state = torch.default_generator.get_state().numpy().tobytes()
    if device.type == "cuda":
        state += torch.cuda.get_rng_state(device).numpy().tobytes()
    return state


def _refuse_training(*args, training=False, **kwargs):
    """Stop before a call of batch_norm that would change the network."""
    if args[5] if len(args) > 5 else training:
        raise ValueError(
            "network: BatchNorm would use the statistics of the batch, and the passes would change "
            "those it has stored; call network.eval() first (dropout is switched on by itself), "
            "and let BatchNorm track running statistics"
        )
