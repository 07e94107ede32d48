"""Every precondition of FORMAT.md, section 3.1: where it holds, and where it does not."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from ledger import (
    TREE,
    DictState,
    add_pack,
    add_version,
    alias,
    fold_ops,
    pack,
    record,
    version_of,
)
from stemmata.catalog.schema import SCHEMA
from stemmata.catalog.state import SqliteState
from stemmata.collecting.copies import in_order
from stemmata.errors import NewerFormat
from stemmata.ids import Digest, PackName, VersionId
from stemmata.log import fold, ops
from stemmata.log.entries import Position
from stemmata.log.fold import Pointer, State
from stemmata.records import Content

SECRETS = {"environment": "aa" * 32, "command": "bb" * 32}
V0, V1, GONE = version_of(record(0, provenance=SECRETS)), version_of(record(1)), "77" * 32


class World:
    """A state after some entries, and the judgement on the next one."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.here = Position(0, Digest.of(b"genesis"), "")

    def did(self, *changes: ops.Op) -> World:
        reason = self.fold(*changes)
        assert reason is None, reason
        return self

    def fold(self, *changes: ops.Op) -> str | None:
        self.here, reason = fold_ops(self.state, self.here, *changes)
        return reason

    def refuses(self, *changes: ops.Op, because: str) -> None:
        reason = self.fold(*changes)
        assert reason is not None
        assert because in reason

    def at(self, name: str, model: str = "m") -> Pointer | None:
        return self.state.ref(model, name)

    def state_of(self, version: str) -> str | None:
        found = self.state.version(VersionId.parse(version))
        return found.state if found is not None else None

    def state_of_pack(self, number: int) -> str | None:
        return self.state.pack_state(PackName.parse(pack(number)))


