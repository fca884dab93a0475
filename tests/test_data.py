"""The tables are the published ones, and splits are splits."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from sklearn import datasets
from strategies import GARBAGE, arguments, finite_or_named

from mcunc.data import breast_cancer, diabetes, random_split


def check(table, n, k):
    assert table.X.shape == (n, k)
    assert table.y.shape == (n,)
    assert len(table.names) == k
    assert table.X.dtype == table.y.dtype == np.float64
    assert np.isfinite(table.X).all()


def test_diabetes_is_the_table_of_efron_et_al():
    """First patient of table 1 of Efron, Hastie, Johnstone & Tibshirani (2004)."""
    table = diabetes()
    check(table, 442, 10)
    assert table.names == ["age", "sex", "bmi", "bp", "s1", "s2", "s3", "s4", "s5", "s6"]
    assert_allclose(table.X[0], [59, 2, 32.1, 101, 157, 93.2, 38, 4, 4.9, 87], atol=0.05)
    assert table.y[0] == 151
    scaled = datasets.load_diabetes(scaled=True)
    centred = table.X - table.X.mean(axis=0)
    assert_allclose(centred / np.linalg.norm(centred, axis=0), scaled.data, atol=1e-10)
    assert (table.y == scaled.target).all()


def test_breast_cancer_counts_and_codes_malignant_as_one():
    """212 malignant and 357 benign (UCI); malignant nuclei are the larger ones."""
    means, everything = breast_cancer(), breast_cancer("all")
    check(means, 569, 10)
    check(everything, 569, 30)
    assert means.y.sum() == 212
    assert (means.y == everything.y).all()
    assert (everything.X[:, :10] == means.X).all()
    radius = means.X[:, means.names.index("mean radius")]
    assert radius[means.y == 1].mean() > radius[means.y == 0].mean() + 4
    # the first row of UCI's file: patient 842302, M
    first = [17.99, 10.38, 122.8, 1001, 0.1184, 0.2776, 0.3001, 0.1471, 0.2419, 0.07871]
    assert means.X[0].tolist() == first
    assert means.y[0] == 1


def test_tables_are_the_caller_s_own():
    first = breast_cancer()
    first.X[:] = first.y[:] = 0
    assert breast_cancer().X.any()
    assert breast_cancer().y.any()


@given(GARBAGE.filter(lambda value: not (isinstance(value, str) and value == "mean")))
def test_other_features_are_refused(value):
    with pytest.raises(ValueError, match="features: must be one of 'mean', 'all'"):
        breast_cancer(value)


@given(st.integers(2, 300), st.floats(1e-6, 1 - 1e-6), st.integers(0, 2**63 - 1))
def test_split_is_a_partition(n, test_fraction, seed):
    train, test = random_split(n, test_fraction, seed)
    assert sorted([*train, *test]) == list(range(n))
    assert len(train) > 0
    assert len(test) > 0
    assert abs(len(test) - n * test_fraction) <= 1
    assert (np.diff(train) > 0).all()
    assert (np.diff(test) > 0).all()
    again = random_split(n, test_fraction, seed)
    assert (again[1] == test).all()


def test_every_case_is_equally_likely_to_be_tested():
    """Mean of 2000 indicators with probability .3, within 4.5 standard errors for ten cases."""
    counts = np.zeros(10)
    for seed in range(2000):
        counts[random_split(10, 0.3, seed)[1]] += 1
    assert np.abs(counts / 2000 - 0.3).max() < 4.5 * np.sqrt(0.3 * 0.7 / 2000)


@given(
    arguments(
        n=st.integers(-1, 50),
        test_fraction=st.one_of(st.floats(), st.just(0.25)),
        seed=st.integers(-1, 9),
    )
)
def test_random_split_on_anything(given_):
    parts = finite_or_named(lambda: random_split(**given_), list(given_))
    if parts is not None:
        assert len(parts[0]) + len(parts[1]) == given_["n"]
