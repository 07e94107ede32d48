"""What the fold leaves in the tables: columns, facts and history."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterator

import msgspec
import pytest

from ledger import TREE, add_pack, add_version, alias, fold_ops, pack, record, txn, version_of
from stemmata.catalog.asking import every_record
from stemmata.catalog.facts import NAN, fact_of, metric_of
from stemmata.catalog.schema import SCHEMA
from stemmata.catalog.state import SqliteState
from stemmata.ids import Digest
from stemmata.log import ops
from stemmata.log.entries import Position
from stemmata.records import Base, Run, store_value

V0 = version_of(record(0))
AT = "2026-03-01T00:00:00.000000Z"


class Tables:
    def __init__(self) -> None:
        self.connection = sqlite3.connect(":memory:", isolation_level=None)
        self.connection.executescript(SCHEMA)
        self.connection.execute("BEGIN")
        self.state = SqliteState(self.connection)
        self.here = Position(0, Digest.of(b"genesis"), "")

    def fold(self, *changes: ops.Op) -> None:
        self.here, reason = fold_ops(self.state, self.here, *changes)
        assert reason is None, reason

    def rows(self, sql: str) -> list[tuple]:  # type: ignore[type-arg]
        return self.connection.execute(sql).fetchall()


@pytest.fixture
def tables() -> Iterator[Tables]:
    made = Tables()
    made.fold(add_pack(1))
    yield made
    made.connection.close()


@pytest.mark.parametrize(
    ("value", "fact"),
    [
        (None, (None, None)),
        (True, (1.0, "true")),
        (False, (0.0, "false")),
        (3, (3.0, None)),
        (2**53, (2.0**53, None)),
        (2**53 + 1, (2**53 + 1, None)),
        (0.25, (0.25, None)),
        (math.inf, (math.inf, None)),
        (-math.inf, (-math.inf, None)),
        (math.nan, (None, NAN)),
        ("bfloat16", (None, "bfloat16")),
        ("~home", (None, "~home")),
        ("~nan", (None, "~nan")),
        (2**80, (float(2**80), str(2**80))),
        (["q_proj", 8], (None, '["q_proj",8]')),
        ([], (None, "[]")),
    ],
)
def test_a_value_becomes_a_fact(value: object, fact: tuple[float | None, str | None]) -> None:
    assert fact_of(store_value(value)) == fact


@pytest.mark.parametrize("value", ["~int:", "~int:x", "~int:" + "9" * 10_000])
def test_hostile_numbers_are_kept_as_text(value: str) -> None:
    num, text = fact_of(value)
    assert num is None
    assert text is not None


def test_an_integer_beyond_every_float_is_kept_as_text() -> None:
    assert fact_of("~int:" + "9" * 400) == (None, "~int:" + "9" * 400)


def test_a_metric_that_is_no_number_counts_as_nan() -> None:
    assert metric_of("high") == (None, NAN)
    assert metric_of("~inf") == (math.inf, None)
    assert metric_of(f"~int:{2**53 + 1}") == (2.0**53, None)


def test_a_version_row(tables: Tables) -> None:
    said = {"run": Run("id1", "Run"), "step": 7, "epoch": 1.5, "message": "hi", "author": "a"}
    tables.fold(add_version(0, name="Run/1", model="Model", **said))
    raw = record(0, **said)
    assert tables.rows("SELECT * FROM versions") == [
        (
            *(1, bytes.fromhex(version_of(raw)), "model", "run/1", "Run/1", 2, AT, "tester", txn(2)),
            *("visible", 2, msgspec.json.encode(TREE).decode(), AT, "Run", "id1", 7, 1.5),
            *("manual", "files", "a", "hi"),
            *(10, 2, "cd" * 32, b"{}", 0, 0, None, bytes.fromhex(pack(1)), None, None),
        )
    ]
    assert list(every_record(tables.connection)) == [(1, raw)]
    assert tables.rows("SELECT * FROM models") == [("model", "Model", 2)]
    assert tables.rows("SELECT * FROM version_packs") == [(1, bytes.fromhex(pack(1)))]
    assert tables.rows("SELECT model, key, kind, name, n FROM refs") == [
        ("model", "run/1", "name", "Run/1", 2)
    ]


def test_a_base_that_many_have_is_named_once(tables: Tables) -> None:
    for place, base in enumerate(("gpt2", "other", "gpt2", "")):
        tables.fold(add_version(place, name=f"v{place}", base=Base(name_or_path=base)))
    assert tables.rows(
        "SELECT v.name, b.name FROM versions v LEFT JOIN base_names b ON b.id = v.base_name ORDER BY v.seq"
    ) == [("v0", "gpt2"), ("v1", "other"), ("v2", "gpt2"), ("v3", None)]
    assert tables.rows("SELECT COUNT(*) FROM base_names") == [(2,)]


def test_parents_keep_their_order(tables: Tables) -> None:
    parents = ["bb" * 32, "no id", "aa" * 32, "bb" * 32]
    tables.fold(add_version(0, parents=parents))
    assert tables.rows("SELECT parent, position FROM parents ORDER BY position") == [
        (b"\xbb" * 32, 0),
        (b"\xaa" * 32, 2),
        (b"\xbb" * 32, 3),
    ]


def test_facts_of_a_record(tables: Tables) -> None:
    tables.fold(
        add_version(
            0, metrics={"loss": "~nan", "acc": 0.5}, config={"lora.r": 8, "a": ["x"]}, data={"rows": 12}
        )
    )
    assert tables.rows(
        "SELECT k.space, k.key, k.model, f.num, f.text, f.n, f.at"
        " FROM facts f JOIN keys k ON k.id = f.key ORDER BY k.key"
    ) == [("metric", "acc", "m", 0.5, None, 2, None), ("metric", "loss", "m", None, NAN, 2, None)]
    assert tables.rows(
        "SELECT s.space, k.key, k.model, f.num, f.text, v.seq FROM shared s JOIN shared_facts f"
        " ON f.shared = s.id JOIN keys k ON k.id = f.key AND k.space = s.space"
        " JOIN versions v ON s.id IN (v.config, v.data) ORDER BY k.key"
    ) == [
        ("config", "a", "", None, '["x"]', 1),
        ("config", "lora.r", "", 8.0, None, 1),
        ("data", "rows", "", 12.0, None, 1),
    ]


def test_versions_of_the_same_config_share_its_facts(tables: Tables) -> None:
    for nonce, rank in enumerate([8, 8, 16, 8]):
        tables.fold(add_version(nonce, config={"lora.r": rank}))
    tables.fold(add_version(4, data={"lora.r": 8}))
    found = tables.rows("SELECT config, data FROM versions ORDER BY seq")
    assert found == [(1, 0), (1, 0), (2, 0), (1, 0), (0, 3)]
    assert len(tables.rows("SELECT * FROM shared_facts")) == 3


def test_annotations_replace_facts_and_keep_their_history(tables: Tables) -> None:
    tables.fold(add_version(0, metrics={"loss": 2.0}))
    v0 = version_of(record(0, metrics={"loss": 2.0}))
    tables.fold(ops.VersionAnnotate(version=v0, metrics={"loss": 1.0}, labels={"stage": "good"}))
    tables.fold(
        ops.VersionAnnotate(version=v0, metrics={"loss": "~inf"}, labels={"stage": None}, notes="n", why="w")
    )
    named = "SELECT k.space, k.key, {} FROM {} f JOIN keys k ON k.id = f.key"
    assert tables.rows(named.format("num, text, n, at", "facts")) == [
        ("metric", "loss", math.inf, None, 4, AT)
    ]
    moves = tables.rows(named.format("num, text, removed, n, at", "fact_moves") + " ORDER BY f.id")
    assert moves == [
        ("metric", "loss", 2.0, None, 0, 2, None),
        ("metric", "loss", 1.0, None, 0, 3, AT),
        ("label", "stage", None, "good", 0, 3, AT),
        ("label", "stage", None, None, 1, 4, AT),
    ]
    assert tables.rows("SELECT n, at, by, metrics, labels, notes, event, why FROM annotations") == [
        (3, AT, "tester", '{"loss":1.0}', '{"stage":"good"}', "", "", ""),
        (4, AT, "tester", '{"loss":"~inf"}', '{"stage":null}', "n", "", "w"),
    ]


def test_attachments_are_kept_with_the_annotation(tables: Tables) -> None:
    tables.fold(add_version(0))
    op = ops.VersionAnnotate(version=V0, details={"a": [1]}, objects={"eval": "ab" * 32}, packs=[pack(1)])
    tables.fold(op)
    found = tables.rows("SELECT details, objects FROM annotations")
    assert found == [('{"a":[1]}', '{"eval":"' + "ab" * 32 + '"}')]


def test_every_move_of_a_name_is_kept(tables: Tables) -> None:
    tables.fold(add_version(0), add_version(1))
    tables.fold(alias("prod", V0))
    evidence: dict[str, object] = {"gate": {"loss": [1, None]}}
    v1 = version_of(record(1))
    tables.fold(msgspec.structs.replace(alias("Prod", v1, expect=V0), why="better", evidence=evidence))
    tables.fold(ops.RefDelete(model="m", kind="alias", name="prod", expect=v1, why="gone"))
    found = tables.rows(
        "SELECT n, name, by, target, why, evidence FROM ref_moves WHERE key = 'prod' ORDER BY n"
    )
    assert found == [
        (3, "prod", "tester", bytes.fromhex(V0), "", "{}"),
        (4, "Prod", "tester", bytes.fromhex(v1), "better", '{"gate":{"loss":[1,null]}}'),
        (5, "prod", "tester", None, "gone", "{}"),
    ]
    assert tables.rows("SELECT * FROM refs WHERE key = 'prod'") == []


def test_states_are_kept_with_their_times(tables: Tables) -> None:
    tables.fold(add_version(0))
    tables.fold(ops.VersionDelete(version=V0))
    tables.fold(ops.VersionForget(versions=[V0]))
    assert tables.rows("SELECT version, n, at, state FROM version_states") == [
        (1, 3, AT, "deleted"),
        (1, 4, AT, "forgotten"),
    ]
    assert tables.rows("SELECT state, state_n FROM versions") == [("forgotten", 4)]
    assert tables.rows("SELECT * FROM version_packs") == []


def test_settings_are_replaced_and_removed(tables: Tables) -> None:
    tables.fold(ops.ModelConfigure(model="M", settings={"metric": "loss", "keep": [1]}))
    tables.fold(ops.ModelConfigure(model="m", settings={"metric": None, "direction": "min"}))
    found = tables.rows("SELECT model, key, value FROM settings ORDER BY key")
    assert found == [("m", "direction", '"min"'), ("m", "keep", "[1]")]
    assert tables.rows("SELECT * FROM models") == [("m", "M", 2)]


def test_a_dropped_pack_is_known_to_hold_nothing(tables: Tables) -> None:
    raw = bytes.fromhex(pack(1))
    tables.connection.execute("INSERT INTO objects VALUES (?, ?)", (b"d" * 32, raw))
    tables.fold(ops.PackRetire(packs=[pack(1)]), ops.PackDrop(packs=[pack(1)]))
    assert tables.rows("SELECT * FROM objects") == []