@pytest.fixture(params=["dictionary", "sqlite"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    """Pack 1 is live, V0 is a visible version "v0" of the model "m"."""
    if request.param == "dictionary":
        yield World(DictState()).did(add_pack(1), add_version(0, provenance=SECRETS))
        return
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.executescript(SCHEMA)
    state = SqliteState(connection)
    connection.execute("BEGIN")
    yield World(state).did(add_pack(1), add_version(0, provenance=SECRETS))
    connection.close()


def delete(version: str = V0) -> ops.VersionDelete:
    return ops.VersionDelete(version=version)


def forget(*versions: str) -> ops.VersionForget:
    return ops.VersionForget(versions=list(versions))


def restore(version: str = V0) -> ops.VersionRestore:
    return ops.VersionRestore(version=version)


def retire(*packs: int) -> ops.PackRetire:
    return ops.PackRetire(packs=[pack(p) for p in packs])


def drop(*packs: int) -> ops.PackDrop:
    return ops.PackDrop(packs=[pack(p) for p in packs])


def fixed(kind: str, name: str, to: str = V0, expect: str | None = None) -> ops.RefSet:
    return ops.RefSet(model="m", kind=kind, name=name, to=to, expect=expect)


def ref_delete(name: str, expect: str = V0, kind: str = "alias") -> ops.RefDelete:
    return ops.RefDelete(model="m", kind=kind, name=name, expect=expect)


def changed(op: Any, **fields: object) -> Any:
    return msgspec.structs.replace(op, **fields)


# --- the entry as a whole -------------------------------------------------------------------------


def test_i5_an_entry_takes_effect_as_a_whole_or_not_at_all(world: World) -> None:
    world.refuses(add_pack(2), alias("prod", V0), add_version(1, packs=[9]), because="op 3: pack")
    assert world.state_of_pack(2) is None
    assert world.at("prod") is None
    world.did(add_pack(2), alias("prod", V0), add_version(1, packs=[2]))


def test_ops_see_what_earlier_ops_of_their_entry_did(world: World) -> None:
    world.did(add_pack(2), add_version(1, packs=[2]), alias("prod", V1), alias("prod", V0, expect=V1))
    assert world.at("prod") == Pointer("alias", VersionId.parse(V0))


def test_a_void_entry_does_not_hinder_the_next(world: World) -> None:
    world.refuses(delete(GONE), because="unknown")
    world.did(delete())


def test_an_entry_of_no_ops_is_sound(world: World) -> None:
    world.did()


# --- format.upgrade -------------------------------------------------------------------------------


def test_i9_a_lifted_format_stops_this_release(world: World) -> None:
    with pytest.raises(NewerFormat, match="format 2"):
        world.fold(add_pack(2), ops.FormatUpgrade(to=2))
    assert world.state_of_pack(2) is None
    assert world.state.format() == 1


def test_an_upgrade_counts_where_this_release_knows_the_format(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ops, "FORMAT", 3)
    world.did(ops.FormatUpgrade(to=3))
    assert world.state.format() == 3
    world.refuses(ops.FormatUpgrade(to=3), because="not above")


@pytest.mark.parametrize("to", [1, 0, -5])
def test_a_format_only_rises(world: World, to: int) -> None:
    world.refuses(ops.FormatUpgrade(to=to), because="not above")


def test_a_void_upgrade_stops_nobody(world: World) -> None:
    world.refuses(ops.FormatUpgrade(to=2), delete(GONE), because="unknown")
    world.refuses(ops.FormatUpgrade(to=2**70), because="63 bits")


# --- packs ----------------------------------------------------------------------------------------


def test_a_pack_is_added_upon_live_bases(world: World) -> None:
    world.did(add_pack(2, bases=[1]), add_pack(3, bases=[1, 2, 2]))
    assert world.state_of_pack(3) == "live"


@pytest.mark.parametrize(
    ("op", "because"),
    [
        (add_pack(1), "already live"),
        (add_pack(2, bases=[9]), "unknown"),
        (add_pack(2, bases=[2]), "unknown"),
        (changed(add_pack(2), pack="0" * 31), "no pack's name"),
        (changed(add_pack(2), pack="A" * 32), "no pack's name"),
        (changed(add_pack(2), digest="x"), "no digest"),
        (changed(add_pack(2), size=-1), "size"),
        (changed(add_pack(2), size=2**63), "size"),
    ],
)
def test_a_pack_is_not_added(world: World, op: ops.PackAdd, because: str) -> None:
    world.refuses(op, because=because)


def test_i7_a_name_that_was_retired_before_its_pack_came_stays_retired(world: World) -> None:
    world.did(retire(7))
    world.refuses(add_pack(7), because="already retired")
    world.did(drop(7))
    world.refuses(add_pack(7), because="already dropped")


def test_a_pack_upon_a_retired_base_is_void(world: World) -> None:
    world.did(add_pack(2), retire(2))
    world.refuses(add_pack(3, bases=[2]), because="retired")


def test_i7_a_needed_pack_is_not_retired(world: World) -> None:
    world.refuses(retire(1), because="needed")
    world.did(delete())
    world.refuses(retire(1), because="needed")
    world.did(forget(V0), retire(1))
    assert world.state_of_pack(1) == "retired"


def test_i7_a_base_of_a_needed_pack_is_not_retired(world: World) -> None:
    world.did(add_pack(2, [1]), add_pack(3, [2]), add_version(1, packs=[3]), delete(), forget(V0))
    for base in (1, 2, 3):
        world.refuses(retire(base), because="needed")
    world.did(delete(V1), forget(V1), retire(1, 2, 3))


def test_a_pack_is_retired_once(world: World) -> None:
    world.did(add_pack(2))
    world.refuses(retire(2, 2), because="already retired")
    world.did(retire(2))
    world.refuses(retire(2), because="already retired")
    world.did(drop(2))
    world.refuses(retire(2), because="already dropped")
    world.refuses(changed(retire(2), packs=["x"]), because="no pack's name")


def test_i7_only_a_retired_pack_is_dropped(world: World) -> None:
    for number in (1, 9):
        world.refuses(drop(number), because="not retired")
    world.did(retire(9), drop(9))
    assert world.state_of_pack(9) == "dropped"
    world.refuses(drop(9), because="not retired")


def test_a_place_takes_the_need_with_it(world: World) -> None:
    world.did(add_pack(2), ops.VersionPlace(version=V0, tree=TREE, packs=[pack(2)]), retire(1))
    world.refuses(retire(2), because="needed")


# --- versions -------------------------------------------------------------------------------------


def test_a_version_is_added_with_its_name(world: World) -> None:
    world.did(add_version(1, name="Läuf/epoch-1"))
    assert world.state_of(V1) == "visible"
    assert world.at("läuf/epoch-1") == Pointer("name", VersionId.parse(V1))


@pytest.mark.parametrize(
    ("op", "because"),
    [
        (add_version(0, name="other", provenance=SECRETS), "there already"),
        (add_version(1, name="V0"), "taken"),
        (add_version(1, packs=[9]), "unknown"),
        (add_version(1, packs=[]), "no packs"),
        (changed(add_version(1), tree=[]), "no tree"),
        (changed(add_version(1), tree=["x"]), "no digest"),
        (add_version(1, name="a\nb"), "control"),
        (add_version(1, name="a\u0085b"), "control"),
        (add_version(1, name="x" * 256), "256 bytes"),
        (add_version(1, name="é" * 128), "256 bytes"),
        (changed(add_version(1), name=""), "0 bytes"),
        (add_version(1, model=""), "0 bytes"),
        (add_version(1, model="a\x00"), "control"),
        (changed(add_version(1), record=msgspec.Raw(b"{}")), "record"),
        (changed(add_version(1), record=msgspec.Raw(b"7")), "record"),
        (add_version(1, step=2**63), "63 bits"),
        (add_version(1, step=-(2**63)), "63 bits"),
        (add_version(1, content=Content("a", 1, 2**64)), "63 bits"),
        (add_version(1, content=Content("a", 2**64, 1)), "63 bits"),
        (add_version(1, message="x" * (4 << 20)), "record"),
    ],
)
def test_a_version_is_not_added(world: World, op: ops.VersionAdd, because: str) -> None:
    world.refuses(op, because=because)


def test_a_name_may_have_255_bytes_and_serve_two_models(world: World) -> None:
    world.did(add_version(1, name="x" * 255), add_version(2, name="v0", model="other"))


def test_a_version_upon_a_retired_pack_is_void(world: World) -> None:
    world.did(add_pack(2), retire(2))
    world.refuses(add_version(1, packs=[2]), because="retired")


@pytest.mark.parametrize("before", [[], [delete()]])
def test_a_visible_or_deleted_version_is_placed(world: World, before: list[ops.Op]) -> None:
    world.did(add_pack(2), *before, ops.VersionPlace(version=V0, tree=TREE, packs=[pack(2)]))


@pytest.mark.parametrize(
    ("fields", "because"),
    [
        ({"version": GONE}, "unknown"),
        ({"version": "x"}, "no version's id"),
        ({"packs": [pack(9)]}, "unknown"),
        ({"packs": []}, "no packs"),
        ({"tree": []}, "no tree"),
        ({"tree": ["y"]}, "no digest"),
    ],
)
def test_a_version_is_not_placed(world: World, fields: dict[str, object], because: str) -> None:
    world.refuses(
        changed(ops.VersionPlace(version=V0, tree=TREE, packs=[pack(1)]), **fields), because=because
    )


def test_a_forgotten_version_is_not_placed(world: World) -> None:
    world.did(delete(), forget(V0))
    world.refuses(ops.VersionPlace(version=V0, tree=TREE, packs=[pack(1)]), because="forgotten")


def test_a_version_is_deleted_restored_and_forgotten(world: World) -> None:
    world.did(delete())
    assert world.state_of(V0) == "deleted"
    world.did(restore())
    assert world.state_of(V0) == "visible"
    world.did(delete(), forget(V0))
    assert world.state_of(V0) == "forgotten"


def test_a_deleted_version_keeps_its_names(world: World) -> None:
    world.did(delete(), forget(V0))
    world.refuses(add_version(1, name="v0"), because="taken")


@pytest.mark.parametrize(
    ("before", "op", "because"),
    [
        ([], delete(GONE), "unknown"),
        ([delete()], delete(), "deleted"),
        ([delete(), forget(V0)], delete(), "forgotten"),
        ([], restore(), "visible"),
        ([delete(), forget(V0)], restore(), "forgotten"),
        ([], restore("zz"), "no version's id"),
        ([], forget(V0), "visible"),
        ([delete()], forget(V0, V0), "forgotten"),
        ([delete()], forget(V0, GONE), "unknown"),
    ],
)
def test_versions_change_state_in_order(world: World, before: list[ops.Op], op: ops.Op, because: str) -> None:
    world.did(*before)
    was = world.state_of(V0)
    world.refuses(op, because=because)
    assert world.state_of(V0) == was


@pytest.mark.parametrize("kind", ["alias", "tag"])
def test_what_an_alias_or_tag_points_at_is_not_deleted(world: World, kind: str) -> None:
    world.did(fixed(kind, "prod"))
    world.refuses(delete(), because="points at")
    world.did(ref_delete("prod", kind=kind), delete())


def test_a_second_name_does_not_hinder_deletion(world: World) -> None:
    world.did(fixed("name", "second"), delete())


# --- annotations ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        {"metrics": {"loss": 1.0, "a": "~nan", "b": "~inf", "c": "~-inf"}},
        {"labels": {"stage": "best"}},
        {"labels": {"stage": None}},
        {"notes": "good"},
        {"details": {"verdict": {"identical": True}}},
        {"objects": {"eval": "ab" * 32}, "packs": [pack(1)]},
    ],
)
def test_a_visible_version_is_annotated(world: World, fields: dict[str, object]) -> None:
    world.did(ops.VersionAnnotate(version=V0, **fields))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fields", "because"),
    [
        ({}, "nothing to add"),
        ({"event": "eval", "why": "x"}, "nothing to add"),
        ({"metrics": {}, "labels": {}, "notes": ""}, "nothing to add"),
        ({"metrics": {"loss": "1.0"}}, "no number"),
        ({"metrics": {"loss": "nan"}}, "no number"),
        ({"details": {}, "objects": {}}, "nothing to add"),
        ({"objects": {"eval": "ab" * 32}}, "objects without packs"),
        ({"notes": "x", "packs": [pack(1)]}, "packs without objects"),
        ({"objects": {"eval": "AB" * 32}, "packs": [pack(1)]}, "no digest"),
        ({"objects": {"eval": "ab" * 32}, "packs": [pack(77)]}, "unknown"),
        ({"version": GONE, "notes": "x"}, "unknown"),
    ],
)
def test_a_version_is_not_annotated(world: World, fields: dict[str, Any], because: str) -> None:
    world.refuses(ops.VersionAnnotate(**{"version": V0, **fields}), because=because)


