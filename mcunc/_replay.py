"""Run a network again and again, and do once what depends on no random draw.

The first pass writes a log of the calls it makes: of modules, and of torch's functions where a
module contains something random.  A call whose inputs depend on no draw, and which draws nothing
itself, has the same result in every pass; later passes take it from the log.  A kept result that
only other kept results are made from is never looked at again: a tensor without content stands
in for it, and its memory is free.  What remains is the frontier, the results that meet a mask.

Code that changes tensors in place is safe: a kept tensor that has met a mask is copied first, and
the copy takes its place until the pass is over.  Where this cannot be done, where a pass takes
another path than the first one, or where something kept was changed behind its back, `Diverged` is
raised, and the caller runs the passes plainly.  Python's own state, such as a counter in a module,
is not followed.
"""

import random
from collections import OrderedDict
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

DROPOUTS = (F.dropout, F.dropout1d, F.dropout2d, F.dropout3d)
_OTHER_DROPOUTS = (F.alpha_dropout, F.feature_alpha_dropout)
_PLAIN = {
    *(int, float, complex, bool, str, type(None), type(...), slice, torch.Size, torch.dtype),
    *(torch.device, torch.layout, torch.memory_format),
}
_ANEW = object()  # in place of a result: the call is made in every pass
_OPERATORS = "add sub mul truediv floordiv mod pow and or xor lshift rshift matmul".split()  # noqa: SIM905
_CHEAP = {"get", "is_floating_point", "sub", "div", "truediv", "mul", "add"}  # to standardise
_CHANGING = {"__setitem__", *(f"__i{operator}__" for operator in _OPERATORS)}


class Diverged(Exception):
    """Kept results cannot stand in for calls of this network."""


