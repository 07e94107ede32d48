"""One entry's bytes: the seal, the chain, and the order of the questions (FORMAT.md, section 3)."""

from __future__ import annotations

import hashlib

import msgspec
import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from faults import Damage, damaged
from ledger import Ledger, add_pack, add_version, record, version_of
from stemmata.errors import DamagedLog, NewerFormat
from stemmata.ids import Digest
from stemmata.log import entries
from stemmata.log.entries import (
    Entry,
    Position,
    Void,
    encode_entry,
    link_of,
    log_key,
    read_entry,
    seal,
    unseal,
)
from stemmata.log.ops import ModelConfigure, VersionAdd

FIRST = Position(0, Digest.of(b"genesis"), "")
AT = "2026-11-20T11:42:00.123456Z"
TXN = "0f" * 16


def sound(**changed: object) -> bytes:
    body = {"n": 1, "format": 1, "txn": TXN, "prev": FIRST.hash.hex, "at": AT, "by": "a@b", "ops": []}
    return seal(msgspec.json.encode({k: v for k, v in {**body, **changed}.items() if v is not msgspec.UNSET}))


def read(data: bytes, n: int = 1) -> Entry | Void:
    return read_entry(n, data, FIRST)


def test_a_sealed_text_is_the_body_and_its_own_hash() -> None:
    assert seal(b"{}") == b"{}\n" + blake3(b"{}").hexdigest().encode() + b"\n"
    assert unseal(seal(b"{}")) == b"{}"


def test_an_entry_is_written_as_the_format_says() -> None:
    data = encode_entry(FIRST, [ModelConfigure(model="m", settings={"a": 1})], txn=TXN, at=AT, by="a@b")
    assert unseal(data) == (
        b'{"n":1,"format":1,"txn":"' + TXN.encode() + b'","prev":"' + FIRST.hash.hex.encode() + b'","at":"'
        + AT.encode() + b'","by":"a@b","ops":[{"op":"model.configure","model":"m","settings":{"a":1}}]}'
    )  # fmt: skip
    assert isinstance(read(data), Entry)
    assert log_key(1) == "log/00000000000000000001.json"


def test_a_record_is_embedded_verbatim() -> None:
    raw = b'{ "created_at":"x",  "nonce":"1","content":{"digest":"d","files":1,"bytes":1},"\xc3\xa9":[1 ,2]}'
    op = VersionAdd(model="m", name="n", record=msgspec.Raw(raw), tree=["a"], packs=["b"])
    entry = read(encode_entry(FIRST, [op], txn=TXN, at=AT, by=""))
    assert isinstance(entry, Entry)
    found = entry.ops[0]
    assert isinstance(found, VersionAdd)
    assert bytes(found.record) == raw


@given(st.sampled_from([d for d in Damage if d is not Damage.GONE]), st.integers(0, 5000))
def test_i4_one_byte_of_damage_anywhere_is_found(how: Damage, at: int) -> None:
    data = encode_entry(FIRST, [add_pack(1), add_version()], txn=TXN, at=AT, by="ä")
    bad = damaged(data, how, at)
    assert bad is not None
    with pytest.raises(DamagedLog):
        read(bad)


def test_too_long_is_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    data = sound()
    monkeypatch.setattr(entries, "MAX_ENTRY_BYTES", len(data))
    assert isinstance(read(data), Entry)
    monkeypatch.setattr(entries, "MAX_ENTRY_BYTES", len(data) - 1)
    with pytest.raises(DamagedLog, match="longer"):
        read(data)
    with pytest.raises(ValueError, match="may hold"):
        encode_entry(FIRST, [], txn=TXN, at=AT, by="a@b" * 100)


@pytest.mark.parametrize("missing", ["n", "format", "txn", "prev", "at", "by", "ops"])
def test_a_missing_field_is_void(missing: str) -> None:
    found = read(sound(**{missing: msgspec.UNSET}))
    assert isinstance(found, Void)
    assert found.at is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"n": "1"},
        {"n": True},
        {"format": 0},
        {"format": None},
        {"txn": "0F" * 16},
        {"txn": "0f" * 15},
        {"txn": "0f" * 16 + "\n"},
        {"prev": 7},
        {"prev": "zz" * 32},
        {"at": "2026-11-20T11:42:00Z"},
        {"at": "2026-13-20T11:42:00.123456Z"},
        {"at": "2026-11-20 11:42:00.123456Z"},
        {"at": "2026-11-20T11:42:00.123456+00:00"},
        {"by": None},
        {"ops": {}},
        {"ops": None},
    ],
)
def test_an_ill_typed_field_is_void(wrong: dict[str, object]) -> None:
    assert isinstance(read(sound(**wrong)), Void)


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"null", b"{", b'{"n":1}x', b'{"a":"\xff"}', b'{"a":"\\ud800"}', b"\xef\xbb\xbf{}"]
)
def test_a_body_that_is_no_json_object_is_void(body: bytes) -> None:
    assert isinstance(read(seal(body)), Void)


