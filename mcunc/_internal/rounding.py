"""How the arrays of recorded runs are rounded, so that their files stay small."""

import numpy as np

LARGE = 10_000  # numbers in an array that is kept in half precision


def compact(arrays):
    """Arrays by name, each in a type that takes little room.

    Whole numbers get the smallest type that holds them.  Other numbers are rounded to single
    precision, and arrays of more than `LARGE` to half precision, but for weights.
    """
    stored = {}
    for name, values in arrays.items():
        values = np.asarray(values)
        if values.dtype.kind in "biu":
            values = values.astype(np.min_scalar_type(int(values.max(initial=0))))
        elif values.size > LARGE and not name.startswith("weights"):
            values = to_half(values)
        elif values.dtype != np.float16:
            values = values.astype(np.float32)
        stored[name] = values
    return stored


def compact_logits(outputs):
    """Logits in half precision, each row shifted so that its largest is 0 (softmax is the same).

    The predicted class is kept apart, since rounding can tie.
    """
    stored = {}
    for name, logits in outputs.items():
        stored[name] = to_half(logits - logits.max(axis=-1, keepdims=True))
        stored[name.replace("logits", "predicted")] = logits.argmax(axis=-1)
    return stored


def to_half(values):
    """Half precision; what is below its smallest number is set to it."""
    return values.clip(float(np.finfo(np.float16).min)).astype(np.float16)
