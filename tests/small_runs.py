"""Runs with small settings."""

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