class Replay(TorchFunctionMode):
    """The passes of one network over one batch.

    Parameters
    ----------
    network : torch.nn.Module
    x : tensor, the batch
    drop : callable (site, tensor, p, whole_channels) -> tensor, which masks a tensor
        Sites are counted from 0 in the order in which a pass meets them.
    keep : bool, False to make every call in every pass; becomes False after the first pass if
        that has found nothing worth keeping

    Attributes
    ----------
    sites, silent, idle : int
        Of the last pass: calls of dropout that drew a mask; that were in evaluation mode; whose
        probability was 0.
    """

    def __init__(self, network, x, drop, keep=True):
        super().__init__()
        self.network, self.drop, self.keep = network, drop, keep
        self.log, self.slots, self.passes = [], [], 0
        self.watch = ExitStack()
        loose = (v for m in network.modules() for v in vars(m).values() if torch.is_tensor(v))
        constants = (*network.parameters(), *network.buffers(), *loose)
        self.known = set(network.modules())
        self.constants = {id(tensor): tensor for tensor in constants}
        self.x = x.detach().clone() if keep else x.detach()
        if keep:
            self._slot(self.x).hold(self.x)

    def run(self):
        """Make one pass; the first one writes the log."""
        self.passes += 1
        self.position = self.sites = self.silent = self.idle = 0
        self.replaced, self.stale = {}, set()  # by number of slot; storages seen under other names
        foreign = _foreign_noise() if self.keep and self.passes == 1 else None
        try:
            with self:
                output = self.network(self.x if self.keep else self.x.clone())
        except Exception as error:
            if self.keep and self.passes > 1:
                raise Diverged from error
            raise
        if foreign is not None and foreign != _foreign_noise():
            raise Diverged
        output = self._current(output)
        if self.keep and self.passes > 1 and self.position != len(self.log):
            raise Diverged
        if any(s.held is not None and _version(s.held) != s.version for s in self.slots):
            raise Diverged
        if self.passes == 1:
            for slot in self.slots:
                slot.stand_in = torch.empty(slot.shape, dtype=slot.dtype, device="meta")
                slot.stand_in._slot = slot
            self.keep = any(entry.spares_work() for entry in self.log)
            if not self.keep:
                self.watch.close()
        return output

    @contextmanager
    def watching(self):
        """See the calls of the network's modules; at the end, let go of all that was kept."""
        try:
            with self.watch:
                if self.keep:
                    self.watch.enter_context(_watched(self.network, self.module))
                yield
        finally:
            for slot in self.slots:
                slot.held = slot.stand_in = None

    # One call --------------------------------------------------------------------------------

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in DROPOUTS:
            return self._dropout(func, *args, **kwargs)
        _refuse(func, *args, **kwargs)
        if not self.keep:
            return func(*args, **kwargs)
        args, kwargs = self._current((args, kwargs))
        if self.passes > 1:
            box = self._again(self._next(func), args, kwargs)
            return self._changed(func, args, kwargs)[0] if box is None else box.value
        tensors, plain = _leaves((args, kwargs))
        kept, before = self._all_kept(tensors, plain), noise(self.x.device)
        key = self._key(tensors, plain) if kept else None
        target = self._target(func, args, kwargs)
        in_place = kept and target is not None and target._slot.held is None
        if in_place:  # no mask has met it: what it was is nowhere needed
            result, effects = func(*args, **kwargs), []
            target._slot.describe(target)
        else:
            result, effects = self._changed(func, args, kwargs)
        kept = kept and before == noise(self.x.device)
        form = self._form(result, tensors) if kept else _ANEW
        if form is _ANEW and in_place:
            raise Diverged
        if form is _ANEW:
            self._hold(tensors)
            self.log.append(_Entry(func))
        else:
            self.log.append(_Entry(func, key, form, [(a, self._slot(b)) for a, b in effects]))
        return result

    def module(self, module, call, args, kwargs):
        """Call a module, unless the log has the whole call."""
        if not self.keep or module not in self.known:  # one made in the pass is another each time
            return call(*args, **kwargs)
        args, kwargs = self._current((args, kwargs))
        if self.passes > 1:
            logged = self.position < len(self.log) and self.log[self.position].what is module
            if not logged:
                return call(*args, **kwargs)
            return self._again(self._next(module), args, kwargs).value
        tensors, plain = _leaves((args, kwargs))
        kept, start, first = self._all_kept(tensors, plain), len(self.log), len(self.slots)
        key = self._key(tensors, plain) if kept else None
        result = self._current(call(*args, **kwargs))
        parts = self.log[start:]
        if (
            kept
            and self._all_kept(*_leaves(result))
            and all(part.form is not _ANEW for part in parts)
        ):
            effects = [effect for part in parts for effect in part.effects]
            effects = [(a, b) for a, b in effects if a.number < first]
            self.log[start:] = [_Entry(module, key, self._form(result), effects)]
        return result

    def _dropout(self, func, input, p=0.5, training=True, inplace=False):
        input = self._current(input)
        self.silent += not training
        self.idle += bool(training) and p == 0
        if not training or p == 0:
            return input
        if self.keep and self.passes > 1:
            self._next(func)
        elif self.keep:
            self._hold([input])
            self.log.append(_Entry(func))
        self.sites += 1
        output = self.drop(self.sites - 1, input, p, func is not F.dropout)
        if not inplace:
            return output
        if self.keep and self._is_kept(input):
            self._replace(input, output)
            return output
        return input.copy_(output)

    # The log ---------------------------------------------------------------------------------

    def _next(self, what):
        """The next entry of the log, which must be for this call."""
        if self.position == len(self.log) or self.log[self.position].what != what:
            raise Diverged
        self.position += 1
        return self.log[self.position - 1]

    def _again(self, entry, args, kwargs):
        """The kept result, boxed, with what the call changed in place; None if it was not kept."""
        if entry.form is _ANEW:
            return None
        tensors, plain = _leaves((args, kwargs))
        if not self._all_kept(tensors, plain) or self._key(tensors, plain) != entry.plain:
            raise Diverged
        for before, after in entry.effects:
            self._replace(before.value(), after.value())
        return _Box(_map(entry.form, lambda leaf: leaf.value() if type(leaf) is _Slot else leaf))

    def _target(self, func, args, kwargs):
        """The kept tensor that a call would change in place, or None."""
        name = getattr(func, "__name__", "")
        target = args[0] if args else None
        writes = name in _CHANGING or kwargs.get("inplace", False)
        writes = writes or (name.endswith("_") and not name.endswith("__"))
        if name in ("__set__", "__delete__") or kwargs.get("out") is not None:
            raise Diverged
        if not (writes and torch.is_tensor(target) and self._is_kept(target)):
            return None
        if id(target) in self.constants or target._slot.shared:
            raise Diverged
        return target

    def _changed(self, func, args, kwargs):
        """Call a function; if it would change a kept tensor in place, change a copy.

        Returns the result and a list of pairs: slot of the kept tensor, copy.
        """
        target = self._target(func, args, kwargs)
        if target is None:
            return func(*args, **kwargs), []
        copy = target.clone()
        result = func(copy, *args[1:], **kwargs)
        self._replace(target, copy)
        return result, [(target._slot, copy)]

    def _replace(self, tensor, after):
        """Let `after` take the place of a kept tensor until the pass is over."""
        if id(tensor) in self.constants:
            raise Diverged
        self.stale.add(tensor._slot.shared)
        self.replaced[tensor._slot.number] = after

    def _current(self, tree):
        """The same structure, with each tensor replaced by what it was changed to in this pass."""
        if not self.replaced:
            return tree

        def current(leaf):
            while torch.is_tensor(leaf) and self._is_replaced(leaf):
                leaf = self.replaced[leaf._slot.number]
            slot = vars(leaf).get("_slot") if torch.is_tensor(leaf) else None
            if (
                slot is not None
                and slot.log is self.log
                and slot.shared
                and slot.shared in self.stale
            ):
                raise Diverged
            return leaf

        return _map(tree, current)

    def _is_replaced(self, tensor):
        slot = vars(tensor).get("_slot")
        return slot is not None and slot.log is self.log and slot.number in self.replaced

    # Kept tensors ----------------------------------------------------------------------------

    def _is_kept(self, tensor):
        slot = vars(tensor).get("_slot")
        return id(tensor) in self.constants or (slot is not None and slot.log is self.log)

    def _all_kept(self, tensors, plain):
        return plain is not None and all(map(self._is_kept, tensors))

    def _key(self, tensors, plain):
        return plain, [id(t) if id(t) in self.constants else t._slot.number for t in tensors]

    def _slot(self, tensor):
        """The slot of a kept tensor, new if it has none."""
        if not self._is_kept(tensor):
            tensor._slot = _Slot(len(self.slots), tensor, self.log)
            self.slots.append(tensor._slot)
        return tensor._slot

    def _hold(self, tensors):
        """Keep the content too: a call that is made in every pass reads it."""
        for tensor in tensors:
            if id(tensor) not in self.constants and self._is_kept(tensor):
                tensor._slot.hold(tensor)

    def _form(self, result, inputs=()):
        """The result with slots for its tensors, or _ANEW if it holds things that may change."""
        tensors, plain = _leaves(result)
        if plain is None:
            return _ANEW
        for tensor in tensors:
            for other in inputs:  # a view: neither may be changed in place without the other
                if other is not tensor and _storage(other) == _storage(tensor):
                    if id(other) in self.constants:
                        return _ANEW
                    self._slot(tensor).shared = self._slot(other).shared = _storage(tensor)

        def slot(leaf):
            fixed = not torch.is_tensor(leaf) or id(leaf) in self.constants
            return leaf if fixed else self._slot(leaf)

        return _map(result, slot)


