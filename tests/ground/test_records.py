"""Records: bytes are the identity; numbers that JSON lacks survive."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta, timezone

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stemmata.errors import DamagedRecord
from stemmata.ids import VersionId
from stemmata.records import (
    MAX_RECORD_BYTES,
    Base,
    Content,
    Record,
    Run,
    Stored,
    decode_outline,
    decode_record,
    encode_record,
    flatten,
    fresh_nonce,
    load_metrics,
    load_value,
    store_number,
    store_value,
    stored_values,
    timestamp,
)

CONTENT = Content(digest="0" * 64, files=1, bytes=2)


def record(**fields: object) -> Record:
    return Record(
        created_at="2026-01-01T00:00:00.000000Z",
        nonce="0" * 16,
        content=CONTENT,
        **fields,  # type: ignore[arg-type]
    )


def same(a: object, b: object) -> bool:
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, float) and isinstance(b, float) and math.isnan(a):
        return math.isnan(b)
    return type(a) is type(b) and a == b


SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.text().map(lambda s: "~" + s)
)


@given(st.one_of(SCALARS, st.lists(SCALARS, max_size=5)))
def test_values_come_back_through_json_just_as_they_were(value: object) -> None:
    stored = store_value(value)
    through = msgspec.json.decode(msgspec.json.encode(stored))
    assert same(load_value(through), value)


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        (math.nan, "~nan"),
        (math.inf, "~inf"),
        (-math.inf, "~-inf"),
        (2**63, "~int:9223372036854775808"),
        (-(2**70), f"~int:{-(2**70)}"),
        (2**63 - 1, 2**63 - 1),
        ("~nan", "~~nan"),
        ("~", "~~"),
        ((1, "a"), [1, "a"]),
        ({"b", "a"}, ["a", "b"]),
        ([[1]], ["[1]"]),
    ],
)
def test_the_tagged_forms_of_the_format(value: object, stored: object) -> None:
    assert store_value(value) == stored


def test_text_that_is_no_unicode_is_stored_as_what_json_can_hold() -> None:
    stored = store_value("a\ud800b")
    assert msgspec.json.decode(msgspec.json.encode(stored)) == "a?b"


def test_an_unreadable_tag_of_a_hostile_record_is_text_not_a_crash() -> None:
    assert load_value("~int:x") == "~int:x"
    assert load_value("~int:" + "9" * 10_000) == "~int:" + "9" * 10_000


def test_metrics_with_nan_and_infinities_survive_a_record() -> None:
    values = {"a": math.nan, "b": math.inf, "c": -math.inf, "d": -0.0, "e": 5e-324}
    made = record(metrics={k: store_number(v) for k, v in values.items()})
    again = load_metrics(decode_record(encode_record(made)).metrics)
    assert all(same(again[k], v) for k, v in values.items())
    assert math.copysign(1, again["d"]) == -1
    assert math.isnan(load_metrics({"x": "~what"})["x"])


def test_a_record_comes_back_whole_and_is_held_against_its_id() -> None:
    made = record(
        author="a", message="m", parents=["1" * 64], run=Run("r", "n"), step=3, epoch=1.5, event="epoch",
        kind="adapter", base=Base("gpt2", files=[("f", 1, "2" * 64)]), config={"lora.r": 8, "l": ["q", None]},
        provenance={"command": "3" * 64},
    )  # fmt: skip
    data = encode_record(made)
    assert decode_record(data, VersionId.of(data)) == made
    with pytest.raises(DamagedRecord, match="digest"):
        decode_record(data + b" ", VersionId.of(data))


def test_i9_unknown_fields_of_a_newer_record_are_skipped() -> None:
    data = encode_record(record(message="hi"))[:-1] + b',"colour":{"of":["later"]}}'
    assert decode_record(data).message == "hi"


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"{}", b"\xff", b'{"created_at":1}', b"[" * 100_000, b" " * (MAX_RECORD_BYTES + 1)]
)
def test_what_is_no_record_is_damage(data: bytes) -> None:
    with pytest.raises(DamagedRecord):
        decode_record(data)


@given(st.datetimes(timezones=st.just(UTC)), st.datetimes(timezones=st.just(timezone(timedelta(0)))))
def test_times_as_text_sort_in_times_order(a: datetime, b: datetime) -> None:
    assert (timestamp(a) < timestamp(b)) == (a < b)
    assert len(timestamp(a)) == len("2026-11-20T11:42:00.123456Z")


def test_a_time_without_a_zone_is_refused_and_others_become_utc() -> None:
    with pytest.raises(ValueError, match="zone"):
        timestamp(datetime(2026, 1, 1))
    east = datetime(2026, 1, 1, 2, tzinfo=timezone(timedelta(hours=2)))
    assert timestamp(east) == "2026-01-01T00:00:00.000000Z"


def test_nonces_are_16_hex_digits_and_fresh() -> None:
    assert len(fresh_nonce()) == 16
    assert fresh_nonce() != fresh_nonce()


def test_nested_configs_become_dotted_keys_and_lists_of_scalars_stay() -> None:
    into: dict[str, Stored] = {}
    flatten("", {"lora": {"r": 8, "target_modules": ["q", "v"]}, 3: math.inf, "empty": {}}, into)
    assert into == {"lora.r": 8, "lora.target_modules": ["q", "v"], "3": "~inf"}


def test_a_config_that_never_ends_is_cut_not_followed() -> None:
    deep: dict[str, object] = {}
    here = deep
    for _ in range(3000):
        nested: dict[str, object] = {}
        here["x"] = nested
        here = nested
    into: dict[str, Stored] = {}
    flatten("", deep, into)
    assert list(into) == [".".join("x" * 8)]
    assert len(str(into)) < 10_000


WHOLE = b'{"created_at":"t","nonce":"n","content":{"digest":"d","files":1,"bytes":2}%b}'


@pytest.mark.parametrize(
    "rest",
    [
        b"",
        b',"metrics":{"a":1.5,"b":"~nan"},"config":{"a":[1,"x",null]},"data":{"rows":2},"later":[{}]',
        b',"metrics":{"a":1}',
        b', "config" : { "a" : 1 } ',
        b',"config":{"a":1},"config":{"a":2}',
        b',"config":{"a":{}},"config":{"a":2}',
        b',"config":{"a":1},"\\u0063onfig":{"a":2}',
        b',"\\u0064ata":[],"data":{"a":2}',
        b',"config":{"a":{}}',
        b',"config":[]',
        b',"config":null',
        b',"data":{"a":"\xff"}',
        b',"data":{"a":1e999}',
        b',"data":{"a":[[1]]}',
        b',"message":"\\"config\\":[]"',
        b',"step":1.5',
    ],
)
def test_an_outline_is_as_strict_as_the_record(rest: bytes) -> None:
    data = WHOLE % rest
    try:
        record = decode_record(data)
    except DamagedRecord as error:
        with pytest.raises(DamagedRecord, match=re.escape(str(error))):
            decode_outline(data)
        return
    outline = decode_outline(data)
    assert (stored_values(outline.config), stored_values(outline.data)) == (record.config, record.data)
    others = {*Record.__struct_fields__} - {"config", "data"}
    assert all(getattr(outline, name) == getattr(record, name) for name in others)
