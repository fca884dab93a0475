"""Dropout networks on UCI tables: many at once are what each is alone; scores by other means."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from small_runs import shrunk
from torch import nn

from mcunc import data, predictive, recorded
from mcunc._internal import checkpoint
from mcunc._internal.seeds import derive_seed
from mcunc.data import RegressionSet
from mcunc.runs import uci as uci_run
from mcunc.runs.uci import (
    Protocol,
    Study,
    grid,
    new_networks,
    penalty_of,
    run_uci,
    score,
    tables,
    train,
)

SHORT = Protocol(epochs=3, batch=8, drops=(0.005, 0.05))


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def forty():
    """Forty rows, two splits, the second column the same everywhere."""
    rng = np.random.default_rng(0)
    X = np.c_[rng.normal(3, 2, 40), np.full(40, 7.0), rng.normal(size=40)]
    y = 50 + 10 * X[:, 0] + rng.normal(size=40)
    orders = [rng.permutation(40) for _ in range(2)]
    return RegressionSet(
        X, y, [order[:35] for order in orders], [order[35:] for order in orders], 6,
        np.array([0.005, 0.05]), np.array([0.1, 0.5]), "toy.tgz sha256:0",
    )  # fmt: skip


FEW = forty()
SMALL = {
    "PROTOCOLS": {"paper": SHORT, "original": SHORT}, "CHOOSING": 100, "OTHERS": 100,
    "TESTED": (1, 5, 100),
}  # fmt: skip
BOOK = {name: getattr(uci_run, name) for name in SMALL}
small_run = shrunk((uci_run, SMALL), (data, {"uci": lambda name: FEW}))


def test_the_last_fifth_of_the_published_order_chooses():
    split = tables(FEW)
    assert split.x.shape == (2, 28, 3)
    assert split.judge[0].shape == (2, 7, 3)
    assert split.test[1].shape == (2, 5)
    learned = FEW.train[1][:28]
    mean, std = FEW.X[learned].mean(axis=0), FEW.X[learned].std(axis=0)
    assert_allclose(split.x[1, :, 0], (FEW.X[learned, 0] - mean[0]) / std[0], rtol=1e-5)
    assert not split.x[..., 1].any()  # constant: centred, not divided
    assert_allclose(split.scale[1], FEW.y[learned].std(), rtol=1e-6)
    judged = (FEW.y[FEW.train[1][28:]] - FEW.y[learned].mean()) / FEW.y[learned].std()
    assert_allclose(split.judge[1][1], judged, rtol=1e-4)


def test_all_rows_are_learned_from_where_none_is_to_choose():
    split = tables(FEW, 1.0)
    assert split.x.shape == (2, 35, 3)
    assert split.judge[0].shape == (2, 0, 3)
    assert_allclose(split.y.mean(dim=1), 0, atol=1e-5)


def test_settings_are_tried_in_the_authors_order():
    """Their files of results: all τ of the first probability, then those of the next."""
    drops, precisions = grid([0.005, 0.01], [0.25, 0.5, 0.75])
    assert drops.tolist() == [0.005] * 3 + [0.01] * 3
    assert precisions.tolist() == [0.25, 0.5, 0.75] * 2
    assert_allclose(penalty_of(drops, precisions, 200)[4], 1e-4 * 0.99 / (2 * 200 * 0.5))


def test_initial_weights_are_glorots():
    networks = new_networks(3, 6, np.full(80, 0.1), seeded(0))
    for weight, fans in zip(networks.weights, (3 + 6, 6 + 1), strict=True):
        bound = (6 / fans) ** 0.5
        assert weight.abs().max() <= bound
        # Of 480 uniform numbers or more a deviation is off by 2 %: six of these, 2e-9.
        assert_allclose(weight.std().item(), bound / 3**0.5, rtol=0.125)
    assert not any(bias.any() for bias in networks.biases)


def test_networks_trained_together_are_each_as_if_alone():
    """Without masks: the same steps by torch's own layers, loss and optimiser."""
    split, penalty = tables(FEW), np.array([0.01, 0.2] * 2)
    split = split._replace(x=split.x.double(), y=split.y.double())
    networks = new_networks(3, 6, np.zeros(4), seeded(3)).double()
    alone = [networks.member(r) for r in range(4)]
    train(networks, split, penalty, SHORT, seeded(5))
    generator = seeded(5)
    optimisers = [torch.optim.Adam(one.parameters(), lr=0.001, eps=1e-7) for one in alone]
    for _ in range(3):
        order = torch.rand((2, 28), generator=generator).argsort(dim=1)
        for rows in order.split(8, dim=1):
            torch.rand((4, rows.shape[1], 3), generator=generator)  # masks that drop nothing
            torch.rand((4, rows.shape[1], 6), generator=generator)
            for r, (one, optimiser) in enumerate(zip(alone, optimisers, strict=True)):
                s, g = divmod(r, 2)
                loss = nn.functional.mse_loss(one(split.x[s, rows[s]])[:, 0], split.y[s, rows[s]])
                weights = [layer.weight for layer in one if isinstance(layer, nn.Linear)]
                loss = loss + penalty[g] * sum(weight.square().sum() for weight in weights)
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
    for r, one in enumerate(alone):
        for ours, theirs in zip(networks.member(r).parameters(), one.parameters(), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-9)


