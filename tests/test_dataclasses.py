"""Classes that hold arrays: two of them compare as objects do, without an error."""

import importlib
import pkgutil
from dataclasses import fields, is_dataclass

import numpy as np
import pytest
import torch

import mcunc

MODULES = [
    importlib.import_module(module.name)
    for module in pkgutil.walk_packages(mcunc.__path__, "mcunc.")
    if not module.name.endswith("__main__")
]
CLASSES = [
    value
    for module in MODULES
    for value in vars(module).values()
    if isinstance(value, type) and is_dataclass(value) and value.__module__ == module.__name__
]


def filled(kind):
    """Something of a field's kind, arrays in it wherever there may be some."""
    if kind in (int, float, str, bool):
        return kind(1)
    if is_dataclass(kind):
        made = object.__new__(kind)
        for field in fields(kind):
            object.__setattr__(made, field.name, filled(field.type))
        return made
    array = np.arange(2)
    others = {torch.Tensor: torch.arange(2), dict: {"a": array}, list: [array], tuple: (1,)}
    return (others | {object: len}).get(kind, array)


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: f"{kind.__module__}.{kind.__name__}")
def test_classes_that_hold_arrays_compare_without_an_error(kind):
    one, other = filled(kind), filled(kind)
    assert one == one
    assert isinstance(one == other, bool)
    if kind.__dataclass_params__.frozen:
        assert isinstance(hash(one), int)


def test_all_classes_are_looked_at():
    assert {"LinearFit", "Report", "Birds", "Normal", "Recorded", "Recipe"} <= {
        kind.__name__ for kind in CLASSES
    }
