"""Loads the hypothesis profile of strategies.py for every test module."""

import strategies  # noqa: F401
