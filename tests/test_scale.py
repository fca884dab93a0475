"""The page on data larger than memory: its code, run by two processes, beside one."""

import re
import warnings
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import softmax

from mcunc import recorded
from mcunc.calibration import brier_score, log_loss_from_logits, top_label_table
from mcunc.dropout import sample_logits
from mcunc.recalibration import TemperatureScaling
from mcunc.selective import risk_coverage

PAGE = Path(__file__).resolve().parents[1] / "book" / "reference" / "scale.md"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """What the names of the page stand for once its code has run."""
    text = PAGE.read_text(encoding="utf-8")
    names = {"__name__": "__main__"}  # so that its functions travel to the workers by value
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("ignore")  # Dask's own, about ports and this machine's memory
        patch.setattr("tempfile.tempdir", str(tmp_path_factory.mktemp("shards")))
        blocks = re.findall(r"```python\n(.*?)```(?:\n\n```text\n(.*?)```)?", text, re.DOTALL)
        for code, shown in blocks:
            printed = StringIO()
            with redirect_stdout(printed):
                exec(compile(code, str(PAGE), "exec"), names)
            assert printed.getvalue() == shown
    return names


@pytest.fixture(scope="module")
def whole():
    run = recorded.load("calibration-cifar10")
    return run["resnet20_test_logits"], run["test_labels"]


def test_tables_of_parts_add_up_to_that_of_the_whole(page, whole):
    table = top_label_table(softmax(whole[0], axis=1), whole[1], bins=15)
    assert_array_equal(page["table"].count, table.count)
    assert_array_equal(page["table"].outcome_sum, table.outcome_sum)
    assert_allclose(page["table"].confidence_sum, table.confidence_sum, rtol=1e-12)
    assert_allclose(page["table"].ece, table.ece, rtol=1e-10)


def test_scores_are_those_of_the_whole(page, whole):
    logits, labels = whole
    assert_allclose(page["log_loss"], log_loss_from_logits(logits, labels), rtol=1e-12)
    assert_allclose(page["brier"], brier_score(softmax(logits, axis=1), labels), rtol=1e-12)


def test_the_temperature_is_that_of_the_whole(page, whole):
    assert_allclose(page["temperature"], TemperatureScaling().fit(*whole).temperature_, rtol=1e-7)


def test_the_risk_coverage_curve_is_that_of_the_whole(page, whole):
    logits, labels = whole
    curve = risk_coverage(softmax(logits, axis=1).max(axis=1), logits.argmax(axis=1) != labels)
    assert_array_equal(page["curve"].risk, curve.risk)
    assert_array_equal(page["curve"].coverage, curve.coverage)


def test_divided_passes_are_those_of_one_process(page):
    one = sample_logits(page["network"], page["x"], draws=40, seed=5)
    assert_array_equal(page["samples"], one)
    assert np.ptp(one, axis=0).max() > 0
