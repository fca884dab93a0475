"""Arrays as people have them: taken where they are unambiguous, or refused with the cure."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.sparse import csr_matrix
from scipy.special import expit, softmax

from mcunc._internal.checks import (
    as_array,
    as_classes,
    as_floats,
    as_groups,
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


# Infinities and other shapes ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.nan, "NaN or infinity .* row 7"),
        (np.inf, "NaN or infinity .* row 7"),
        (-np.inf, r"-inf; .*np\.maximum\(np\.float64\(logits\), -1e9\)"),
    ],
)
def test_infinities_are_refused(value, message):
    logits = Z.copy()
    logits[7, 1] = value
    refused(lambda: as_labelled_logits(logits, Y), f"^logits: .*{message}")
    assert (as_logits("logits", np.maximum(np.where(Z > 1, -np.inf, Z), -1e9)) > -1e10).all()


def test_log_odds_of_two_classes():
    z = Z[:, 0]
    cure = r"^logits: expected 2 axes.*z of class 1 pass np\.column_stack\(\[np\.zeros"
    refused(lambda: as_logits("logits", z), cure)
    refused(lambda: as_logits("logits", z[:, None]), cure)
    assert as_logits("logits", np.column_stack([np.zeros(len(z)), z])).shape == (30, 2)


@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (3, 0), (3, 4, 5), (1, 2, 3, 4, 5)])
def test_other_shapes_are_refused(shape):
    refused(lambda: as_logits("logits", np.zeros(shape)), "^logits: ")


# Labels ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "labels",
    [
        Y[:, None],
        torch.tensor(Y),
        torch.tensor(Y)[:, None],
        pd.Series(Y, dtype="Int64"),
        pd.DataFrame({"label": Y}),
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
        (P, r"got shape \(30, 3\) \(soft labels\?\); pass labels\.argmax"),
        (np.eye(4)[Y], r"one-hot rows of 3 columns"),
        (np.eye(3)[Y].T, r"got shape \(3, 30\) .* pass labels\.argmax\(axis=0\)"),
        (Y[None], r"got shape \(1, 30\); pass np\.ravel\(labels\)"),
        (np.where(Y == 0, -100, Y), r"run from -100 to 2.*leave out"),
        (
            Y + 1,
            r"run from 1 to 3; classes are 0 to 2.*from 0 \(labels - 1, .*\(labels \+ 1\) // 2",
        ),
        (np.array(Y > 0, dtype=object), "are true or false"),
        (pd.Series([pd.NA, *Y[1:]], dtype="Int64"), r"NaN .*missing.*row 0"),
        (pd.DataFrame({"a": [pd.NA, *Y[1:]]}, dtype="Float64"), r"NaN .*missing.*row 0"),
        ([[0], [1, 2]], r"join batches by np\.concatenate"),
        (np.array(["cat", "dog", "fox"])[Y], r"names\.index\(label\) for label in labels"),
        (pd.Series([None, *Y[1:]]), r"NaN .*missing.*row 0"),
        (np.ma.masked_equal(Y, 1), "masked entries"),
        (Y[:3], r"has 3 values for 30 cases"),
        (np.array(["cat", "dog", "fox"])[Y], "expected an array of numbers"),
        (pd.Categorical(np.array(["cat", "dog", "fox"])[Y]), "expected an array of numbers"),
        (Y.astype(str), "expected an array of numbers"),
    ],
)
def test_other_labels_are_refused_with_the_cure(labels, message):
    refused(lambda: as_labelled_logits(Z, labels), f"^labels: .*{message}")


@pytest.mark.parametrize("check", [as_outcomes, as_labels])
def test_one_column_will_do_for_outcomes(check):
    column = (Y[:, None] == 1).astype(float)
    for value in (column, torch.tensor(column), pd.DataFrame(column)):
        assert (check("y", value, 30) == column[:, 0]).all()
    refused(lambda: check("y", column.T, 30), r"^y: expected 1 axis")
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


@pytest.mark.parametrize("dtype", ["float64", object])
def test_tables_with_missing_entries_say_where(dtype):
    table = pd.DataFrame(Z).astype(dtype)
    assert np.abs(as_logits("logits", table) - Z).max() < 1e-6
    table.iloc[[4, 9], 1] = np.nan
    for check in (lambda: as_logits("logits", table), lambda: as_array("X", table, 2)):
        refused(check, r"^(logits|X): contains NaN .*first in row 4")


@pytest.mark.parametrize(
    "value",
    [pd.Series(["a", "b"]), pd.Series(pd.to_datetime(["2020-01-01"] * 2)), [None, pd.NaT], [1, []]],
)
def test_other_tables_are_refused(value):
    refused(lambda: as_array("x", value, 1), "^x: ")


@pytest.mark.parametrize(
    ("value", "message"),
    [({"logits": Z}, "'dict'"), (csr_matrix(Z), "sequence"), ([Z[:20], Z[20:]], "inhomogeneous")],
)
def test_what_numpy_makes_no_array_of_is_named(value, message):
    refused(lambda: as_logits("logits", value), rf"^logits: expected an array .*{message}")


def test_one_axis_for_two_gets_a_cure():
    refused(lambda: as_array("X", Y, 2), r"^X: expected 2 axes.*one column pass X\[:, None\]")


def test_fits_take_a_column_of_outcomes():
    X = np.column_stack([np.ones(30), Z[:, 0]])
    y = Z[:, 1] + (Y == 1)
    for fit, outcome in ((fit_least_squares, y), (fit_logistic, (y > 0).astype(float))):
        same = fit(X, outcome).coefficients
        assert (fit(X, outcome[:, None]).coefficients == same).all()
        assert (fit(X, pd.DataFrame(outcome)).coefficients == same).all()


def test_objects_stay_what_they_are():
    """Missing entries are not written into the caller's array."""
    values = np.array([1.0, pd.NA], dtype=object)
    refused(lambda: as_array("x", values, 1), "^x: contains NaN .* row 1")
    assert values[1] is pd.NA


