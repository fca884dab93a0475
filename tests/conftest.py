"""Loads the hypothesis profile of strategies.py."""

import strategies  # noqa: F401