def test_scores_are_those_of_the_passes():
    split = tables(FEW)
    networks = new_networks(3, 6, np.full(2, 0.3), seeded(0))
    x, y = split.test
    tau = torch.tensor([0.02, 0.5])
    with torch.no_grad():
        found = score(networks, x, y, split.scale, tau, (1, 4, 25), seeded(7))
        generator = seeded(7)
        passes = torch.stack([networks(x, generator)[..., 0] for _ in range(25)]).double()
    for r in range(2):
        scale = float(split.scale[r])
        samples, truth = (passes[:, r] * scale).numpy(), (y[r] * scale).numpy()
        for i, t in enumerate((1, 4, 25)):
            expected = predictive.log_predictive_density(samples[:t], truth, float(tau[r])).mean()
            assert_allclose(found["log_likelihood"][i, r], expected, rtol=1e-5)
            error = np.sqrt(((truth - samples[:t].mean(axis=0)) ** 2).mean())
            assert_allclose(found["rmse"][i, r], error, rtol=1e-5)


def test_the_run_from_end_to_end(tmp_path):
    run = recorded.load(run_uci(seed=2, folder=tmp_path))
    assert run["judge_rmse"].shape == run["test_log_likelihood"].shape == (2, 4)
    np.testing.assert_array_equal(run["chosen"], run["judge_log_likelihood"].argmax(axis=1))
    assert run["log_likelihood"].shape == run["rmse"].shape == (3, 2)
    # Tested is the network that was chosen: its own score by other passes.
    chosen = run["test_rmse"][[0, 1], run["chosen"]]
    assert_allclose(run["rmse"][-1], chosen, rtol=0.05)
    assert run.record["command"] == "python -m mcunc run uci --set yacht --protocol paper --seed 2"
    assert run.record["cases"] == 28
    assert run["wide_judge"].shape == run["wide_test"].shape == (7, 2)
    judged = run["judge_log_likelihood"][[0, 1], run["chosen"]]
    off = np.abs(run["wide_judge"] - judged)
    assert (off.argmin(axis=0) == 0).all()  # the chosen τ itself, by other passes
    # As each passes' mean is within a hair of the network without masks at such small p:
    assert_allclose(run["off_rmse"], run["rmse"][-1], rtol=0.1)
    assert run["refit_rmse"].shape == run["refit_log_likelihood"].shape == (2,)
    assert run.record["data"] == "toy.tgz sha256:0"


@pytest.mark.parametrize("kill", [1, 3, 4])  # in the first training, after it, in the second
def test_a_run_that_was_killed_ends_with_the_same_numbers(kill, tmp_path, monkeypatch):
    whole = recorded.load(run_uci(folder=tmp_path / "whole"))
    save, compared, calls, comparisons = checkpoint.save, Study.compared, [], []

    def comparing(*arguments):
        comparisons.append(arguments)
        return compared(*arguments)

    def saving(*arguments):
        save(*arguments)
        calls.append(arguments)
        if len(calls) == kill:
            raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "save", saving)
    monkeypatch.setattr(Study, "compared", comparing)
    with pytest.raises(KeyboardInterrupt):
        run_uci(folder=tmp_path)
    again = recorded.load(run_uci(folder=tmp_path))
    assert len(calls) == 6  # three epochs and three; none was made twice
    assert len(comparisons) == 1
    assert again.arrays.keys() == whole.arrays.keys()
    for name, value in whole.arrays.items():
        np.testing.assert_array_equal(again[name], value)
    monkeypatch.setattr(uci_run, "PROTOCOLS", {"paper": SHORT._replace(batch=4)})
    with pytest.raises(ValueError, match=r"^checkpoint: .* is of another batch"):
        run_uci(folder=tmp_path)
    monkeypatch.setattr(data, "uci", lambda name: replace(FEW, source="other.tgz"))
    with pytest.raises(ValueError, match=r"^checkpoint: .* is of another data"):
        run_uci(folder=tmp_path)


