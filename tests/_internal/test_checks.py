"""Arrays as people have them: taken where they are unambiguous, or refused with the cure."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.sparse import csr_matrix
from scipy.special import softmax

from mcunc._internal.checks import (
    as_array,
    as_classes,
    as_floats,
    as_labelled_logits,
    as_labels,
    as_logits,
    as_outcomes,
    refuse_probabilities,
)
from mcunc.linear import fit_least_squares
from mcunc.logistic import fit_logistic

RNG = np.random.default_rng(0)
Z = 2 * RNG.normal(size=(30, 3))
Y = RNG.integers(0, 3, 30)
P = softmax(Z, axis=1)


def refused(call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call()
    return str(caught.value)


# Probabilities in place of logits -------------------------------------------------------------


@pytest.mark.parametrize(
    "probs",
    [
        P,
        P.astype("f4"),
        P.astype("f2"),
        torch.tensor(P).bfloat16(),
        np.round(P, 4),
        np.round(P, 2),
        P * 0.96,
        P[:1],
        P.tolist(),
        pd.DataFrame(P),
        np.eye(3)[Y],
        np.full((4, 20), 0.05),
        np.vstack([P, 0 * P[:1]]),  # a padded row
        np.vstack([P, P[:2] * 0.8]),  # small entries rounded to 0
    ],
    ids=lambda value: type(value).__name__,
)
def test_probabilities_are_refused_with_the_cure(probs):
    refused(lambda: as_logits("logits", probs), r"^logits: .*probabilities; pass np\.log\(probs\)")


def test_percentages_are_refused_with_the_cure():
    cure = r"^logits: .*\[0, 100\].*percentages; pass np\.log\(probs / 100\).*logits - 100"
    refused(lambda: as_logits("logits", 100 * P), cure)
    refused(lambda: as_logits("logits", np.round(100 * P)), cure)
    assert len(as_logits("logits", 100 * P[:3])) == 3  # by chance


def test_what_the_messages_name_is_taken():
    assert (as_logits("logits", np.log(P)) == np.log(P)).all()
    assert (as_logits("logits", P - 1) == P - 1).all()


@pytest.mark.parametrize(
    "logits",
    [Z, Z.astype(int), np.zeros((4, 3)), P * 1.2, P - 0.1, np.vstack([P, Z[:1]]), P[:, :2], 5 * P],
)
def test_other_numbers_are_no_probabilities(logits):
    assert (as_logits("logits", logits) == logits).all()


def test_a_long_array_of_probabilities_is_read_to_its_end():
    probs = np.tile(P, (100, 1))
    refused(lambda: as_logits("logits", probs), "probabilities")
    probs[-1] = 3
    assert len(as_logits("logits", probs)) == 3000


def test_few_cases_may_lie_in_there_by_chance():
    assert len(as_logits("logits", P[:4], at_least=5)) == 4
    refused(lambda: as_logits("logits", P[:5], at_least=5), "probabilities")


def test_draws_are_looked_at_together():
    refused(lambda: refuse_probabilities("logits", np.stack([P, P])), "^logits: .*probabilities")
    refuse_probabilities("logits", np.stack([P, Z]))
    refuse_probabilities("logits", P[None] * np.nan)


# Masked classes -------------------------------------------------------------------------------


def masked():
    """Logits whose class 0 is masked out in half the rows, never for a label of that class."""
    logits = Z.copy()
    logits[(np.arange(30) % 2 == 0) & (Y != 0), 0] = -np.inf
    return logits


def test_masked_classes_are_taken():
    logits, labels = as_labelled_logits(masked(), Y)
    assert np.isneginf(logits).any()
    assert (labels == Y).all()
    one_left = np.where(np.arange(3) == Y[:, None], Z, -np.inf)
    assert (as_labelled_logits(one_left, Y)[0] == one_left).all()
    refused(lambda: as_logits("logits", logits, masks=False), "^logits: .*-inf.*TemperatureScaling")
    assert (as_logits("logits", Z, masks=False) == Z).all()


def test_impossible_labels_are_refused():
    logits = Z.copy()
    logits[[4, 7], Y[[4, 7]]] = -np.inf
    refused(
        lambda: as_labelled_logits(logits, Y),
        r"^logits: .*label itself in 2 rows.*row 4 .*np\.maximum",
    )


@pytest.mark.parametrize(
    ("value", "message"),
    [(np.nan, "NaN or infinity"), (np.inf, "NaN or infinity"), (-np.inf, "every class of row 7")],
)
def test_other_infinities_are_refused(value, message):
    logits = masked()
    logits[7] = value
    assert "7" in refused(lambda: as_labelled_logits(logits, Y), f"^logits: .*{message}")


# Logits of other shapes -----------------------------------------------------------------------


def test_log_odds_of_two_classes():
    z = Z[:, 0]
    cure = r"^logits: expected 2 axes.*z = np\.ravel\(logits\).*np\.column_stack\(\[np\.zeros"
    refused(lambda: as_logits("logits", z), cure)
    refused(lambda: as_logits("logits", z[:, None]), cure)
    z = np.ravel(z)
    assert as_logits("logits", np.column_stack([np.zeros(len(z)), z])).shape == (30, 2)
    p = P[:, 0]
    refused(lambda: as_logits("logits", p), r"np\.log\(np\.column_stack\(\[1 - p, p\]\)\)")
    assert as_logits("logits", np.log(np.column_stack([1 - p, p]))).shape == (30, 2)


def test_the_recipe_for_pixels_works():
    logits, labels = RNG.normal(size=(2, 3, 4, 5)), RNG.integers(0, 3, (2, 4, 5))
    labels[:, 0] = 255
    message = refused(lambda: as_logits("logits", logits), "^logits: .*pixels")
    assert "np.moveaxis(logits, 1, -1).reshape(-1, logits.shape[1])[keep]" in message
    assert "keep = labels.ravel() != 255" in message
    keep = labels.ravel() != 255
    rows, classes = as_labelled_logits(
        np.moveaxis(logits, 1, -1).reshape(-1, logits.shape[1])[keep], labels.ravel()[keep]
    )
    assert len(rows) == 2 * 3 * 5
    assert (rows[0] == logits[0, :, 1, 0]).all()
    assert classes[0] == labels[0, 1, 0]


def test_the_recipe_for_sequences_works():
    logits, labels = RNG.normal(size=(2, 6, 3)), RNG.integers(0, 3, (2, 6))
    labels[:, 4:] = -100
    message = refused(lambda: as_logits("logits", logits), "^logits: .*sequences")
    assert "logits.reshape(-1, logits.shape[-1])[keep]" in message
    keep = labels.ravel() >= 0
    rows, _ = as_labelled_logits(logits.reshape(-1, logits.shape[-1])[keep], labels.ravel()[keep])
    assert (rows[4] == logits[1, 0]).all()


def test_the_recipes_for_the_other_order_of_axes_work():
    labels = RNG.integers(0, 3, (2, 4, 5))
    refused(lambda: as_logits("logits", np.eye(3)[labels]), r"for \(N, H, W, K\) pass logits\.resh")
    sequences = np.moveaxis(RNG.normal(size=(2, 6, 3)), 2, 1)
    refused(lambda: as_logits("logits", sequences), r"for \(N, K, L\) pass np\.moveaxis\(logits, 1")
    rows = np.moveaxis(sequences, 1, -1).reshape(-1, sequences.shape[1])
    assert (rows[7] == sequences[1, :, 1]).all()


@pytest.mark.parametrize("shape", [(1, 30, 3), (30, 1, 3), (30, 3, 1), (30, 3, 1, 1)])
def test_axes_of_one_are_squeezed(shape):
    refused(
        lambda: as_logits("logits", Z.reshape(shape)), r"^logits: .*; pass np\.squeeze\(logits\)$"
    )


@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (3, 0), (1, 2, 3, 4, 5)])
def test_other_shapes_are_refused(shape):
    refused(lambda: as_logits("logits", np.zeros(shape)), "^logits: ")


# Labels ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "labels",
    [
        Y[:, None],
        np.eye(3)[Y],
        np.eye(3, dtype=bool)[Y],
        np.eye(3, dtype=int)[Y].tolist(),
        torch.tensor(Y),
        torch.tensor(Y)[:, None],
        torch.nn.functional.one_hot(torch.tensor(Y)),
        pd.Series(Y, dtype="Int64"),
        pd.DataFrame({"label": Y}),
        pd.get_dummies(Y),
        Y.astype(object),
        np.ma.masked_array(Y),
    ],
    ids=lambda value: type(value).__name__,
)
def test_labels_in_every_shape_that_leaves_no_doubt(labels):
    assert (as_classes("labels", labels, 30, 3) == Y).all()
    assert (as_labelled_logits(Z, labels)[1] == Y).all()


def test_one_column_is_no_one_hot_row():
    ones = np.ones((4, 1), dtype=int)
    assert (as_classes("labels", ones, 4, 2) == 1).all()


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (P, "soft labels"),
        (np.eye(3)[Y] + np.eye(3)[(Y + 1) % 3], "several classes"),
        (0 * P, "several classes"),
        (np.eye(4)[Y], "expected 1 axis"),
        (Y[None], r"expected 1 axis.*np\.ravel\(labels\)"),
        (Y.reshape(5, 6), "expected 1 axis"),
        (np.where(Y == 0, -100, Y), r"-100 marks .*labels != -100 .*labels\[keep\]"),
        (np.where(Y == 0, 255, Y).astype(np.uint8), r"255 marks .*labels != 255"),
        (np.where(Y == 0, -1, Y), r"-1 marks .*labels != -1"),
        (Y + 1, r"run from 1 to 3.*labels - 1"),
        (np.where(Y == 0, 7, Y), r"run from 1 to 7; classes are 0 to 2, one per column$"),
        (pd.Series([pd.NA, *Y[1:]], dtype="Int64"), r"NaN .*missing.*row 0"),
        (pd.Series([None, *Y[1:]]), r"NaN .*missing.*row 0"),
        (np.ma.masked_equal(Y, 1), "masked entries"),
        (Y[:3], r"has 3 values for 30 cases.*transposed.*\.T"),
        (np.eye(3)[Y].T, r"pass np\.transpose\(labels\)"),
        (Y.reshape(5, 6), r"pass np\.ravel\(labels\)"),
        (np.array(["cat", "dog", "fox"])[Y], r"strings such as .*names\.index\(label\)"),
        (pd.Categorical(np.array(["cat", "dog", "fox"])[Y]), r"strings such as .*names\.index"),
        (Y.astype(str), r"of digits, np\.asarray\(labels\)\.astype\(int\)"),
    ],
)
def test_other_labels_are_refused_with_the_cure(labels, message):
    refused(lambda: as_labelled_logits(Z, labels), f"^labels: .*{message}")


def test_minus_one_and_one_are_recoded():
    signs = np.where(Y == 0, -1, 1)
    refused(lambda: as_labelled_logits(Z[:, :2], signs), r"^labels: .*\(labels \+ 1\) // 2")


@pytest.mark.parametrize("check", [as_outcomes, as_labels])
def test_one_column_will_do_for_outcomes(check):
    column = (Y[:, None] == 1).astype(float)
    for value in (column, torch.tensor(column), pd.DataFrame(column)):
        assert (check("y", value, 30) == column[:, 0]).all()
    refused(lambda: check("y", column.T, 30), r"^y: expected 1 axis.*np\.ravel\(y\)")
    refused(lambda: check("y", np.hstack([column, column]), 30), "^y: expected 1 axis")


# Tables and tensors ---------------------------------------------------------------------------


def test_tensors_are_read_wherever_and_however_they_are():
    tensor = torch.tensor(Z, requires_grad=True)
    assert (as_logits("logits", tensor) == Z).all()
    half = tensor.bfloat16()
    assert (as_logits("logits", half) == half.detach().float().numpy()).all()
    assert as_floats("x", tensor.half(), 2).dtype == np.float16
    assert as_floats("x", half, 2).dtype == np.float32
    assert (as_array("x", torch.tensor(Z).T, 2) == Z.T).all()


@pytest.mark.parametrize("dtype", ["float64", "Float64", "Float32", object])
def test_tables_with_missing_entries_say_where(dtype):
    table = pd.DataFrame(Z).astype(dtype)
    assert np.abs(as_logits("logits", table) - Z).max() < 1e-6
    table.iloc[[4, 9], 1] = pd.NA if dtype != "float64" else np.nan
    for check in (lambda: as_logits("logits", table), lambda: as_array("X", table, 2)):
        refused(check, r"^(logits|X): contains NaN .*2 rows, the first is row 4")


@pytest.mark.parametrize(
    "value",
    [pd.Series(["a", "b"]), pd.Series(pd.to_datetime(["2020-01-01"] * 2)), [None, pd.NaT], [1, []]],
)
def test_other_tables_are_refused(value):
    refused(lambda: as_array("x", value, 1), "^x: ")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "got NoneType"),
        ({"logits": Z}, "got dict"),
        (csr_matrix(Z), r"got csr_matrix; pass its toarray\(\)"),
        ([Z[:20], Z[20:]], r"rows differ in length; join batches by np\.concatenate"),
    ],
)
def test_what_numpy_makes_no_array_of_is_named(value, message):
    refused(lambda: as_logits("logits", value), rf"^logits: .*\({message}")


def test_one_axis_for_two_gets_a_cure():
    refused(lambda: as_array("X", Y, 2), r"^X: expected 2 axes.*one column pass X\[:, None\]")


def test_fits_take_a_column_of_outcomes():
    X = np.column_stack([np.ones(30), Z[:, 0]])
    y = Z[:, 1] + (Y == 1)
    for fit, outcome in ((fit_least_squares, y), (fit_logistic, (y > 0).astype(float))):
        same = fit(X, outcome).coefficients
        assert (fit(X, outcome[:, None]).coefficients == same).all()
        assert (fit(X, pd.DataFrame(outcome)).coefficients == same).all()