def test_nesting_is_bounded_the_same_way_everywhere() -> None:
    def nested(depth: int) -> bytes:
        # The entry, its list of ops, the op and its settings take four levels.
        value: object = 1
        for _ in range(depth - 4):
            value = [value]
        return sound(ops=[{"op": "model.configure", "model": "m", "settings": {"a": value}}])

    assert isinstance(read(nested(entries.MAX_DEPTH)), Entry)
    found = read(nested(entries.MAX_DEPTH + 1))
    assert isinstance(found, Void)
    assert "nested" in found.reason
    assert isinstance(read(seal(b"[" * 1_000_000)), Void)


def test_brackets_inside_strings_are_no_nesting() -> None:
    text = '[{"\\' * 100
    op = {"op": "model.configure", "model": "m", "settings": {"a": text}}
    assert isinstance(read(sound(ops=[op])), Entry)


def test_an_unknown_field_of_an_entry_is_skipped() -> None:
    assert isinstance(read(sound(later="x")), Entry)


@pytest.mark.parametrize(("n", "changed"), [(1, {"n": 2}), (1, {"n": 0}), (2, {"n": 2}), (2, {"n": 1})])
def test_another_number_is_damage(n: int, changed: dict[str, object]) -> None:
    with pytest.raises(DamagedLog, match="calls itself"):
        read(sound(**changed), n)


def test_another_prev_is_damage() -> None:
    with pytest.raises(DamagedLog, match="does not follow"):
        read(sound(prev="00" * 32))


def test_i9_a_newer_format_is_refused() -> None:
    with pytest.raises(NewerFormat, match="format 2"):
        read(sound(format=2, later=[[{}]], ops=[{"op": "who.knows"}]))


@pytest.mark.parametrize("place", [0, 1])
def test_i9_an_unknown_op_is_a_newer_format_wherever_it_stands(place: int) -> None:
    listed: list[object] = [{"op": "pack.add"}]
    listed.insert(place, {"op": "who.knows", "x": 1})
    with pytest.raises(NewerFormat, match=r"who\.knows"):
        read(sound(ops=listed))


def test_damage_is_judged_before_the_format() -> None:
    with pytest.raises(DamagedLog):
        read(sound(format=2, prev="00" * 32))


@pytest.mark.parametrize(
    "op",
    [
        {},
        1,
        {"op": 1},
        {"op": "version.restore"},
        {"op": "version.restore", "version": 1},
        {"op": "version.restore", "version": "a", "more": 1},
        {"op": "version.restore", "version": "a", "origin": None},
        {"op": "version.restore", "version": "a", "origin": {"repository": "r"}},
        {"op": "version.annotate", "version": "a", "metrics": {"m": True}},
        {"op": "version.annotate", "version": "a", "metrics": {"m": None}},
        {"op": "version.annotate", "version": "a", "labels": {"m": 1}},
        {"op": "pack.add", "pack": "a", "size": 1.5, "digest": "b"},
        {"op": "ref.set", "model": "m", "kind": "alias", "name": "n", "to": None},
    ],
)
def test_an_op_with_a_wrong_field_makes_the_entry_void(op: object) -> None:
    found = read(sound(ops=[{"op": "version.restore", "version": "b"}, op]))
    assert isinstance(found, Void)
    assert found.at == AT


def test_an_origin_is_kept() -> None:
    origin = {"repository": "r", "txn": "t", "at": AT, "by": "x"}
    entry = read(sound(ops=[{"op": "version.restore", "version": "a", "origin": origin}]))
    assert isinstance(entry, Entry)
    assert msgspec.to_builtins(entry.ops[0])["origin"] == origin


def test_the_link_is_what_an_entry_says_it_follows() -> None:
    assert link_of(sound()) == FIRST.hash
    assert link_of(sound(prev="x")) is None
    assert link_of(sound()[:-1]) is None
    assert link_of(seal(b"[]")) is None


def test_effective_time_never_runs_backwards() -> None:
    ledger = Ledger()
    late = ledger.append_body(at="2030-01-01T00:00:00.000000Z")
    assert late.effective.startswith("2030")
    assert ledger.append_body(at="2029-01-01T00:00:00.000000Z").effective == late.effective
    assert ledger.append_bytes(seal(msgspec.json.encode(ledger.body(by=None)))).effective == late.effective
    assert ledger.append_body(at="2031-01-01T00:00:00.000000Z").effective.startswith("2031")
    # An entry that is void for its ops has a time of its own all the same.
    voided = ledger.append_body(at="2032-01-01T00:00:00.000000Z", ops=[{}])
    assert voided.effective.startswith("2032")


def test_the_chain_begins_at_the_bytes_of_the_identity() -> None:
    ledger = Ledger()
    assert ledger.here.hash.hex == blake3(ledger.storage.get("stemmata.json")).hexdigest()
    assert ledger.here.hash.hex != hashlib.sha256(ledger.storage.get("stemmata.json")).hexdigest()


def test_an_id_is_the_hash_of_the_bytes_as_written() -> None:
    assert version_of(record(1)) == blake3(record(1)).hexdigest()
