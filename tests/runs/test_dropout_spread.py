"""The run on the spread of dropout networks: many at once are what each is alone."""

import itertools
import json

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from small_runs import killed_at
from torch import nn

from mcunc import recorded
from mcunc.runs import dropout_spread as spread_run
from mcunc.runs.dropout_spread import (
    DropoutMLP,
    draw_curve,
    gaussian_process,
    run_spread,
    train,
    truth,
)


def test_members_are_the_networks_they_are_rebuilt_as():
    """Without dropout the outputs agree; with it their first two moments over many masks do.

    Within six standard errors of 20 normal comparisons: under 1e-7 false alarms.
    """
    networks = DropoutMLP([0.0, 0.0, 0.4], (1, 6, 6, 1), seed=1)
    for bias in networks.biases:
        bias.data.normal_(generator=torch.Generator().manual_seed(0))
    x = torch.linspace(-2, 2, 5).repeat(3, 1)[:, :, None]
    together = networks(x, torch.Generator().manual_seed(0)).detach()
    for r in range(2):
        torch.testing.assert_close(together[r], networks.member(r)(x[0]).detach())
    assert [m.p for m in networks.member(2) if isinstance(m, nn.Dropout)] == [
        pytest.approx(0.4), pytest.approx(0.4),
    ]  # fmt: skip
    many = x.repeat(1, 10_000, 1)  # a mask for each row
    torch.manual_seed(0)
    with torch.no_grad():
        ours = networks(many, torch.Generator().manual_seed(1))[2].reshape(10_000, 5)
        theirs = networks.member(2).train()(many[2]).reshape(10_000, 5)
    for power in (1, 2):
        one, two = ours**power, theirs**power
        error = ((one.var(dim=0) + two.var(dim=0)) / 10_000).sqrt()
        assert ((one.mean(dim=0) - two.mean(dim=0)).abs() < 6 * error).all()


def test_curves_have_the_stated_noise():
    """Squares of 40,000 normal residuals: 1e-8 false alarms."""
    x, y = draw_curve(40_000, 0)
    assert (np.abs(x) <= 2).all()
    low, high = stats.chi2.interval(1 - 1e-8, 40_000)
    assert low < (((y - truth(x)) / 0.2) ** 2).sum() < high


def test_training_fits_without_dropout_and_shrinks_with_it(monkeypatch):
    monkeypatch.setattr(spread_run, "STEPS", 400)
    x, y = (torch.tensor(v, dtype=torch.float32).repeat(2, 1) for v in draw_curve(200, 1))
    networks = DropoutMLP([0.0, 0.5], (1, 20, 20, 1))
    train(networks, x, y)
    at = torch.linspace(-1.8, 1.8, 50)[:, None]
    errors = [
        (networks.member(r)(at)[:, 0].detach().numpy() - truth(at[:, 0].numpy())).std()
        for r in range(2)
    ]
    assert errors[0] < 0.15
    assert errors[0] < errors[1]


def rectified(kernel):
    """E relu(u) relu(v) for normal (u, v), by integrating E(relu(v) | u) over u."""
    found = np.diag(np.diag(kernel) / 2)
    for i, j in itertools.permutations(range(len(kernel)), 2):
        (a, c), (_, b) = kernel[np.ix_((i, j), (i, j))]
        rest = np.sqrt(b - c**2 / a)

        def moment(u, a=a, slope=c / a, rest=rest):
            z = slope * u / rest
            later = rest * (z * stats.norm.cdf(z) + stats.norm.pdf(z))
            return u * later * stats.norm.pdf(u, scale=a**0.5)

        found[i, j] = integrate.quad(moment, 0, 12 * a**0.5)[0]
    return found


def test_the_gaussian_process_conditions_the_kernel_of_wide_networks():
    """Layer by layer, weights N(0, 2/fan-in); conditioning as in any normal vector."""
    points = np.array([-1.5, -0.2, 0.4, 1.7])
    kernel = 2 * rectified(2 * rectified(1 + np.outer(points, points)))
    y = truth(points[:3])
    gain = kernel[:, :3] @ np.linalg.inv(kernel[:3, :3] + 0.2**2 * np.eye(3))
    mean, spread = gaussian_process(points[:3], y, points)
    np.testing.assert_allclose(mean, gain @ y, rtol=1e-6)
    np.testing.assert_allclose(spread, np.sqrt(np.diag(kernel - gain @ kernel[:3])), rtol=1e-6)


@pytest.fixture
def small(monkeypatch):
    values = {
        "CASES": (25, 50), "WIDTHS": (5,), "PROBABILITIES": (0.0, 0.1), "REPEATS": 2, "STEPS": 20,
        "DRAWS": 8,
    }  # fmt: skip
    for name, value in values.items():
        monkeypatch.setattr(spread_run, name, value)


def test_a_run_that_was_killed_goes_on(small, tmp_path, monkeypatch):
    whole = recorded.load(run_spread(folder=tmp_path / "whole"))
    calls = killed_at(2, monkeypatch, spread_run, "train")
    with pytest.raises(KeyboardInterrupt):
        run_spread(folder=tmp_path / "parts")
    again = recorded.load(run_spread(folder=tmp_path / "parts"))
    assert len(calls) == 3  # two parts, and the one that was killed
    assert again.arrays.keys() == whole.arrays.keys()
    for name, value in whole.arrays.items():
        np.testing.assert_array_equal(again[name], value)
    for name, value in (("PROBABILITIES", (0.0, 0.2)), ("NOISE", 0.3), ("LENGTH_SCALE", 0.1)):
        monkeypatch.setattr(spread_run, name, value)
        calls[:] = [None, None]
        run_spread(folder=tmp_path / "parts")
        assert len(calls) == 4  # both parts are made again


def test_the_run_from_end_to_end(small, tmp_path):
    run = recorded.load(run_spread(seed=3, folder=tmp_path))
    assert run["mean"].shape == run["spread"].shape == (2, 1, 2, 2, 81)
    assert run["log_density"].shape == (2, 1, 2, 2)
    assert not run["spread"][:, :, 0].any()
    assert (run["spread"][:, :, 1].mean(axis=-1) > 0).all()
    assert np.isfinite(run["log_density"]).all()
    assert run["exact_spread"][0].mean() > run["exact_spread"][1].mean()
    record = json.loads((tmp_path / "dropout-spread-seed3.json").read_text(encoding="utf-8"))
    assert record["command"] == "python -m mcunc run dropout-spread --seed 3"
    assert record["cases"] == [25, 50]


def test_by_default_the_run_has_the_settings_of_the_recorded_one():
    record = recorded.load("dropout-spread").record
    for name in ("cases", "widths", "probabilities", "repeats", "steps", "draws"):
        default = getattr(spread_run, name.upper())
        assert record[name] == (list(default) if isinstance(default, tuple) else default)


@pytest.mark.parametrize(("given_", "name"), [({"seed": -1}, "seed"), ({"folder": 3}, "folder")])
def test_wrong_arguments(given_, name):
    with pytest.raises(ValueError, match=f"^{name}: "):
        run_spread(**given_)
