"""The report's numbers are those of other libraries, and its sentences say no more than they do."""

import subprocess
import sys

import matplotlib as mpl
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.special import softmax
from sklearn.metrics import accuracy_score, log_loss
from sklearn.model_selection import PredefinedSplit, cross_val_predict
from strategies import arguments, finite_or_named

import mcunc
from mcunc import calibration
from mcunc.recalibration import TemperatureScaling
from mcunc.reporting import FEWEST, FOLDS, report

mpl.use("Agg")


def world(n=2000, classes=4, seed=0, claim=1.0):
    """Labels drawn from softmax(z); the network claims softmax(claim · z)."""
    rng = np.random.default_rng(seed)
    z = 2 * rng.normal(size=(n, classes))
    labels = (z + rng.gumbel(size=z.shape)).argmax(axis=1)  # the Gumbel trick draws from softmax
    return claim * z, labels


def test_numbers_are_scikit_learn_s():
    logits, labels = world(claim=1.7)
    found, probs = report(logits, labels), softmax(1.0 * logits, axis=1)
    assert found.cases == 2000
    assert found.classes == 4
    accuracy = accuracy_score(labels, probs.argmax(axis=1))
    assert_allclose(found.accuracy, accuracy)
    assert_allclose(found.accuracy_error, np.sqrt(accuracy * (1 - accuracy) / 2000))
    assert_allclose(found.confidence, probs.max(axis=1).mean())
    assert_allclose(found.before.log_loss, log_loss(labels, probs))
    assert_allclose(found.before.brier, np.square(probs - np.eye(4)[labels]).sum(axis=1).mean())
    said = probs.max(axis=1)
    assert_allclose(found.confidence_error, np.sqrt((said * (1 - said)).sum()) / 2000)


def test_the_gain_is_that_of_held_out_folds():
    """The same folds by scikit-learn's cross-validation."""
    logits, labels = world(claim=1.7)
    found = report(logits, labels, seed=3)
    fold = np.random.default_rng(3).permutation(2000) % FOLDS
    held_out = cross_val_predict(
        TemperatureScaling(), logits, labels, cv=PredefinedSplit(fold), method="predict_proba"
    )
    rows = np.arange(2000)
    gains = np.log(held_out[rows, labels] / softmax(logits, axis=1)[rows, labels])
    assert_allclose(found.gain, gains.mean())
    assert_allclose(found.gain_error, gains.std(ddof=1) / np.sqrt(2000))
    assert_allclose(found.after.log_loss, log_loss(labels, held_out))
    assert_allclose(found.temperature, TemperatureScaling().fit(logits, labels).temperature_)
    ece = calibration.expected_calibration_error(held_out, labels)
    assert_allclose(found.after.ece, ece)


@pytest.mark.parametrize(("claim", "word"), [(2.5, "Over-confident"), (0.4, "Under-confident")])
def test_too_sure_and_too_modest_are_told_apart_and_mended(claim, word):
    """softmax(claim · z) is right with T = claim."""
    found = report(*world(n=5000, claim=claim))
    assert found.verdict.startswith(word)
    assert_allclose(found.temperature, claim, rtol=0.1)
    assert found.gain > 2 * found.gain_error
    assert "no larger than chance explains" in found.verdict
    assert f"{found.temperature:.2f}" in found.verdict


