"""Seeds of purposes."""

import numpy as np

from mcunc._internal.seeds import derive_seed


def test_each_purpose_has_a_seed_of_its_own():
    seeds = [
        derive_seed(seed, purpose, *numbers)
        for seed in range(20) for purpose in ("data", "masks") for numbers in ((), (0,), (1,))
    ]  # fmt: skip
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derive_seed(3, "data", 1) == derive_seed(3, "data", 1)


def test_neighbouring_streams_are_unrelated():
    """Correlations of 10,000 normal numbers from the streams of neighbouring seeds."""
    draws = [
        np.random.default_rng(derive_seed(seed, "data")).normal(size=10_000) for seed in range(10)
    ]
    correlations = np.corrcoef(draws)[np.triu_indices(10, 1)]
    assert np.abs(correlations).max() < 0.065  # 6.5 standard errors of 45: 4e-9