@pytest.mark.parametrize(
    ("given_", "name"),
    [({"protocol": "papers"}, "protocol"), ({"seed": -1}, "seed"), ({"folder": 3}, "folder")],
)
def test_wrong_arguments(given_, name):
    with pytest.raises(ValueError, match=f"^{name}: "):
        run_uci(**given_)


def test_a_network_that_failed_is_not_chosen(tmp_path, monkeypatch):
    """As in the authors' code, where NaN is never larger than the best."""
    fit = uci_run.train

    def failing(networks, *given_):
        if len(networks.p) == 8:  # not those that are refitted: the first of the first split
            networks.weights[0].data[0] = torch.nan
        return fit(networks, *given_)

    monkeypatch.setattr(uci_run, "train", failing)
    run = recorded.load(run_uci(folder=tmp_path))
    assert np.isnan(run["judge_log_likelihood"][0, 0])
    assert run["chosen"][0] == 1 + run["judge_log_likelihood"][0, 1:].argmax()
    assert np.isfinite(run["log_likelihood"]).all()


def test_inputs_are_masked_too():
    """With one pass through fixed hidden units that copy the inputs, each is there or not."""
    networks = new_networks(3, 6, np.full(2, 0.4), seeded(0))
    with torch.no_grad():
        networks.weights[0].zero_()
        networks.weights[0][:, 0, 0] = 1  # the first unit is the first input
        networks.weights[1].fill_(1)
        x = torch.ones(2, 4000, 3)
        out = networks(x, seeded(1))[..., 0]
    values, counts = torch.unique(out, return_counts=True)
    assert_allclose(values, [0, 1 / 0.36], rtol=1e-5)  # kept twice, 1 / 0.6 each time
    assert_allclose(counts[1] / counts.sum(), 0.36, atol=0.033)  # 6 standard errors of 8,000: 2e-9


def test_the_protocols_are_the_published_ones():
    """REFERENCES: the paper's own column, and the authors' rerun, whose grid is in the archive."""
    assert BOOK["PROTOCOLS"]["original"] == Protocol(400, 32, ())
    assert BOOK["PROTOCOLS"]["paper"] == Protocol(400, 32, (0.005, 0.05))
    assert BOOK["PROTOCOLS"]["short"] == Protocol(400, 128, (0.005, 0.01, 0.05, 0.1))
    assert BOOK["PROTOCOLS"]["rerun"] == Protocol(4000, 128, (0.005, 0.01, 0.05, 0.1))
    assert (uci_run.LENGTH_SCALE, uci_run.RATE, max(BOOK["TESTED"])) == (0.01, 0.001, 10_000)


def test_fixed_settings_are_trained_on_all_rows(tmp_path):
    """The paper's own: nothing is chosen, and what is tested has the scores of its passes."""
    run = recorded.load(run_uci(protocol="original", seed=2, folder=tmp_path))
    assert (run.record["cases"], run.record["length_scale"]) == (35, 0.1)
    assert (
        run.record["command"] == "python -m mcunc run uci --set yacht --protocol original --seed 2"
    )
    assert run["log_likelihood"].shape == run["rmse"].shape == (3, 2)
    given_ = np.full(2, 0.01), np.full(2, 0.541869562034)
    generator = seeded(derive_seed(2, "train"))
    networks, split = new_networks(3, 6, given_[0], generator), tables(FEW, 1.0)
    train(networks, split, penalty_of(*given_, 35, 0.1), SHORT, generator)
    taus = torch.tensor([0.541869562034] * 2)
    with torch.no_grad():
        passes = seeded(derive_seed(2, "passes"))  # the same ones
        found = score(networks, *split.test, split.scale, taus, (1, 5, 100), passes)
    assert_allclose(run["log_likelihood"], found["log_likelihood"], rtol=1e-4)
    assert_allclose(run["rmse"], found["rmse"], rtol=1e-4)


def test_the_paper_s_settings_are_those_of_its_code():
    """With an inverse length scale of 10 (yacht) or 100 there."""
    fixed = recorded.published("uci")["fixed"]["sets"]
    assert set(fixed) == set(data.UCI)
    assert [fixed[name][0] for name in ("concrete", "energy", "kin8nm")] == [0.01, 0.05, 0.05]
    assert [fixed[name][0] for name in ("power-plant", "yacht")] == [0.005, 0.01]
    assert fixed["yacht"][2] == 1 / 1e1
    assert fixed["kin8nm"][2] == 1 / 1e2
