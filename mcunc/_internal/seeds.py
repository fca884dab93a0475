"""Random numbers of a run, each purpose with its own."""

import numpy as np


def derive_seed(seed, purpose, *numbers):
    """A seed for a purpose of a run, so that no two purposes share their random numbers.

    Parameters
    ----------
    seed : int, of the run
    purpose : str
    numbers : int, which of several of that purpose

    Returns
    -------
    int
    """
    words = [seed, *numbers, *purpose.encode()]
    return int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0] >> 1)