def test_i7_an_attached_objects_pack_is_needed_until_the_version_is_forgotten(world: World) -> None:
    world.did(add_pack(50))
    world.did(ops.VersionAnnotate(version=V0, objects={"eval": "ab" * 32}, packs=[pack(50)]))
    world.refuses(ops.PackRetire(packs=[pack(50)]), because="needed")
    world.refuses(
        ops.VersionAnnotate(version=V0, objects={"eval": "cd" * 32}, packs=[pack(50)]), because="already has"
    )
    world.did(redact("eval"))
    world.refuses(redact("eval"), because="redacted already")
    world.did(delete(), ops.VersionForget(versions=[V0]), ops.PackRetire(packs=[pack(50)]))


def test_a_deleted_version_is_not_annotated(world: World) -> None:
    world.did(delete())
    world.refuses(ops.VersionAnnotate(version=V0, notes="x"), because="deleted")


def redact(*items: str, version: str = V0) -> ops.VersionRedact:
    return ops.VersionRedact(version=version, items=list(items))


def test_provenance_is_redacted_once(world: World) -> None:
    world.did(redact("environment"), delete(), redact("command"))
    world.refuses(redact("command"), because="redacted already")
    assert world.state.redacted(VersionId.parse(V0)) == {"environment", "command"}


