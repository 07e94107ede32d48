"""Aliases that move through a gate: what is kept of it, what races do, what protection holds."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stemmata import errors
from stemmata.log import ops
from stemmata.repository import Repository
from stemmata.storage.base import Buffer
from stemmata.storage.memory import MemoryStorage
from stemmata.version import Version

RULE = "acc > @production.acc"


@pytest.fixture
def repo() -> Repository:
    return Repository.in_memory()


@pytest.fixture
def save(tmp_path: Path, repo: Repository) -> Callable[..., Version]:
    """Save a version of `m` with these metrics."""

    def make(name: str, **metrics: float) -> Version:
        (tmp_path / "file.txt").write_text(name)
        return repo.save(tmp_path / "file.txt", "m", name=name, metrics=metrics, provenance={})

    return make


def log_end(repo: Repository) -> int:
    return repo.session.catalog.refresh().n


def test_the_event_holds_the_evidence(repo: Repository, save: Callable[..., Version]) -> None:
    old, new = save("old", acc=0.5), save("new", acc=0.6)
    repo.promote(old, "production", require=["acc > 0.4"], why="first")
    move = repo.promote("m@new", "production", require=[RULE, "acc < 1"], why="better")
    assert (move.before, move.after, move.why) == (old.id, new.id, "better")
    assert repo.history("m", "production")[-1] == move
    assert move.evidence["action"] == "promote"
    gate = move.evidence["gate"]
    assert (gate["version"], gate["passed"]) == (new.id.hex, True)
    assert gate["compared_with"] == {"production": old.id.hex}
    assert [r["expression"] for r in gate["requirements"]] == [RULE, "acc < 1"]
    again = Repository(repo.session.storage)  # from the log alone
    assert again.history("m", "production") == repo.history("m", "production")


def test_a_gate_that_fails_moves_nothing(repo: Repository, save: Callable[..., Version]) -> None:
    old, worse = save("old", acc=0.5), save("worse", acc=0.4)
    repo.promote(old, "production")
    before = log_end(repo)
    with pytest.raises(errors.GateFailed) as caught:
        repo.promote(worse, "production", require=[RULE, "acc > 0.1"])
    assert caught.value.exit_code == 8
    assert caught.value.data["current"] == old.id.short
    evidence: Any = caught.value.data["evidence"]
    assert [r["passed"] for r in evidence["requirements"]] == [False, True]
    assert log_end(repo) == before
    assert not repo.gate(worse, "production", [RULE]).passed
    assert repo.gate(save("better", acc=0.9), "production", [RULE]).passed
    assert repo.aliases("m")["production"] == old


def test_the_first_promotion_has_nothing_to_be_compared_with(
    repo: Repository, save: Callable[..., Version]
) -> None:
    first = save("first", acc=0.5)
    with pytest.raises(errors.GateFailed, match="production names nothing yet; promote without that"):
        repo.promote(first, "production", require=[RULE])
    assert repo.history("m", "production") == []
    repo.promote(first, "production")
    with pytest.raises(errors.GateFailed, match=r"wanted > 0\.5"):
        repo.promote(first, "production", require=[RULE])


def overtake(repo: Repository, monkeypatch: pytest.MonkeyPatch, act: Callable[[Repository], object]) -> None:
    """Let another writer `act` after the next entry was computed, and before it is put."""
    storage = repo.session.storage
    assert isinstance(storage, MemoryStorage)
    put, done = storage.put_new, threading.Event()

    def put_new(key: str, data: Buffer) -> None:
        if key.startswith("log/") and not done.is_set():
            done.set()
            act(Repository(storage, author="rival"))
        put(key, data)

    monkeypatch.setattr(storage, "put_new", put_new)


def test_of_two_promoters_the_second_is_judged_against_the_firsts_alias(
    repo: Repository, save: Callable[..., Version], monkeypatch: pytest.MonkeyPatch
) -> None:
    old, good, best = save("old", acc=0.5), save("good", acc=0.6), save("finest", acc=0.7)
    repo.promote(old, "production")
    overtake(repo, monkeypatch, lambda rival: rival.promote(best.id, "production", require=[RULE]))
    with pytest.raises(errors.GateFailed) as caught:
        repo.promote(good, "production", require=[RULE])
    assert caught.value.data["current"] == best.id.short
    evidence: Any = caught.value.data["evidence"]
    assert evidence["compared_with"] == {"production": best.id.hex}
    assert [m.after for m in repo.history("m", "production")] == [old.id, best.id]


def test_a_gate_that_still_holds_is_passed_with_the_value_that_was_met(
    repo: Repository, save: Callable[..., Version], monkeypatch: pytest.MonkeyPatch
) -> None:
    old, good, best = save("old", acc=0.5), save("good", acc=0.6), save("finest", acc=0.7)
    repo.promote(old, "production")
    overtake(repo, monkeypatch, lambda rival: rival.promote(good.id, "production", require=[RULE]))
    move = repo.promote(best, "production", require=[RULE])
    assert move.before == good.id
    assert move.evidence["gate"]["compared_with"] == {"production": good.id.hex}


def test_a_metric_that_is_measured_anew_meanwhile_counts(
    repo: Repository, save: Callable[..., Version], monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = save("old", acc=0.5), save("new", acc=0.6)
    repo.promote(old, "production")
    overtake(repo, monkeypatch, lambda rival: rival.annotate(new.id, metrics={"acc": 0.3}))
    with pytest.raises(errors.GateFailed, match=r"it is 0\.3"):
        repo.promote(new, "production", require=[RULE])


def test_a_move_from_a_value_that_is_no_more_is_refused_by_name(
    repo: Repository, save: Callable[..., Version], monkeypatch: pytest.MonkeyPatch
) -> None:
    old, good, best = save("old", acc=0.5), save("good", acc=0.6), save("finest", acc=0.7)
    repo.promote(old, "production")
    overtake(repo, monkeypatch, lambda rival: rival.promote(good.id, "production"))
    with pytest.raises(errors.AliasMoved):
        repo.promote(best, "production", require=[RULE], expect=old)
    assert repo.aliases("m")["production"] == good


# --- protection -------------------------------------------------------------------------------------


def test_a_protected_alias_moves_through_its_gate_alone(
    repo: Repository, save: Callable[..., Version], tmp_path: Path
) -> None:
    old, new, worse = save("old", acc=0.5), save("new", acc=0.6), save("worse", acc=0.4)
    repo.alias("m", "production", old)
    repo.protect("m", "Production", ["acc > 0.45", RULE], why="audit")
    for move in (
        lambda: repo.promote(worse, "production"),
        lambda: repo.promote(worse, "production", require=["acc > 0"]),
        lambda: repo.alias("m", "PRODUCTION", worse),
    ):
        with pytest.raises(errors.GateFailed, match=r"it is 0\.4"):
            move()
    moved = repo.alias("m", "production", new)
    assert [r["policy"] for r in moved.evidence["gate"]["requirements"]] == [True, True]
    with pytest.raises(errors.AliasProtected):
        repo.unalias("m", "production")
    with pytest.raises(errors.AliasProtected):
        repo.save(tmp_path / "file.txt", "m", name="x", alias="production", provenance={})
    assert "x" not in [v.name for v in repo.versions("m")]
    assert repo.aliases("m")["production"] == new


def test_nothing_else_takes_the_name_of_a_protected_alias(
    repo: Repository, save: Callable[..., Version], tmp_path: Path
) -> None:
    old = save("old", acc=0.5)
    with pytest.raises(errors.ModelNotFound, match="models here: m"):
        repo.protect("n", "production", [RULE])
    assert repo.models() == ["m"]
    # Both before the alias is anywhere and after it was deleted by force.
    repo.protect("m", "production", ["acc > 0.45"])
    for _ in range(2):
        for take in (
            lambda: repo.tag("m", "production", old),
            lambda: repo.name("m", "Production", old),
            lambda: repo.save(tmp_path / "file.txt", "m", name="production", provenance={}),
        ):
            with pytest.raises(errors.AliasProtected, match="would pass by its gate"):
                take()
        repo.promote(old, "production")
        repo.unalias("m", "production", force=True, why="retired")
    assert [v.name for v in repo.versions("m")] == ["old"]


def test_force_wants_a_reason_and_is_kept(repo: Repository, save: Callable[..., Version]) -> None:
    old, worse = save("old", acc=0.5), save("worse", acc=0.4)
    repo.promote(old, "production")
    repo.protect("m", "production", [RULE])
    for empty in ("", "  "):
        with pytest.raises(errors.InvalidArgument, match="say why"):
            repo.promote(worse, "production", force=True, why=empty)
        with pytest.raises(errors.InvalidArgument, match="say why"):
            repo.unalias("m", "production", force=True, why=empty)
    move = repo.promote(worse, "production", force=True, why="the old one leaks")
    assert (move.evidence["action"], move.why) == ("forced", "the old one leaks")
    assert move.evidence["gate"]["passed"] is False
    gone = repo.unalias("m", "production", force=True, why="no use")
    assert (gone.after, gone.why) == (None, "forced: no use")


def test_a_rollback_asks_no_gate_but_goes_only_where_the_alias_was(
    repo: Repository, save: Callable[..., Version]
) -> None:
    old, new, never = save("old", acc=0.5), save("new", acc=0.6), save("never", acc=0.1)
    repo.promote(old, "production")
    repo.promote(new, "production")
    repo.protect("m", "production", ["acc > 0.9"])
    with pytest.raises(errors.AliasProtected, match="it never was at"):
        repo.rollback("m", "production", to=never)
    back = repo.rollback("m", "production", why="latency")
    assert (back.after, back.rollback, back.evidence) == (old.id, True, {"action": "rollback"})
    assert repo.rollback("m", "production", to=new).after == new.id
    repo.unprotect("m", "production")
    assert repo.rollback("m", "production", to=never).after == never.id


def test_every_change_of_a_protection_is_kept(repo: Repository, save: Callable[..., Version]) -> None:
    save("old", acc=0.5)
    assert repo.protection("m", "production") is None
    with pytest.raises(errors.NotFound):
        repo.unprotect("m", "production")
    with pytest.raises(errors.InvalidExpression):
        repo.protect("m", "production", ["acc >"])
    assert repo.protections("m", "production") == []
    repo.protect("m", "production", ["acc > 0.4"], why="one")
    repo.protect("m", "production", [], why="two")
    repo.unprotect("m", "Production", why="three")
    with pytest.raises(errors.NotFound):
        repo.unprotect("m", "production")
    told = [(p.policy and p.policy.require, p.why, bool(p.by)) for p in repo.protections("m", "production")]
    assert told == [(("acc > 0.4",), "one", True), ((), "two", True), (None, "three", True)]
    again = Repository(repo.session.storage)
    assert again.protections("m", "production") == repo.protections("m", "production")


def test_a_locked_alias_moves_by_force_alone(repo: Repository, save: Callable[..., Version]) -> None:
    old, new = save("old", acc=0.5), save("new", acc=0.6)
    repo.promote(old, "production")
    repo.protect("m", "production", [])
    for require in ([], ["acc > 0"]):
        with pytest.raises(errors.AliasProtected, match="no gate that could be passed"):
            repo.promote(new, "production", require=require)
    assert repo.promote(new, "production", force=True, why="the audit is over").after == new.id


@pytest.mark.parametrize("value", [7, [], {}, {"require": 3}, {"require": ["acc ? 1"]}, {"require": [None]}])
def test_a_policy_that_cannot_be_read_protects_all_the_same(
    repo: Repository, save: Callable[..., Version], value: object
) -> None:
    old = save("old", acc=0.5)
    op = ops.ModelConfigure(model="m", settings={"protect:production": value})
    repo.session.commit(lambda _: [op])
    with pytest.raises((errors.AliasProtected, errors.GateFailed)):
        repo.promote(old, "production")


def test_a_policy_that_comes_between_is_met(
    repo: Repository, save: Callable[..., Version], monkeypatch: pytest.MonkeyPatch
) -> None:
    old = save("old", acc=0.5)
    overtake(repo, monkeypatch, lambda rival: rival.protect("m", "production", ["acc > 0.9"]))
    with pytest.raises(errors.GateFailed):
        repo.promote(old, "production")
    assert repo.history("m", "production") == []
