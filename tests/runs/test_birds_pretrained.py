"""Masks in a network that was trained without, on a few made-up pictures."""

from dataclasses import replace

from numpy.testing import assert_allclose
from small_birds import FEW, TINY

from mcunc import data, networks, recorded
from mcunc.runs import birds_pretrained
from mcunc.runs.birds_pretrained import run_pretrained


def test_masks_in_a_network_as_it_comes(tmp_path, monkeypatch):
    """Dropout that is next to none changes no answer, dropout of nearly all changes most."""
    tiny = replace(TINY, build=lambda classes, seed: networks.small_inception(classes, seed=1))
    monkeypatch.setattr(birds_pretrained, "SETTING", tiny)
    monkeypatch.setattr(birds_pretrained, "DROPS", (1e-9, 0.9))
    monkeypatch.setattr(data, "cub200", lambda year, size: FEW)
    run = recorded.load(run_pretrained(folder=tmp_path))
    assert sorted(FEW.labels[run["cases"]]) == [0, 1, 2, 3, 4]
    agree = (run["predicted"] == run["off"]).mean(axis=(2, 3))
    assert_allclose(agree[:, 0], 1)
    assert agree[0, 1] < 0.5
