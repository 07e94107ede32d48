"""The error tree: every class can be made, says something, and survives a process boundary."""

from __future__ import annotations

import pickle

import pytest

from stemmata import errors
from stemmata.errors import StemmataError


def classes() -> list[type[StemmataError]]:
    found: list[type[StemmataError]] = []
    todo: list[type[StemmataError]] = [StemmataError]
    while todo:
        current = todo.pop()
        found.append(current)
        todo.extend(c for c in current.__subclasses__() if c.__module__ == errors.__name__)
    return found


ABSTRACT: set[type[StemmataError]] = {
    StemmataError,
    errors.UsageProblem,
    errors.NotFound,
    errors.Conflict,
    errors.Damage,
    errors.StorageProblem,
    errors.SafetyRefusal,
}
CONCRETE = [c for c in classes() if c not in ABSTRACT]


def made(cls: type[StemmataError]) -> StemmataError:
    return cls(**{name: f"<{name}>" for name in cls.fields() | cls.unsaid})


@pytest.mark.parametrize("cls", CONCRETE, ids=lambda c: c.__name__)
def test_each_message_holds_each_field_and_the_next_step(cls: type[StemmataError]) -> None:
    error = made(cls)
    for name in cls.fields():
        assert f"<{name}>" in str(error)
    assert cls.what != StemmataError.what
    assert str(error).count("{") == str(error).count("}")
    assert error.data == {name: f"<{name}>" for name in cls.fields() | cls.unsaid}
    assert not cls.fields() & cls.unsaid


@pytest.mark.parametrize("cls", CONCRETE, ids=lambda c: c.__name__)
def test_each_error_survives_pickling(cls: type[StemmataError]) -> None:
    again = pickle.loads(pickle.dumps(made(cls)))
    assert type(again) is cls
    assert str(again) == str(made(cls))
    assert again.data == made(cls).data


def test_kinds_are_unique_and_each_class_states_its_own() -> None:
    kinds = [c.kind for c in classes()]
    assert len(kinds) == len(set(kinds))
    assert all("kind" in vars(c) for c in classes())


def test_exit_codes_are_those_of_the_branches() -> None:
    branches = {
        errors.UsageProblem: 2,
        errors.NotFound: 3,
        errors.Conflict: 4,
        errors.Damage: 5,
        errors.StorageProblem: 6,
        errors.SafetyRefusal: 8,
    }
    for branch, code in branches.items():
        assert all(c.exit_code == code for c in classes() if issubclass(c, branch))
    assert errors.NewerFormat.exit_code == 7


def test_a_missing_or_extra_field_is_a_bug_found_at_once() -> None:
    with pytest.raises(TypeError, match="reason"):
        errors.InvalidName(name="x")
    with pytest.raises(TypeError, match="extra"):
        errors.InvalidName(name="x", reason="y", extra="z")


def test_braces_in_data_are_text_not_templates() -> None:
    assert "{0.__class__}" in str(errors.InvalidName(name="{0.__class__}", reason="{name}"))
