"""Data sets of the book, each with its source."""

from mcunc.data import datasets
from mcunc.data.datasets import *  # noqa: F403  (exactly its __all__)

__all__ = datasets.__all__