def test_the_cures_for_other_shapes_of_logits_work():
    logits, labels = RNG.normal(size=(2, 3, 4, 5)), RNG.integers(0, 3, (2, 4, 5))
    message = refused(lambda: as_logits("logits", logits), r"^logits: .*got \(2, 3, 4, 5\)")
    assert "logits = np.moveaxis(logits, 1, -1)) and pass logits.reshape(-1, logits.shape[-1])" in (
        message
    )
    last = np.moveaxis(logits, 1, -1)
    rows, classes = as_labelled_logits(last.reshape(-1, last.shape[-1]), labels.ravel())
    assert (rows[6] == logits[0, :, 1, 1]).all()
    assert classes[6] == labels[0, 1, 1]

    p = expit(Z[:, 0])
    message = refused(lambda: as_logits("logits", p), r"^logits: .*got \(30,\)")
    assert "probabilities p np.log(np.column_stack([1 - p, p]))" in message
    rows = as_logits("logits", np.log(np.column_stack([1 - p, p])))
    np.testing.assert_allclose(softmax(rows, axis=1)[:, 1], p)


def test_the_cure_for_masked_classes_works_in_half_precision():
    half = np.where(np.arange(3) == (Y[:, None] + 1) % 3, -np.inf, Z).astype(np.float16)
    message = refused(lambda: as_logits("logits", half), "^logits: hold -inf")
    assert message.endswith("np.maximum(np.float64(logits), -1e9)")
    cured = as_logits("logits", np.maximum(np.float64(half), -1e9))
    assert ((cured == -1e9) == np.isinf(half)).all()


@pytest.mark.parametrize("missing", ["NA", "n/a", "None", "NULL", " nan ", ""])
def test_groups_without_an_id_are_named(missing):
    refused(lambda: as_groups("groups", ["a", missing], 2), "^groups: row 1 has no id")