class _Entry:
    """One call: what was called, and, if its result is kept, how to give it again."""

    def __init__(self, what, plain=None, form=_ANEW, effects=()):
        self.what, self.plain, self.form, self.effects = what, plain, form, effects

    def spares_work(self):
        """Whether taking the result from the log can be worth following it."""
        cheap = getattr(self.what, "__name__", "").strip("_") in _CHEAP
        return self.form is not _ANEW and not cheap


class _Box:
    def __init__(self, value):
        self.value = value


class _Slot:
    """The place of one kept tensor: its content while it is needed, else only its shape."""

    def __init__(self, number, tensor, log):
        self.number, self.log, self.shared = number, log, False
        self.describe(tensor)
        self.held = self.stand_in = None
        self.version = 0

    def hold(self, tensor):
        if self.held is None:
            self.held, self.version = tensor, _version(tensor)

    def __reduce__(self):
        """A module may keep a tensor with its slot: copies of it come without."""
        return type(None), ()

    def describe(self, tensor):
        self.shape, self.dtype, self.device = tensor.shape, tensor.dtype, tensor.device

    def value(self):
        return self.stand_in if self.held is None else self.held


# Helpers --------------------------------------------------------------------------------------


def _leaves(tree):
    """Tensors and plain values of nested containers; the latter None if there is more in them."""
    tensors, plain, strange = [], [], False
    waiting = [tree]
    while waiting:
        leaf = waiting.pop()
        kind = type(leaf)
        if kind in _PLAIN:
            plain.append(leaf)
        elif isinstance(leaf, torch.Tensor):
            tensors.append(leaf)
        elif kind is list or isinstance(leaf, tuple):
            waiting.extend(leaf)
        elif kind in (dict, OrderedDict):
            waiting.extend(leaf.values())
        else:
            strange = True
    return tensors, None if strange else plain


