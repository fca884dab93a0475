"""The run of chapter 4, on few curves: shapes, resuming, and ways that must agree."""

from types import SimpleNamespace

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats
from small_runs import shrunk

from mcunc import recorded
from mcunc.posterior import RegressionModel, exact_linear
from mcunc.runs import posterior_methods
from mcunc.runs.posterior_methods import GRID, METHODS, PROBLEMS, Task, judged, run_posterior

BOOK = posterior_methods.SIZES
SHORT = SimpleNamespace(
    sets=2, members=4, iterations=3, steps=3, chains=2, draws=12, warm_up=5, leapfrog=2, thin=2
)
small_run = shrunk((posterior_methods, {"SIZES": SHORT}))


def test_curves_are_seen_on_both_sides_of_the_gap_and_with_noise(monkeypatch):
    """Squares of 6,000 normal residuals: 1e-8 false alarms."""
    monkeypatch.setattr(SHORT, "sets", 200)
    task = Task(*PROBLEMS["network"], seed=1)
    x, y, truth = task.x, task.y, task.truth
    assert x.shape == (200, 30, 1)
    assert ((np.abs(x) >= 0.7) & (np.abs(x) <= 2)).all()
    assert ((x > 0).sum(axis=(1, 2)) == 15).all()
    seen = np.array([np.interp(a[:, 0], GRID, f) for a, f in zip(x, truth, strict=True)])
    low, high = stats.chi2.interval(1 - 1e-8, 6000)  # the grid is fine enough
    assert low < (((y - seen) / 0.1) ** 2).sum() < high
    np.testing.assert_array_equal(y, Task(*PROBLEMS["network"], seed=1).y)


def test_bands_hold_the_stated_share_of_draws():
    """Within six standard errors, of 24 normal comparisons: under 1e-7 false alarms."""
    rng, scale, n = np.random.default_rng(0), np.array([1, 2, 3, 4, 5]), 20_000
    samples = rng.normal(size=(n, 2, 5)) * scale + 7
    found = judged(samples, 3, n)
    assert (np.abs(found["mean"] - 7) < 6 * scale / np.sqrt(n)).all()
    assert (np.abs(found["spread"] / scale - 1) < 6 / np.sqrt(2 * n)).all()
    inside = (abs(samples - found["mean"]) <= found["band"][:, None] * found["spread"]).all(axis=2)
    assert_allclose(inside.mean(axis=0), 0.95, atol=1 / n)
    # Five independent values: 0.95 = (2 Φ(c) - 1)^5, and the density of that at c is 0.14.
    c = stats.norm.isf((1 - 0.95**0.2) / 2)
    density = 10 * stats.norm.pdf(c) * 0.95**0.8
    assert (np.abs(found["band"] - c) < 6 * np.sqrt(0.95 * 0.05 / n) / density).all()


def test_a_band_of_few_draws_holds_fewer_of_those_to_come():
    """Fifty hold 0.90 of them on average, ± 0.045 from band to band: eight errors below 0.94."""
    rng = np.random.default_rng(0)
    few = judged(rng.normal(size=(50, 100, 5)), 3, 50)
    inside = (
        abs(rng.normal(size=(1000, 100, 5)) - few["mean"]) <= few["band"][:, None] * few["spread"]
    )
    assert inside.all(axis=2).mean() < 0.94
    assert (judged(np.ones((400, 2, 5)), 3, 50)["band"] == 0).all()


def test_the_run_from_end_to_end(tmp_path):
    run = recorded.load(run_posterior(seed=3, folder=tmp_path))
    for name in PROBLEMS:
        for way in METHODS:
            if (name, way) == ("network", "exact"):
                assert f"{name}_{way}_mean" not in run.arrays
                continue
            assert run[f"{name}_{way}_mean"].shape == (2, 61)
            assert run[f"{name}_{way}_spread"].shape == (2, 61)
            assert run[f"{name}_{way}_band"].shape == (2,)
        for key in ("r_hat", "size", "size_sd", "size_tail"):
            assert run[f"{name}_hmc_{key}"].shape == (2, 61)
        assert run[f"{name}_truth"].shape == (2, 61)
    assert run.record["command"] == "python -m mcunc run posterior --seed 3"
    assert run.record["sets"] == 2
    assert run.record["leapfrog"] == 2


def test_by_default_the_run_has_the_sizes_of_the_recorded_one():
    record = recorded.load("posterior").record
    assert {name: record[name] for name in vars(BOOK)} == vars(BOOK)


LINEAR = (
    RegressionModel((2, 1), 0.1, "none", weight_scale=2.0, bias_scale=2.0),
    lambda x: np.concatenate([np.sin(x), np.cos(x)], axis=-1),
)


def test_refits_of_a_linear_model_differ_by_the_data_alone():
    """It has one mode, and two iterations find it."""
    found = {way: METHODS[way](Task(*LINEAR, 1)) for way in ("modes", "bootstrap", "both")}
    assert_allclose(found["modes"]["spread"], 0, atol=1e-4)
    assert found["bootstrap"]["spread"].min() > 1e-3
    assert_allclose(found["bootstrap"]["mean"], found["both"]["mean"], atol=1e-4)


