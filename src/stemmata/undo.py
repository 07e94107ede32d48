"""Undo: for how long a deleted version can be restored. Owns the setting that says so."""

from __future__ import annotations

from collections.abc import Mapping

SETTING = "undo_window"
"""A model's setting: whole seconds."""
DEFAULT = 14 * 24 * 3600


def undo_window(settings: Mapping[str, object]) -> int:
    """Seconds that a version of a model with these settings stays restorable after `version.delete`.

    A value that is no whole number of seconds, which only a stranger can have written, counts as the default.
    """
    found = settings.get(SETTING)
    if isinstance(found, bool) or not isinstance(found, int) or found < 0:
        return DEFAULT
    return found
