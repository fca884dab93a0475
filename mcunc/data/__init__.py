"""Data sets of the book, real or simulated, each with its source."""

from mcunc.data.datasets import (
    UCI,
    Pictures,
    Table,
    breast_cancer,
    cifar,
    cub200,
    cub200_some,
    cub200_split,
    diabetes,
    random_split,
    stratified_split,
    uci,
)

__all__ = [
    "UCI",
    "Pictures",
    "Table",
    "breast_cancer",
    "cifar",
    "cub200",
    "cub200_some",
    "cub200_split",
    "diabetes",
    "random_split",
    "stratified_split",
    "uci",
]