def _map(tree, function):
    """Apply a function to every leaf of nested tuples, lists and dictionaries."""
    if type(tree) in (dict, OrderedDict):
        return type(tree)((key, _map(value, function)) for key, value in tree.items())
    if type(tree) is list or (isinstance(tree, tuple) and not isinstance(tree, torch.Size)):
        items = [_map(item, function) for item in tree]
        return type(tree)(*items) if hasattr(tree, "_fields") else type(tree)(items)
    return function(tree)


def _version(tensor):
    return None if tensor.is_inference() else tensor._version


def _storage(tensor):
    return tensor.untyped_storage().data_ptr()


def noise(device):
    """State of the generators that functions draw from when they are given none."""
    state = torch.default_generator.get_state().numpy().tobytes()
    if device.type == "cuda":
        state += torch.cuda.get_rng_state(device).numpy().tobytes()
    return state


def _foreign_noise():
    """State of the generators of Python and numpy, which may decide what a pass does."""
    kind, keys, place, *rest = np.random.get_state()  # noqa: NPY002
    return random.getstate(), kind, keys.tobytes(), place, rest


def _refuse(func, *args, **kwargs):
    """Stop before a call that would change the network, or draw masks of another kind."""
    if func in _OTHER_DROPOUTS and kwargs.get("training", False):
        raise ValueError("network: AlphaDropout is not supported; use nn.Dropout")
    if func is F.batch_norm and kwargs.get("training", args[5] if len(args) > 5 else False):
        raise ValueError(
            "network: BatchNorm would use the statistics of the batch, and the passes would change "
            "those it has stored; call network.eval() first (dropout is switched on by itself), "
            "and let BatchNorm track running statistics"
        )


@contextmanager
def _watched(network, handler):
    """Let `handler(module, call, args, kwargs)` make the calls of every module."""
    classes, restore, current = {}, [], [handler]

    def watched(cls):
        def __call__(module, *args, **kwargs):
            def call(*args, **kwargs):
                return cls.__call__(module, *args, **kwargs)

            return current[0](module, call, args, kwargs)

        names = {"__call__": __call__, "__module__": cls.__module__, "__doc__": cls.__doc__}
        return type(cls.__name__, (cls,), names)

    try:
        for module in network.modules():
            cls = type(module)
            if not isinstance(module, torch.jit.ScriptModule):  # which cannot be looked into
                classes[cls] = classes.get(cls) or watched(cls)
                restore.append((module, cls))
                object.__setattr__(module, "__class__", classes[cls])
        yield
    finally:
        current.clear()
        for module, cls in restore:
            object.__setattr__(module, "__class__", cls)
