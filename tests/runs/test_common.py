"""What several runs share: scores, finished parts, and where a run was made."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from mcunc.runs import common


def test_the_validation_loss_stays_finite():
    """A probability that is 0 in single precision: the loss is the distance of the logits."""
    logits = np.zeros((20, 10), dtype=np.float32)
    logits[:, 9] = 500
    labels = np.arange(20) % 2
    assert common.validation_scores(logits, labels) == {
        "val_loss": 500.0, "val_accuracy": 0.0, "val_confidence": 1.0,
    }  # fmt: skip


def test_a_record_names_device_and_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"GPU {device.index}")
    plain = common.provenance("trucks --seed 2", 2, "cpu")
    assert plain["command"] == "python -m mcunc run trucks --seed 2"
    assert plain["seed"] == 2
    assert "gpu" not in plain
    there = common.provenance("trucks --seed 2", 2, "cuda:3")
    assert there["command"] == "python -m mcunc run trucks --seed 2 --device cuda"
    assert there["gpu"] == "GPU 3"


def test_a_finished_part_is_made_again_only_for_other_settings(tmp_path):
    path, part, made = tmp_path / "run.npz", tmp_path / "run-part.npz", []

    def make():
        made.append(len(made))
        return {"x": np.array(made)}

    for settings, times in (({"a": 1}, 1), ({"a": 1}, 1), ({"a": 2}, 2)):
        assert common.cached(path, "part", settings, make)["x"].tolist() == list(range(times))
    part.write_bytes(part.read_bytes()[:50])
    with pytest.raises(ValueError, match=r"^folder: .*part\.npz is damaged"):
        common.cached(path, "part", {"a": 2}, make)


def test_scores_of_cases():
    log_probs = np.log([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]])
    scores = common.case_scores(log_probs, np.array([0, 1]))
    assert_allclose(scores["loss"], [np.log(2), np.log(10)])
    assert_allclose(scores["brier"], [0.25 + 2 / 16, 0.01 + 0.81 + 0.64])
    assert_allclose(scores["confidence"], [0.5, 0.8])
    assert_allclose(scores["entropy"][0], 1.5 * np.log(2))
    draws = np.array([[0.5, 0.5], [0.25, 1.0]])  # of the labels' probabilities
    expected = [np.log(2), -np.log([0.375, 0.75]).mean()]
    assert_allclose(common.loss_by_draws(draws), expected)