def test_anchors_alone_are_narrower_than_the_posterior():
    """For a line the members are Σ(X'y/σ² + anchor): their covariance is Σ², less than Σ."""
    task = Task(*LINEAR, 1)
    spread = {way: METHODS[way](task)["spread"] for way in ("anchored", "randomised_map")}
    assert (spread["anchored"] < spread["randomised_map"]).mean() > 0.9


def test_the_initial_scale_of_an_ensemble_stays_in_what_the_data_do_not_decide():
    """A line through the origin's prior: directions without data keep their initial values."""
    task = Task(*LINEAR, 1)
    wide = [METHODS[way](task)["spread"].mean() for way in ("ensemble_0.29", "ensemble_2")]
    assert wide[0] < wide[1]


def test_chains_and_randomised_modes_of_the_linear_model_are_exact(monkeypatch):
    """Set by set, so that none is taken for another.

    Within seven standard errors, of 16 normal comparisons at 61 points that three parameters
    make: under 1e-8 false alarms, and under 1e-6 where an effective size is a quarter too large.
    """
    sizes = SimpleNamespace(
        sets=2, members=400, iterations=4, chains=8, draws=200, warm_up=100, leapfrog=6, thin=1
    )
    monkeypatch.setattr(posterior_methods, "SIZES", sizes)
    task = Task(*LINEAR, 1)
    design = np.c_[task.grid, np.ones(61)] * task.model.scale.numpy()
    exact = [exact_linear(task.model, *each) for each in zip(task.x, task.y, strict=True)]
    centre = np.array([design @ each.mean.numpy() for each in exact])
    spread = np.sqrt([np.diag(design @ each.covariance.numpy() @ design.T) for each in exact])
    assert abs(np.diff(centre, axis=0)).max() > 1  # the sets do differ
    for way in ("exact", "randomised_map", "laplace", "hmc"):
        found = METHODS[way](task)
        mean, wide, n, n_sd = (
            found.get(key, default)
            for key, default in (
                ("all_mean", found["mean"]), ("all_spread", found["spread"]),
                ("size", sizes.members), ("size_sd", sizes.members),
            )
        )  # fmt: skip
        assert (abs(mean - centre) < 7 * spread / np.sqrt(n)).all(), way
        assert (abs(wide / spread - 1) < 7 / np.sqrt(2 * n_sd)).all(), way


@pytest.fixture
def made(monkeypatch):
    """The ways that a run makes, in their order; `made.fatal` is one that is killed."""
    ways = Made()
    for way, method in METHODS.items():

        def watched(task, way=way, method=method):
            name = next(name for name, each in PROBLEMS.items() if each[0] is task.model)
            if (name, way) == ways.fatal:
                raise KeyboardInterrupt
            ways.append((name, way))
            return method(task)

        monkeypatch.setitem(METHODS, way, watched)
    return ways


class Made(list):
    fatal = None


def test_a_run_that_was_killed_goes_on_after_the_last_way(tmp_path, made):
    whole = recorded.load(run_posterior(folder=tmp_path / "whole"))
    every = list(made)
    made.clear()
    made.fatal = "network", "modes"
    with pytest.raises(KeyboardInterrupt):
        run_posterior(folder=tmp_path)
    done = {path.name for path in tmp_path.iterdir()}
    assert "posterior-network-ensemble.npz" in done
    assert not any(name.endswith(".part") for name in done)
    made.fatal = None
    run = recorded.load(run_posterior(folder=tmp_path))
    assert made == every  # each of them once
    for key, value in run.arrays.items():
        if not key.endswith("seconds"):
            np.testing.assert_array_equal(value, whole[key])


def test_what_was_made_under_other_settings_is_made_again(tmp_path, made, monkeypatch):
    run_posterior(folder=tmp_path)
    made.clear()
    run_posterior(folder=tmp_path)
    assert made == []
    monkeypatch.setattr(SHORT, "steps", 4)
    made.fatal = "network", "laplace"
    with pytest.raises(KeyboardInterrupt):
        run_posterior(folder=tmp_path)
    assert made == [("network", "exact"), ("network", "hmc")]


def damaged(path, how):
    if how == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    elif how == "text":
        path.write_text("not an archive")
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "objects":
        np.savez(path, settings=np.array([{}]), seconds=1.0)
    else:
        np.savez(path, mean=np.zeros(3))  # another's


@pytest.mark.parametrize("how", ["cut", "text", "empty", "objects", "another's"])
def test_a_damaged_part_is_named_with_the_cure(tmp_path, made, how):
    part = tmp_path / "posterior-network-laplace.npz"
    made.fatal = "network", "last_layer"
    with pytest.raises(KeyboardInterrupt):
        run_posterior(folder=tmp_path)
    damaged(part, how)
    with pytest.raises(ValueError, match=r"^folder: .*is damaged.*remove it") as caught:
        run_posterior(folder=tmp_path)
    assert str(part) in str(caught.value)
    assert "pickle" not in str(caught.value)
    part.unlink()
    made.clear()
    with pytest.raises(KeyboardInterrupt):
        run_posterior(folder=tmp_path)
    assert made == [("network", "laplace")]


@pytest.mark.parametrize(("given_", "name"), [({"seed": -1}, "seed"), ({"folder": 3}, "folder")])
def test_wrong_arguments(given_, name):
    with pytest.raises(ValueError, match=f"^{name}: "):
        run_posterior(**given_)