@pytest.mark.parametrize(
    ("op", "because"),
    [
        (redact("weights"), "has no"),
        (redact("environment", "environment"), "redacted already"),
        (redact("environment", version=GONE), "unknown"),
    ],
)
def test_it_is_not_redacted(world: World, op: ops.VersionRedact, because: str) -> None:
    world.refuses(op, because=because)
    assert world.state.redacted(VersionId.parse(V0)) == set()


def test_a_forgotten_version_is_not_redacted(world: World) -> None:
    world.did(delete(), forget(V0))
    world.refuses(redact("environment"), because="forgotten")


# --- names ----------------------------------------------------------------------------------------


def test_i6_an_alias_moves_only_from_where_it_is_expected(world: World) -> None:
    world.did(add_version(1), alias("prod", V0))
    world.refuses(alias("prod", V1), because="expected")
    world.refuses(alias("prod", V1, expect=V1), because="expected")
    world.refuses(alias("new", V1, expect=V0), because="expected")
    world.refuses(alias("new", V1, expect="x"), because="no version's id")
    world.did(alias("PROD", V1, expect=V0))
    assert world.at("prod") == Pointer("alias", VersionId.parse(V1))


@pytest.mark.parametrize("kind", ["tag", "name"])
def test_tags_and_names_never_move(world: World, kind: str) -> None:
    world.did(add_version(1), fixed(kind, "r1"))
    for other in ("alias", "tag", "name"):
        world.refuses(fixed(other, "R1", to=V1), because="'R1'")
        world.refuses(fixed(other, "R1", to=V1, expect=V0), because="'R1'")
    assert world.at("r1") == Pointer(kind, VersionId.parse(V0))


