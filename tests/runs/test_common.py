"""What several runs share: scores, rounding and where a run was made."""

import numpy as np
import torch

from mcunc.runs import common


def test_the_predicted_class_is_that_before_rounding():
    """Half precision cannot tell 1 from 1.0001; differences beyond its range stay finite."""
    logits = np.array([[1, 1.0001, 0], [5, -1e5, 0]], dtype=np.float32)
    stored = common.half({"test_logits": logits})
    assert stored["test_predicted"].tolist() == [1, 0]
    assert stored["test_logits"][0, 0] == np.float16(-1e-4)
    assert np.isfinite(stored["test_logits"]).all()
    tied = common.half({"test_logits": np.array([[30, 10, 10.001]], dtype=np.float32)})
    assert tied["test_logits"].tolist() == [[0, -20, -20]]
    near = common.half({"test_logits": np.array([[0, 1e-8]], dtype=np.float32)})
    assert near["test_logits"].tolist() == [[0, 0]]
    assert near["test_predicted"].tolist() == [1]


def test_the_validation_loss_stays_finite():
    """A probability that is 0 in single precision: the loss is the distance of the logits."""
    logits = np.zeros((20, 10), dtype=np.float32)
    logits[:, 9] = 500
    labels = np.arange(20) % 2
    assert common.scores(logits, labels) == {"val_loss": 500.0, "val_accuracy": 0.0}


def test_a_record_names_device_and_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"GPU {device.index}")
    plain = common.provenance("trucks --seed 2", 2, "cpu")
    assert plain["command"] == "python -m mcunc run trucks --seed 2"
    assert plain["seed"] == 2
    assert "gpu" not in plain
    there = common.provenance("trucks --seed 2", 2, "cuda:3")
    assert there["command"] == "python -m mcunc run trucks --seed 2 --device cuda"
    assert there["gpu"] == "GPU 3"
