"""Recorded arrays: small, and as exact as they have to be."""

import numpy as np
from numpy.testing import assert_allclose

from mcunc import recorded
from mcunc._internal.rounding import compact_logits
from mcunc.runs import common


def test_the_predicted_class_is_that_before_rounding():
    """Half precision cannot tell 1 from 1.0001; differences beyond its range stay finite."""
    logits = np.array([[1, 1.0001, 0], [5, -1e5, 0]], dtype=np.float32)
    stored = compact_logits({"test_logits": logits})
    assert stored["test_predicted"].tolist() == [1, 0]
    assert stored["test_logits"][0, 0] == np.float16(-1e-4)
    assert np.isfinite(stored["test_logits"]).all()
    tied = compact_logits({"test_logits": np.array([[30, 10, 10.001]], dtype=np.float32)})
    assert tied["test_logits"].tolist() == [[0, -20, -20]]
    near = compact_logits({"test_logits": np.array([[0, 1e-8]], dtype=np.float32)})
    assert near["test_logits"].tolist() == [[0, 0]]
    assert near["test_predicted"].tolist() == [1]


def test_files_are_small_and_weights_are_exact(tmp_path):
    numbers = np.random.default_rng(0).normal(size=20_000)
    arrays = {
        "labels": np.arange(200), "cases": np.arange(300), "right": np.array([True, False]),
        "log_probs": -1e6 * np.arange(20_000), "few": numbers[:9], "weights_0": numbers,
    }  # fmt: skip
    kept = recorded.load(common.save(tmp_path / "a.npz", arrays, {})).arrays
    types = {name: array.dtype for name, array in kept.items()}
    assert types == {
        "labels": np.uint8, "cases": np.uint16, "right": np.uint8, "log_probs": np.float16,
        "few": np.float32, "weights_0": np.float32,
    }  # fmt: skip
    assert_allclose(kept["weights_0"], numbers, rtol=1e-7)
    assert np.isfinite(kept["log_probs"]).all()  # beyond its range: the smallest there is
    for name in ("labels", "cases", "right"):
        np.testing.assert_array_equal(kept[name], arrays[name])
