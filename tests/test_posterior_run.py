"""The run of chapter 4, on few curves: shapes, resuming, and ways that must agree."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from mcunc import _posterior_run, recorded
from mcunc._posterior_run import PROBLEMS, WAYS, judged, run_posterior

SHORT = {
    "SETS": 3, "MEMBERS": 6, "DRAWS": 12, "WARM_UP": 10, "LEAPFROG": 3, "THIN": 2,
    "ITERATIONS": 5, "STEPS": 5,
}  # fmt: skip


@pytest.fixture
def short(monkeypatch):
    for name, value in SHORT.items():
        monkeypatch.setattr(_posterior_run, name, value)


def test_curves_are_seen_on_both_sides_of_the_gap_and_with_noise():
    problem = PROBLEMS["network"]
    x, y, truth = problem.draw(200, seed=1)
    assert x.shape == (200, 30, 1)
    assert ((np.abs(x) >= 0.7) & (np.abs(x) <= 2)).all()
    assert ((x > 0).sum(axis=(1, 2)) == 15).all()
    seen = np.array(
        [np.interp(a[:, 0], _posterior_run.GRID, f) for a, f in zip(x, truth, strict=True)]
    )
    assert_allclose((y - seen).std(), 0.1, rtol=0.05)  # the grid is fine enough
    again = problem.draw(200, seed=1)
    np.testing.assert_array_equal(y, again[1])


def test_bands_hold_the_stated_share_of_draws(monkeypatch):
    monkeypatch.setattr(_posterior_run, "MEMBERS", 4000)
    rng = np.random.default_rng(0)
    samples = rng.normal(size=(4000, 2, 5)) * [1, 2, 3, 4, 5] + 7
    found = judged(samples, 3)
    assert_allclose(found["mean"], np.full((2, 5), 7), atol=0.3)
    assert_allclose(found["spread"], np.tile([1, 2, 3, 4, 5], (2, 1)), rtol=0.05)
    inside = (abs(samples - found["mean"]) <= found["band"][:, None] * found["spread"]).all(axis=2)
    assert_allclose(inside.mean(axis=0), 0.95, atol=0.001)
    # Five independent values: 0.95 = (2 Φ(c) - 1)^5.
    assert_allclose(found["band"], 2.569, atol=0.08)
    monkeypatch.setattr(_posterior_run, "MEMBERS", 50)
    assert (judged(np.ones((400, 2, 5)), 3)["band"] == 0).all()
    few = judged(samples, 3)
    fresh = rng.normal(size=(4000, 2, 5)) * [1, 2, 3, 4, 5] + 7
    inside = (abs(fresh - few["mean"]) <= few["band"][:, None] * few["spread"]).all(axis=2)
    assert inside.mean() < 0.95  # those to come are not those it was made from


def test_the_run_from_end_to_end(short, tmp_path):
    run = recorded.load(run_posterior(seed=3, folder=tmp_path))
    for name in PROBLEMS:
        for way in WAYS:
            if (name, way) == ("network", "exact"):
                assert f"{name}_{way}_mean" not in run.arrays
                continue
            assert run[f"{name}_{way}_mean"].shape == (3, 61)
            assert run[f"{name}_{way}_spread"].shape == (3, 61)
            assert run[f"{name}_{way}_band"].shape == (3,)
        assert run[f"{name}_hmc_r_hat"].shape == (3, 61)
        assert run[f"{name}_truth"].shape == (3, 61)
    # A linear model has one mode; refits of it differ by the data alone.
    assert_allclose(run["features_modes_spread"], 0, atol=1e-5)
    assert_allclose(run["features_bootstrap_mean"], run["features_both_mean"], atol=1e-3)
    assert run.record["command"] == "python -m mcunc run posterior --seed 3"


def test_chains_and_anchored_members_of_the_linear_model_are_exact(monkeypatch):
    """Set by set, so that none is taken for another."""
    for name, value in {
        "SETS": 3, "MEMBERS": 300, "DRAWS": 400, "WARM_UP": 200, "LEAPFROG": 40, "CHAINS": 2,
        "THIN": 2, "ITERATIONS": 8,
    }.items():  # fmt: skip
        monkeypatch.setattr(_posterior_run, name, value)
    problem = PROBLEMS["features"]
    x, y, _ = problem.draw(3, seed=1)
    exact = WAYS["exact"](problem, x, y, 1)
    spread, centre = exact["spread"].mean(axis=1), exact["mean"]
    assert abs(np.diff(centre, axis=0)).max() > 1  # the sets do differ
    for way in ("anchored", "hmc", "laplace"):
        found = WAYS[way](problem, x, y, 1)
        assert (abs(found["mean"] - centre).mean(axis=1) < 0.3 * spread).all(), way
        assert_allclose(found["spread"].mean(axis=1), spread, rtol=0.2)


def test_a_run_that_was_killed_goes_on_after_the_last_way(short, tmp_path, monkeypatch):
    def kill(*given_):
        raise KeyboardInterrupt

    whole = recorded.load(run_posterior(folder=tmp_path / "whole"))
    refits = WAYS["modes"]
    monkeypatch.setitem(WAYS, "modes", kill)
    with pytest.raises(KeyboardInterrupt):
        run_posterior(folder=tmp_path)
    done = {path.name for path in tmp_path.iterdir()}
    assert "posterior-network-ensemble.npz" in done
    assert not any(name.endswith(".part") for name in done)
    monkeypatch.setitem(WAYS, "modes", refits)
    for way in ("hmc", "laplace"):
        monkeypatch.setitem(WAYS, way, kill)  # of the network they are there already
    monkeypatch.setattr(_posterior_run, "PROBLEMS", {"network": PROBLEMS["network"]})
    run = recorded.load(run_posterior(folder=tmp_path))
    for key, value in run.arrays.items():
        if not key.endswith("seconds"):
            np.testing.assert_array_equal(value, whole[key])
    # What was made under other settings is made again.
    monkeypatch.setattr(_posterior_run, "STEPS", 6)
    with pytest.raises(KeyboardInterrupt):
        run_posterior(folder=tmp_path)


@pytest.mark.parametrize(("given_", "name"), [({"seed": -1}, "seed"), ({"folder": 3}, "folder")])
def test_wrong_arguments(given_, name):
    with pytest.raises(ValueError, match=f"^{name}: "):
        run_posterior(**given_)