@pytest.mark.parametrize("kind", ["tag", "name"])
def test_a_tag_or_name_expects_nothing_and_takes_no_alias(world: World, kind: str) -> None:
    world.refuses(fixed(kind, "r1", expect=V0), because="no value before")
    world.did(alias("prod", V0))
    world.refuses(fixed(kind, "prod"), because="taken")


@pytest.mark.parametrize("kind", ["alias", "tag", "name"])
def test_a_name_points_at_a_visible_version_of_its_model(world: World, kind: str) -> None:
    world.did(add_version(1), add_version(2, model="other"), delete(V1))
    world.refuses(fixed(kind, "r", to=V1), because="deleted")
    world.refuses(fixed(kind, "r", to=GONE), because="unknown")
    world.refuses(fixed(kind, "r", to=version_of(record(2))), because="another model")
    world.refuses(fixed(kind, "a\tb"), because="control")
    world.did(changed(fixed(kind, "r"), model="M"))


def test_there_is_no_fourth_kind_of_name(world: World) -> None:
    world.refuses(fixed("branch", "r"), because="no kind")


def test_a_deleted_name_is_free_again(world: World) -> None:
    world.did(add_version(1), alias("prod", V0), ref_delete("PROD"), fixed("tag", "prod", to=V1))
    world.did(ref_delete("prod", expect=V1, kind="tag"), alias("prod", V0))


@pytest.mark.parametrize(
    ("op", "because"),
    [
        (ref_delete("prod", expect=V1), "expected"),
        (ref_delete("prod", kind="tag"), "expected"),
        (ref_delete("other"), "expected"),
        (ref_delete("v0", kind="name"), "cannot be deleted"),
        (ref_delete("v0"), "expected"),
        (ref_delete("prod", expect="x"), "no version's id"),
    ],
)
def test_a_name_is_not_deleted(world: World, op: ops.RefDelete, because: str) -> None:
    world.did(alias("prod", V0))
    world.refuses(op, because=because)
    assert world.at("prod") is not None


# --- models ---------------------------------------------------------------------------------------


def test_a_model_is_configured(world: World) -> None:
    world.did(ops.ModelConfigure(model="new", settings={"metric": "loss", "nested": {"a": [1, None]}}))


@pytest.mark.parametrize(("model", "settings"), [("m", {}), ("", {"a": 1}), ("a\x7f", {"a": 1})])
def test_a_model_is_not_configured(world: World, model: str, settings: dict[str, object]) -> None:
    assert world.fold(ops.ModelConfigure(model=model, settings=settings)) is not None


def test_every_op_has_a_rule_and_a_place_in_the_table() -> None:
    assert {kind.__struct_config__.tag for kind in fold._RULES} == ops.KINDS


def test_digits_of_other_scripts_are_no_hex(world: World) -> None:
    world.refuses(delete("\u0660" * 64), because="no version's id")


def test_empty_lists_change_nothing(world: World) -> None:
    world.did(retire(), drop(), forget(), redact())
    assert world.state_of(V0) == "visible"


def test_retiring_a_long_chain_of_packs_looks_at_each_once() -> None:
    """Versions of a run lean on one another; of a thousand packs that go together each walked all."""
    names = [PackName(k.to_bytes(16, "big")) for k in range(1, 501)]
    asked: list[PackName] = []

    class Chain(DictState):
        def packs_upon(self, pack: PackName) -> list[PackName]:
            asked.append(pack)
            at = names.index(pack)
            return names[at + 1 : at + 2]

        def pack_is_named(self, _pack: PackName) -> bool:
            return False

    state, idle = Chain(), set[PackName]()
    assert not any(fold.is_needed(state, name, idle) for name in reversed(names))
    assert not any(fold.is_needed(state, name, idle) for name in names)
    assert len(asked) == len(names)


def test_live_packs_of_one_long_entry_come_in_order() -> None:
    names = [PackName(k.to_bytes(16, "big")) for k in range(3000, 0, -1)]
    packs = {name: (1, 1, tuple(names[max(0, at - 1) : at])) for at, name in reversed([*enumerate(names)])}
    assert [pack.name for pack in in_order(packs)] == names
