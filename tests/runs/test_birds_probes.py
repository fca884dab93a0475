"""Linear heads on frozen features: each method against algebra or another library, and the run."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.special import log_softmax, softmax
from sklearn.linear_model import LogisticRegression

from mcunc import data, recorded
from mcunc.recalibration import TemperatureScaling
from mcunc.runs import birds_probes
from mcunc.runs.birds_probes import (
    KroneckerLaplace,
    Settings,
    Standardiser,
    answers,
    fit_heads,
    head_passes,
    log_mean,
    measured,
    run_heads,
)

pytestmark = pytest.mark.filterwarnings("ignore:TemperatureScaling")  # twelve may bear no T


def made_up(n=300, k=3, d=5, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % k
    x = rng.normal(size=(n, d)) + 1.5 * rng.normal(size=(k, d))[labels]
    return x.astype(np.float32), labels


def test_standardised_features_have_mean_0_and_variance_1():
    x, _ = made_up()
    x[:, 2] = 4  # a dead feature
    z = Standardiser(x)(x)
    assert_allclose(z.mean(axis=0), [0, 0, 0, 0, 0, 1], atol=1e-6)
    assert_allclose(z.std(axis=0), [1, 1, 0, 1, 1, 0], atol=1e-5)


def test_heads_are_scikit_learn_s_logistic_regressions():
    """Whose penalty is half the squared weights over N C, without the bias."""
    x, y = made_up()
    z, decays = Standardiser(x)(x), (0.01, 0.1)
    how = Settings(rate=0.03, epochs=1000, batch=300)  # all at once: no noise where it settles
    ours = fit_heads(z, y, 3, [0, 0], decays, seed=0, how=how)
    assert ours.shape == (2, 6, 3)
    for weight, decay in zip(ours, decays, strict=True):
        peer = LogisticRegression(C=1 / (decay * len(x)), tol=1e-8, max_iter=1000)
        expected = peer.fit(z[:, :-1], y).predict_proba(z[:, :-1])
        assert_allclose(softmax(z @ weight, axis=1), expected, atol=1e-3)
    assert np.linalg.norm(ours[1, :-1]) < np.linalg.norm(ours[0, :-1])


def test_heads_trained_together_are_those_trained_alone():
    x, y = made_up()
    z = Standardiser(x)(x)
    together = fit_heads(z, y, 3, [0, 0], [0.1, 0.001], seed=2)
    alone = fit_heads(z, y, 3, [0], [0.001], seed=2)
    assert_allclose(together[1:], alone, atol=1e-6)


def test_counts_stand_for_cases_that_come_several_times():
    x, y = made_up()
    z = Standardiser(x)(x)
    counts = np.random.default_rng(0).multinomial(300, np.full(300, 1 / 300), 2)
    rows = np.repeat(np.arange(300), counts[1])
    how = Settings(batch=300)  # all at once
    (alone,) = fit_heads(z[rows], y[rows], 3, [0], [0.01], seed=2, how=how)
    together = fit_heads(z, y, 3, [0, 0], [0.01, 0.01], seed=2, counts=counts, how=how)
    assert_allclose(together[1], alone, atol=1e-4)
    assert np.abs(together[0] - alone).max() > 1e-2


def test_dropout_while_training_shrinks_as_its_penalty_says():
    """Wager, Wang & Liang (2013): near to a penalty p / (1 - p) / 2 on squared weights times
    the mean curvature; two balanced classes far from certain have curvature 1/4."""
    rng = np.random.default_rng(1)
    z = np.c_[rng.normal(size=(4000, 2)), np.ones(4000)].astype(np.float32)
    y = (rng.random(4000) < 1 / (1 + np.exp(-0.4 * z[:, 0]))).astype(int)
    drop = 0.5
    weights = fit_heads(z, y, 2, [0, drop, 0], [0, 0, drop / (1 - drop) / 4], seed=0)
    plain, dropped, penalised = weights[:, 0, 1] - weights[:, 0, 0]
    assert dropped < 0.75 * plain
    # Near, not equal: over 8 seeds the quotient is 0.77 with a deviation of 0.01.
    assert_allclose(dropped, penalised, rtol=0.3)


def test_passes_have_the_mean_and_the_variance_of_dropout():
    """Mean w x; variance p / (1 - p) times the sum of squared products, the bias apart."""
    x, _ = made_up(8)
    z, weight = Standardiser(x)(x), np.random.default_rng(1).normal(size=(6, 3)).astype(np.float32)
    passes = head_passes(z, weight, 0.3, 20_000, seed=0)
    mean, variance = z @ weight, 0.3 / 0.7 * (z[:, :-1] ** 2 @ weight[:-1] ** 2)
    # Of 24 each: six standard errors, 5e-8.  The kurtosis is below 3, so a variance's is below 1 %.
    assert (np.abs(passes.mean(axis=0) - mean) < 6 * (variance / 20_000) ** 0.5).all()
    assert_allclose(passes.var(axis=0), variance, rtol=0.06)


def test_the_kronecker_laplace_is_the_dense_one():
    """Covariance of the logits by inverting the whole precision, N A ⊗ G + δ I."""
    x, _ = made_up(40)
    z, weight = Standardiser(x)(x), np.random.default_rng(2).normal(size=(6, 3)).astype(np.float32)
    laplace, prior = KroneckerLaplace(z, weight), 2.0
    p = softmax(z @ weight, axis=1)
    G = np.mean([np.diag(row) - np.outer(row, row) for row in p], axis=0)
    precision = 40 * np.kron(z.T @ z / 40, G) + prior * np.eye(18)
    samples = laplace.sample(z[:4], prior, 40_000, seed=0)
    for n in range(4):
        jacobian = np.kron(z[n][None], np.eye(3))  # of the logits by the weights, row by row
        covariance = jacobian @ np.linalg.inv(precision) @ jacobian.T
        scaled = laplace.logits * laplace.standard_deviations(z[:4], prior)[n]
        assert_allclose(scaled @ scaled.T, covariance, rtol=1e-4, atol=1e-6)
        # Six standard errors of a covariance and of a mean at most; false alarms: 1e-7 in all.
        assert_allclose(np.cov(samples[:, n].T), covariance, atol=0.0425 * covariance.max())
        off = np.abs(samples[:, n].mean(axis=0) - z[n] @ weight)
        assert (off < 6 * np.sqrt(np.diag(covariance) / 40_000)).all()


def test_the_laplace_knows_what_lies_far_away():
    x, y = made_up()
    standardise = Standardiser(x)
    z = standardise(x)
    laplace = KroneckerLaplace(z, fit_heads(z, y, 3, [0], [0.01], 0)[0])
    near, far = (laplace.standard_deviations(standardise(c * x), 1.0).mean() for c in (1, 5))
    assert far > 3 * near


def test_what_is_measured_of_samples():
    """Two samples of two classes that disagree: the mean is one half, all entropy is mutual."""
    samples = np.array([[[40.0, 0.0], [0.0, np.log(3)]], [[0.0, 40.0], [0.0, np.log(3)]]])
    held = np.log([[0.7, 0.3], [0.9, 0.1], [0.4, 0.6], [0.2, 0.8]])
    scaling = TemperatureScaling().fit(held, np.array([0, 0, 1, 0]))
    found = measured(samples, np.array([1, 1]), scaling)
    assert_allclose(found["loss"], [np.log(2), -np.log(0.75)])
    assert_allclose(found["brier"], [0.5, 2 * 0.25**2])
    assert_allclose(found["confidence"], [0.5, 0.75])
    assert_allclose(found["mutual_information"], [np.log(2), 0], atol=1e-12)
    assert found["predicted"].tolist() == [0, 1]
    assert_allclose(found["tempered_loss"][0], np.log(2))
    assert_allclose(log_mean(samples)[1], np.log([0.25, 0.75]))


SHORT = Settings(
    splits=2, epochs=3, decays=(0.0, 0.1), drops=(0.3,), priors=(1, 10), draws=8, members=2,
    rate=0.02, batch=16,
)  # fmt: skip
FEW = made_up(120)
PICTURES = data.Pictures(
    np.zeros((120, 3, 2, 2), np.uint8), FEW[1], ["a", "b", "c"], "birds.tgz sha256:0",
    "square crops",
)  # fmt: skip


def run_few(folder, seed=0, how=SHORT, pictures=PICTURES):
    """A run on forty photographs of each of three species; five features lie there as computed."""
    folder.mkdir(exist_ok=True)
    np.savez(folder / "birds-heads-features.npz", features=FEW[0], source=pictures.source)
    return run_heads(seed, folder, how, pictures)


def test_the_run_from_end_to_end(tmp_path):
    run = recorded.load(run_few(tmp_path, seed=5))
    assert run["loss"].shape == (2, 5, 12)
    assert run["loss_of_draws"].shape == (2, 8)
    assert run.record["methods"] == list(birds_probes.METHODS)
    assert run.record["command"] == "python -m mcunc run birds-heads --seed 5"
    for number, cases in enumerate(run["cases"]):
        np.testing.assert_array_equal(cases, data.cub200_split(FEW[1], 5 + number)[1])
    # the chosen settings are the ones with the least loss
    for split in range(2):
        best = run["losses_plain"][split].argmin()
        assert_allclose(run["decay"][split], (0.0, 0.1)[best], atol=1e-3)
    assert_allclose(run["loss"][:, 1].mean(axis=1), run["loss_of_draws"][:, -1], rtol=5e-3)
    assert_allclose(run["mutual_information"][:, [0, 2]], 0, atol=1e-6)
    assert (run["mutual_information"][:, [1, 3, 4]].mean(axis=2) > 0).all()


def test_nothing_is_learned_from_the_tenth():
    """Other labels and features there change no answer but their own."""
    x, y = FEW
    train, test = data.cub200_split(y, 0)
    choice = {"decay": 0.1, "drop": 0.3, "prior": 1}
    expected = answers(x, y, train, test, 3, 0, choice, SHORT)
    other, labels = x.copy(), y.copy()
    other[test[1:]] += 9
    labels[test] = 0
    for method, samples in answers(other, labels, train, test, 3, 0, choice, SHORT).items():
        assert_allclose(samples[:, 0], expected[method][:, 0], atol=1e-5)


def test_nothing_is_chosen_by_the_tenth():
    """Other labels and features there leave all that was chosen as it was."""
    x, y = FEW
    _, test = data.cub200_split(y, 0)
    expected = birds_probes.run_split(x, y, 3, 0, SHORT)
    other = x.copy()
    other[test] = other[test][:, ::-1] + 9
    got = birds_probes.run_split(other, y, 3, 0, SHORT)
    for key in ("decay", "drop", "prior", "temperature", "losses_plain", "losses_laplace"):
        np.testing.assert_array_equal(got[key], expected[key])
    assert np.abs(got["loss"] - expected["loss"]).max() > 0.01


def test_a_run_that_was_killed_goes_on(tmp_path, monkeypatch):
    whole = recorded.load(run_few(tmp_path / "whole"))
    original = birds_probes.run_split

    def killed(x, y, classes, seed, how):
        if seed == 1:
            raise KeyboardInterrupt
        return original(x, y, classes, seed, how)

    monkeypatch.setattr(birds_probes, "run_split", killed)
    with pytest.raises(KeyboardInterrupt):
        run_few(tmp_path / "parts")
    seen = []
    monkeypatch.setattr(birds_probes, "run_split", lambda *a: seen.append(a[3]) or original(*a))
    parts = recorded.load(run_few(tmp_path / "parts"))
    assert seen == [1]
    for name, array in whole.arrays.items():
        np.testing.assert_array_equal(parts.arrays[name], array)


def test_splits_of_other_pictures_are_refused(tmp_path):
    run_few(tmp_path)
    with pytest.raises(ValueError, match=r"split0\.npz is of other pictures"):
        run_few(tmp_path, pictures=replace(PICTURES, source="other"))


def test_splits_of_other_settings_and_damaged_ones_are_refused(tmp_path):
    run_few(tmp_path)
    with pytest.raises(ValueError, match=r"^folder: .*split0\.npz is of other .* settings"):
        run_few(tmp_path, how=replace(SHORT, epochs=4))
    path = tmp_path / "birds-heads-split0.npz"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"^folder: .*split0\.npz is damaged"):
        run_few(tmp_path)


def test_another_seed_leaves_the_run_of_the_first(tmp_path):
    paths = [run_few(tmp_path, seed) for seed in (0, 3)]
    assert [path.name for path in paths] == ["birds-heads.npz", "birds-heads-seed3.npz"]
    assert recorded.load(paths[0]).record["seed"] == 0


def test_features_are_computed_once(tmp_path, monkeypatch):
    pytest.importorskip("efficientnet_lite_pytorch")
    images = np.random.default_rng(0).integers(0, 256, (3, 3, 64, 64), dtype=np.uint8)
    pictures = data.Pictures(images, np.arange(3), ["a", "b", "c"], "x")
    first = birds_probes.features(pictures, tmp_path)
    assert first.shape == (3, 1280)
    network = birds_probes.networks.efficientnet_lite0()
    logits = birds_probes.training.predict_logits(network, images)
    linear = network.head[-1]
    ours = first @ linear.weight.detach().numpy().T + linear.bias.detach().numpy()
    assert_allclose(log_softmax(ours, axis=1), log_softmax(logits, axis=1), atol=1e-4)
    monkeypatch.setattr(birds_probes.networks, "efficientnet_lite0", None)
    np.testing.assert_array_equal(birds_probes.features(pictures, tmp_path), first)


def test_by_default_the_run_has_the_settings_of_the_recorded_one():
    record, book = recorded.load("birds-heads").record, vars(Settings())
    for name in book.keys() - {"batch", "rate"}:
        assert np.array_equal(record[name], book[name]), name
    assert (book["batch"], book["rate"]) == (256, 0.002)


@pytest.mark.parametrize(("given_", "name"), [({"seed": -1}, "seed"), ({"folder": 3}, "folder")])
def test_wrong_arguments(given_, name):
    with pytest.raises(ValueError, match=f"^{name}: "):
        run_heads(**given_)
