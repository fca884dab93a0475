"""Loads the hypothesis profile of strategies.py, and a fixture that several test modules share."""

import strategies  # noqa: F401
from small_birds import few  # noqa: F401
