"""Old names work, and say what they are called now."""

import pytest

from mcunc import calibration
from mcunc._internal.deprecation import moved, renamed_arguments, renamed_attribute


def test_a_name_that_moved_is_fetched_from_its_new_place():
    attribute = moved("mcunc.old", {"ece": "calibration.expected_calibration_error"})
    with pytest.warns(DeprecationWarning, match=r"mcunc\.old\.ece is now mcunc\.calibration\.exp"):
        assert attribute("ece") is calibration.expected_calibration_error
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        attribute("nonsense")


def test_an_argument_goes_by_its_old_name():
    @renamed_arguments(watch="evaluate")
    def fit(evaluate=None):
        return evaluate

    assert fit(evaluate=2) == fit(2) == 2
    with pytest.warns(DeprecationWarning, match="fit: watch= is now evaluate="):
        assert fit(watch=3) == 3
    with (
        pytest.warns(DeprecationWarning, match="is now evaluate"),
        pytest.raises(TypeError, match="got both watch and evaluate"),
    ):
        fit(watch=1, evaluate=2)


def test_an_attribute_is_read_by_its_old_name():
    class Recipe:
        lr_milestones = (0.5,)
        drops = renamed_attribute("drops", "lr_milestones")

    with pytest.warns(DeprecationWarning, match=r"Recipe\.drops is now lr_milestones"):
        assert Recipe().drops == (0.5,)
