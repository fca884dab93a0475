"""Runs with small settings, and runs that are killed."""

import pytest


def shrunk(*patches):
    """A fixture of a module of tests: ``(module, {name: value})``, what has these values there."""

    @pytest.fixture(scope="module", autouse=True)
    def small():
        with pytest.MonkeyPatch.context() as patch:
            for module, values in patches:
                for name, value in values.items():
                    patch.setattr(module, name, value)
            yield

    return small


def killed_at(call, patch, module, name):
    """Let this call of ``module.name``, counted from 1, interrupt the run; returns its calls."""
    original, calls = getattr(module, name), []

    def counted(*arguments):
        calls.append(arguments)
        if len(calls) == call:
            raise KeyboardInterrupt
        return original(*arguments)

    patch.setattr(module, name, counted)
    return calls
