"""The run on the spread of dropout networks: many at once are what each is alone."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from mcunc import _spread, recorded
from mcunc._spread import DropoutMLP, draw_curve, gaussian_process, run_spread, train, truth


def test_members_are_the_networks_they_are_rebuilt_as():
    """Without dropout the outputs agree; with it their means over many masks do."""
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
    loop, generator = networks.member(2).train(), torch.Generator().manual_seed(1)
    torch.manual_seed(0)
    with torch.no_grad():
        ours = torch.stack([networks(x, generator)[2] for _ in range(4000)])
        theirs = torch.stack([loop(x[0]) for _ in range(4000)])
    error = (ours.var(dim=0) / 4000 + theirs.var(dim=0) / 4000).sqrt()
    assert ((ours.mean(dim=0) - theirs.mean(dim=0)).abs() < 5 * error).all()
    torch.testing.assert_close(ours.std(dim=0), theirs.std(dim=0), rtol=0.1, atol=0)


def test_curves_have_the_stated_noise():
    x, y = draw_curve(40_000, 0)
    assert (np.abs(x) <= 2).all()
    assert np.std(y - truth(x)) == pytest.approx(0.2, rel=0.02)


def test_training_fits_without_dropout_and_shrinks_with_it():
    x, y = (torch.tensor(v, dtype=torch.float32).repeat(2, 1) for v in draw_curve(200, 1))
    networks = DropoutMLP([0.0, 0.5], (1, 20, 20, 1))
    train(networks, x, y, steps=400)
    at = torch.linspace(-1.8, 1.8, 50)[:, None]
    errors = [
        (networks.member(r)(at)[:, 0].detach().numpy() - truth(at[:, 0].numpy())).std()
        for r in range(2)
    ]
    assert errors[0] < 0.15
    assert errors[0] < errors[1]


def test_the_gaussian_process_conditions_the_kernel_of_wide_networks():
    """Kernel from 2,000 random networks of width 200; conditioning as in any normal vector."""
    points, outputs, rng = np.array([-1.5, -0.2, 0.4, 1.7]), [], np.random.default_rng(0)
    for _ in range(2000):
        h = np.outer(points, rng.normal(size=200)) + rng.normal(size=200)
        h = np.maximum(h, 0) @ rng.normal(scale=(2 / 200) ** 0.5, size=(200, 200))
        outputs.append(np.maximum(h, 0) @ rng.normal(scale=(2 / 200) ** 0.5, size=200))
    kernel = np.cov(np.array(outputs).T)
    y = truth(points[:3])
    gain = kernel[:, :3] @ np.linalg.inv(kernel[:3, :3] + 0.2**2 * np.eye(3))
    mean, spread = gaussian_process(points[:3], y, points)
    np.testing.assert_allclose(mean, gain @ y, atol=0.1)
    expected = np.sqrt(np.diag(kernel - gain @ kernel[:3]))
    np.testing.assert_allclose(spread, expected, rtol=0.1)


@pytest.fixture
def short(monkeypatch):
    for name, value in {
        "CASES": (25, 50), "WIDTHS": (5,), "PROBABILITIES": (0.0, 0.1), "REPEATS": 2,
        "STEPS": 20, "DRAWS": 8,
    }.items():  # fmt: skip
        monkeypatch.setattr(_spread, name, value)


def test_the_run_from_end_to_end(short, tmp_path):
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


@pytest.mark.parametrize(("given_", "name"), [({"seed": -1}, "seed"), ({"folder": 3}, "folder")])
def test_wrong_arguments(given_, name):
    with pytest.raises(ValueError, match=f"^{name}: "):
        run_spread(**given_)
