"""How long a deleted version can be restored."""

from __future__ import annotations

import pytest

from stemmata.undo import DEFAULT, SETTING, undo_window


def test_a_models_setting_counts_in_seconds() -> None:
    assert undo_window({SETTING: 3600}) == 3600
    assert undo_window({SETTING: 0}) == 0
    assert undo_window({}) == DEFAULT


@pytest.mark.parametrize("value", [-1, 1.5, "7d", None, True])
def test_what_is_no_number_of_seconds_counts_as_the_default(value: object) -> None:
    assert undo_window({SETTING: value}) == DEFAULT
