"""Old names, kept for one minor version: each works and says what it is called now."""

import warnings
from functools import wraps
from importlib import import_module


def warn(old, new, level=3):
    """Say that `old` goes away with version 0.4 and what replaces it."""
    warnings.warn(f"{old} is now {new}", DeprecationWarning, stacklevel=level)


def moved(module, places):
    """A module's ``__getattr__`` for names that now live elsewhere, or are called otherwise.

    Parameters
    ----------
    module : str, ``__name__`` of the module with the old names
    places : dict of old name -> "module.name" within mcunc

    Returns
    -------
    function of a name
    """

    def attribute(name):
        if name not in places:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        home, _, new = f"mcunc.{places[name]}".rpartition(".")
        warn(f"{module}.{name}", f"{home}.{new}")
        return getattr(import_module(home), new)

    return attribute


def renamed_arguments(**names):
    """Decorate a function that still takes some keyword arguments by their old names.

    Parameters
    ----------
    names : new name of each old one

    Raises
    ------
    TypeError
        By the function, when it is given an argument by both names.
    """

    def decorate(function):
        @wraps(function)
        def accepting(*args, **kwargs):
            for old in names.keys() & kwargs.keys():
                warn(f"{function.__qualname__}: {old}=", f"{names[old]}=")
                if names[old] in kwargs:
                    raise TypeError(f"{function.__name__}() got both {old} and {names[old]}")
                kwargs[names[old]] = kwargs.pop(old)
            return function(*args, **kwargs)

        return accepting

    return decorate


def renamed_attribute(old, new):
    """A read-only property that gives the attribute `new` under its old name."""

    def get(self):
        warn(f"{type(self).__name__}.{old}", new)
        return getattr(self, new)

    return property(get, doc=f"Old name of `{new}`.")
