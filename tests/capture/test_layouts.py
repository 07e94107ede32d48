"""FORMAT.md names every kind of the capture and every field; what is read again is what was written."""

from __future__ import annotations

import json
import re
from pathlib import Path

import msgspec
import pytest

from stemmata.capturing import collect, read, reading, rows
from stemmata.errors import Redacted

FORMAT = (Path(__file__).parents[2] / "FORMAT.md").read_text()


def fields_of(kind: str) -> str:
    found = re.search(rf"^\| `{kind}` \| (.*) \|$", FORMAT, re.MULTILINE)
    assert found, f"FORMAT.md has no layout of {kind}"
    return found[1]


def test_i10_every_kind_and_field_that_is_written_is_in_the_format(tmp_path: Path) -> None:
    objects = {**collect(tmp_path), **rows.collect({"train": [1, 2]})}
    for kind, data in objects.items():
        told = fields_of(kind)
        if kind not in ("packages", "code_diff"):
            for name in set(json.loads(data)) - {"missing"}:
                assert f"`{name}`" in told, f"{kind}.{name}"


@pytest.mark.parametrize(
    ("kind", "layout"),
    [
        ("command", reading.Command),
        ("environment", reading.Environment),
        ("trainer", reading.Trainer),
        ("data", reading.Data),
        ("seeds", reading.Seeds),
    ],
)
def test_every_field_that_is_read_is_in_the_format(kind: str, layout: type[msgspec.Struct]) -> None:
    told = fields_of(kind)
    for name in layout.__struct_fields__:
        assert name == "missing" or f"`{name}`" in told, f"{kind}.{name}"


def test_an_older_or_unknown_layout_a_redaction_and_a_gap_are_reasons() -> None:
    objects = {
        "command": b'{"argv": ["python", "x.py"], "folder": "/w"}',
        "packages": b'{"a": "1", "b": {"version": "2", "url": "file:///b", "editable": true, "new": 1}}',
        "environment": b'{"cpus": "many"}',
        "code": b"",
    }

    def get(kind: str) -> bytes:
        if kind == "code":
            raise Redacted(item="code", version="0" * 12, at="2026-01-02 03:04 UTC", by="ada", why="")
        return objects[kind]

    found = read(objects, get)
    assert found.command is not None
    assert found.command.argv == ["python", "x.py"]
    assert found.packages is not None
    assert found.packages["a"] == reading.Package("1")
    assert found.packages["b"] == reading.Package("2", url="file:///b", editable=True)
    assert (found.environment, found.code) == (None, None)
    assert {reason.what: reason.why for reason in found.missing} == {
        "seeds": "it was not captured with this version",
        "environment": "this release does not know its layout",
        "code": "it was redacted at 2026-01-02 03:04 UTC",
    }