def test_a_mixture_of_both_is_called_miscalibrated():
    """Half of the cases claim too much, half too little, and the mean is right."""
    n = 4000
    confidence, truth = np.repeat([0.95, 0.65], n // 2), np.repeat([0.8, 0.8], n // 2)
    right = np.arange(n) % 100 < 100 * truth
    logits = np.column_stack([np.log(confidence / (1 - confidence)), np.zeros(n)])
    found = report(logits, np.where(right, 0, 1))
    assert_allclose(found.accuracy, found.confidence)
    assert found.verdict.startswith("Miscalibrated")


def test_a_calibrated_network_is_rarely_called_anything_else():
    """Level 5 % for the ECE, and 0.3 % for the mean: 100 data sets, within 3.5 standard errors."""
    calls = [report(*world(n=300, seed=seed)).verdict for seed in range(100)]
    accused = sum(not call.startswith("No sign of miscalibration") for call in calls)
    assert accused <= 5.3 + 3.5 * np.sqrt(100 * 0.053 * 0.947)


def test_direction_is_never_against_the_means():
    for seed in range(20):
        found = report(*world(n=200, seed=seed, claim=[0.5, 2.0][seed % 2]))
        gap = found.confidence - found.accuracy
        assert not (found.verdict.startswith("Over") and gap < 0)
        assert not (found.verdict.startswith("Under") and gap > 0)


def test_all_right_is_told_in_words():
    """No finite temperature: pytest would turn a warning into an error."""
    logits, _ = world(n=100)
    found = report(logits, logits.argmax(axis=1))
    assert found.accuracy == 1
    assert "cannot be fitted" in found.verdict
    assert not found.verdict.startswith("Over")


def test_saturated_logits_stay_finite():
    """Softmax gives the true class exactly 0; its logarithm is still known."""
    logits, labels = world(n=200)
    logits[0], labels[0] = [1000.0, 0, 0, 0], 1
    found = report(logits, labels)
    assert softmax(logits, axis=1)[0, 1] == 0
    assert np.isfinite([found.before.log_loss, found.after.log_loss, found.gain]).all()
    assert found.before.log_loss > 1000 / 200


@pytest.mark.parametrize("kind", [np.float16, np.float32, list])
def test_other_kinds_of_arrays(kind):
    logits, labels = world(n=400)
    given = logits.tolist() if kind is list else logits.astype(kind)
    expected = report(np.asarray(given, dtype=float), labels)
    assert str(report(given, labels.tolist())) == str(expected)


def test_two_classes_and_a_class_that_never_occurs():
    logits, labels = world(classes=2, claim=3)
    assert report(logits, labels).verdict.startswith("Over-confident")
    wider = np.column_stack([logits, np.full(2000, -50.0)])
    assert_allclose(report(wider, labels).before.log_loss, report(logits, labels).before.log_loss)


def test_text_is_a_page():
    found = report(*world(claim=2))
    text = str(found)
    assert repr(found) == text
    assert max(map(len, text.splitlines())) <= 84
    assert len(text.splitlines()) < 40
    for part in ("15 bins", "if calibrated", "standard error", "not for each class"):
        assert part in text
    assert str(report(*world(claim=2))) == text  # the same seed, the same page


def test_bins_and_seed_reach_the_numbers():
    logits, labels = world(claim=2)
    assert len(report(logits, labels, bins=7).before.table.count) == 7
    one, other = (report(logits, labels, seed=seed).before.null.mean for seed in (0, 1))
    assert one != other


def test_plot_and_page():
    found = report(*world(claim=2))
    figure = found.plot()
    assert len(figure.axes) == 3
    page = found.page()
    assert [text.get_text() for sub in page.subfigs for text in sub.texts] == [str(found)]
    page.canvas.draw()
    mpl.pyplot.close("all")


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        (np.full((50, 2), 0.5), np.zeros(50, int), "logits: these rows are probabilities"),
        (np.zeros((FEWEST - 1, 2)), np.zeros(FEWEST - 1, int), "labels: 19 cases are too few"),
        (np.zeros((50, 1)), np.zeros(50, int), "logits: has one column"),
        (np.full((50, 2), -np.inf), np.zeros(50, int), "logits: contains NaN or infinity"),
        (np.zeros((50, 2)), np.full(50, 2), "labels: "),
        (np.zeros((50, 2)), np.zeros(49, int), "labels: "),
    ],
)
def test_bad_input_is_refused_by_name(logits, labels, message):
    with pytest.raises(ValueError, match=message):
        report(logits, labels)


@settings(max_examples=25)
@given(
    arguments(
        logits=st.integers(0, 9).map(lambda seed: world(n=30, seed=seed)[0] * 10.0**seed),
        labels=st.integers(0, 9).map(lambda seed: world(n=30, seed=seed)[1]),
        bins=st.integers(-1, 20),
        seed=st.integers(-1, 9),
    )
)
def test_report_on_anything(given_):
    found = finite_or_named(lambda: report(**given_), list(given_))
    if found is not None:
        assert np.isfinite([found.gain, found.gain_error, found.temperature]).all()


def test_report_needs_neither_torch_nor_matplotlib():
    code = "import sys, mcunc; mcunc.report; print(*sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "mcunc.reporting" in out.stdout.split()
    assert not {"torch", "matplotlib", "sklearn"} & set(out.stdout.split())


def test_it_is_reached_from_the_package():
    assert mcunc.report is report
    assert "report" in dir(mcunc)
