"""Environments: what differs, by importance; what was redacted, damaged or never kept is said so."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stemmata.compare.diff import Diff, Side, compare
from stemmata.compare.environment import Item, canonical, environment_changes, importance, items, ordered
from stemmata.compare.source import CommandChange
from stemmata.errors import MissingObject
from stemmata.ids import Digest, VersionId
from stemmata.records import Record, encode_record
from stemmata.trees import Tree, content_of


def packages(**versions: str) -> bytes:
    return json.dumps({name.replace("_", "-"): version for name, version in versions.items()}).encode()


def side(label: str, kept: Mapping[str, bytes], **more: object) -> Side:
    record = Record(
        created_at="2026-01-01T00:00:00.000000Z",
        nonce="0" * 16,
        content=content_of(Tree([])),
        provenance={kind: Digest.of(data).hex for kind, data in kept.items()},
    )
    return Side(
        VersionId.of(encode_record(record)), label, record, {}, Tree([]), lambda _: b"",
        provenance=kept.__getitem__, **more,  # type: ignore[arg-type]
    )  # fmt: skip


def between(a: Mapping[str, bytes], b: Mapping[str, bytes]) -> Diff:
    return compare(side("a", a), side("b", b))


def test_what_computes_comes_first_and_what_tests_last() -> None:
    names = "pytest aiohttp numpy torch RANK python transformers ruff CUDA_VISIBLE_DEVICES "
    names += "nvidia-cuda-runtime-cu12"
    kinds = {"python": "machine", "RANK": "variable", "CUDA_VISIBLE_DEVICES": "variable"}
    found = [item.name for item in ordered(Item(kinds.get(n, "package"), n) for n in names.split())]
    assert found == [
        "torch", "nvidia-cuda-runtime-cu12", "transformers", "numpy", "python", "CUDA_VISIBLE_DEVICES",
        "aiohttp", "pytest", "ruff", "RANK",
    ]  # fmt: skip


@given(st.lists(st.builds(Item, st.sampled_from(["package", "machine", "variable"]), st.text(max_size=12))))
def test_the_order_is_one_of_all_and_does_not_depend_on_the_input(found: list[Item]) -> None:
    assert ordered(found) == ordered(reversed(found))
    assert sorted(found) == sorted(ordered(found))


def test_a_package_is_the_same_however_its_name_is_written() -> None:
    assert canonical("Huggingface_Hub") == canonical("huggingface.hub") == "huggingface-hub"
    assert canonical("nvidia-cudnn-cu12") == canonical("nvidia-cudnn-cu13") == "nvidia-cudnn"
    found = between({"packages": packages(Jinja2="3.1")}, {"packages": packages(jinja2="3.1", torch="2")})
    assert [(c.item.name, c.a, c.b) for c in found.environment.changes] == [("torch", None, "2")]
    assert found.environment.same == 1


def test_releases_that_differ_are_listed_by_importance() -> None:
    a = {"packages": packages(torch="2.12.0", aiohttp="3.1", attrs="1", pytest="8", peft="0.20")}
    b = {"packages": packages(torch="2.13.0", aiohttp="3.2", attrs="1", pytest="9", trl="1.0")}
    found = between(a, b).environment
    assert [(c.item.name, c.a, c.b, c.folded) for c in found.changes] == [
        ("torch", "2.12.0", "2.13.0", False),
        ("peft", "0.20", None, False),
        ("trl", None, "1.0", False),
        ("aiohttp", "3.1", "3.2", True),
        ("pytest", "8", "9", True),
    ]
    assert (found.same, found.alike, dict(found.unknown)) == (1, (), {})


def test_packages_from_elsewhere_and_gpus_are_told_in_words() -> None:
    documents = {
        "packages": b'{"torch": {"version": "2.13.0", "url": "https://x/t.git", "commit": "ab12"}}',
        "environment": b'{"gpus": [{"name": "H100", "memory": 1}], "driver": null, "missing": [{}]}',
    }
    found = {item.name: value for item, value in items(documents).items()}
    assert found == {"torch": "2.13.0 of ab12", "gpus": ["H100"]}


def test_the_machine_and_its_variables() -> None:
    a = {"python": "3.11.6", "gpus": ["A100"] * 2, "variables": {"RANK": "0"}}
    b = {"python": "3.11.6", "gpus": ["A100"] * 8, "variables": {"RANK": "0", "OMP_NUM_THREADS": "1"}}
    found = between(*({"environment": json.dumps(x).encode()} for x in (a, b))).environment
    assert [(c.item, c.a, c.b) for c in found.changes] == [
        (Item("machine", "gpus"), ["A100"] * 2, ["A100"] * 8),
        (Item("variable", "OMP_NUM_THREADS"), None, "1"),
    ]
    assert found.same == 2


def test_what_is_the_very_same_is_not_read() -> None:
    kept = {"packages": packages(torch="2"), "code": b"{}"}
    a, b = side("a", kept), side("b", kept)
    unread = compare(
        Side(a.id, "a", a.record, {}, a.tree, a.read, provenance=dict[str, bytes]().__getitem__),
        Side(b.id, "b", b.record, {}, b.tree, b.read, provenance=dict[str, bytes]().__getitem__),
    )
    assert (unread.environment.alike, unread.code.alike) == (("packages",), ("code",))
    assert not unread.environment
    assert not unread.code


def test_of_what_was_redacted_nothing_is_told_not_even_whether_it_is_the_same() -> None:
    kept = {"packages": packages(torch="2"), "command": json.dumps({"argv": ["x"]}).encode()}
    gone = {"packages": "2026-05-01T00:00:00Z", "command": "2026-05-02T00:00:00Z"}
    found = compare(side("a", kept, redacted=gone), side("b", kept))
    assert dict(found.environment.unknown) == {"packages": "of a redacted on 2026-05-01"}
    assert dict(found.code.unknown) == {"command": "of a redacted on 2026-05-02"}
    assert (found.environment.changes, found.code.command) == ((), None)


@pytest.mark.parametrize("broken", [b"", b"[1]", b"{", b"\xff", b"[" * 100_000, b'{"a":' * 5000])
def test_what_is_no_such_object_is_a_note(broken: bytes) -> None:
    found = between({"packages": broken, "command": broken}, {"packages": b"{}", "command": b"{}"})
    assert found.environment.unknown["packages"] == "cannot be read: it is no JSON object"
    assert found.code.unknown["command"].startswith("cannot be read")


def test_what_is_damaged_or_on_one_side_only_is_said() -> None:
    def lost(kind: str) -> bytes:
        raise MissingObject(digest=kind)

    a, b = side("a", {"packages": b"{}"}), side("b", {"packages": b"{ }", "environment": b"{}"})
    damaged = Side(a.id, "a", a.record, {}, a.tree, a.read, provenance=lost)
    found = compare(damaged, b).environment
    assert found.unknown["packages"] == f"of a cannot be read: {MissingObject.kind}"
    assert found.unknown["environment"] == "kept with b alone"


values = st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.lists(st.integers(), max_size=3)
documents = st.dictionaries(
    st.text(max_size=5), values | st.dictionaries(st.text(max_size=3), values), max_size=5
)


@given(documents, documents)
def test_any_two_environments_compare_and_there_and_back_differ_alike(a: object, b: object) -> None:
    first, second = (items({"environment": json.dumps(x).encode()}) for x in (a, b))
    there, back = environment_changes(first, second, {}), environment_changes(second, first, {})
    assert [(c.item, c.b, c.a) for c in there.changes] == [(c.item, c.a, c.b) for c in back.changes]
    assert not environment_changes(first, first, {})
    json.dumps(there.to_dict())


# --- code ---------------------------------------------------------------------------------------------


def test_commit_branch_and_whether_something_was_uncommitted() -> None:
    a = {"commit": "1" * 40, "branch": "main", "dirty": False, "remote": None}
    b = {"commit": "2" * 40, "branch": "main", "dirty": True, "remote": "x"}
    found = between(*({"code": json.dumps(x).encode()} for x in (a, b))).code
    assert [(c.key, c.a, c.b) for c in found.git.changed] == [
        ("commit", "1" * 40, "2" * 40),
        ("dirty", False, True),
    ]
    assert found.git.added == {"remote": "x"}


def test_the_command_word_by_word() -> None:
    a = {"argv": ["python", "train.py", "--lr", "1e-4"], "folder": "/a"}
    b = {"argv": ["python", "train.py", "--lr", "2e-4", "--seed", "1"], "folder": "/b"}
    found = between(*({"command": json.dumps(x).encode()} for x in (a, b))).code
    assert found.command is not None
    assert found.command.words() == [
        ("equal", ("python", "train.py", "--lr"), ("python", "train.py", "--lr")),
        ("replace", ("1e-4",), ("2e-4", "--seed", "1")),
    ]
    assert found.folder == ("/a", "/b")
    many = CommandChange(("x",) * 5000, ("y",) * 5000)
    assert [what for what, _, _ in many.words()] == ["replace"]


def test_other_texts_that_were_kept_are_compared_line_by_line() -> None:
    found = between(
        {"script": b"import torch\nlr = 1\n", "weights.note": b"\0\1"},
        {"script": b"import torch\nlr = 2\n", "weights.note": b"\0\2", "seeds": b"{}"},
    ).code
    script, note = found.texts
    assert (script.name, script.lines[1:]) == ("script", (" import torch", "-lr = 1", "+lr = 2"))
    assert (note.lines, note.note) == ((), "not text: compared as bytes")
    json.dumps(found.to_dict())
    assert importance(Item("package", "torch")) == 0
