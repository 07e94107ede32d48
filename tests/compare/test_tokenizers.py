"""Tokenizers: tokens, special ones, pipeline and templates that differ; hostile and huge files are notes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from blake3 import blake3

from stemmata.compare import tokenizerfiles, tokenizers
from stemmata.compare.tokenizers import Token, TokenizerDiff, compare_tokenizers
from stemmata.errors import MissingObject
from stemmata.trees import Segment, Tree, TreeFile

Files = Mapping[str, bytes]


def tree(files: Files) -> Tree:
    made = []
    for path, data in sorted(files.items()):
        digest = blake3(data).hexdigest()
        made.append(TreeFile(path, len(data), digest, [Segment(len(data), [digest])]))
    return Tree(made)


def between(a: Files, b: Files) -> TokenizerDiff:
    return compare_tokenizers(tree(a), tree(b), a.__getitem__, b.__getitem__)


def whole(vocabulary: Any, *, added: list[tuple[int, str]] | None = None, **parts: Any) -> bytes:
    model = {"type": "BPE", "vocab": vocabulary, **parts.pop("model", {})}
    found = {
        "version": "1.0",
        "added_tokens": [{"id": i, "content": c} for i, c in added or []],
        "model": model,
    }
    return json.dumps({**found, **parts}).encode()


def test_added_removed_and_renumbered_tokens() -> None:
    found = between(
        {"tokenizer.json": whole({"a": 0, "b": 1, "c": 2})},
        {"tokenizer.json": whole({"a": 0, "c": 1}, added=[(2, "<|user|>"), (3, "\u202e\x1b[31m")])},
    )
    assert (found.sizes, found.counts) == ((3, 4), (2, 1, 1))
    assert found.added == (Token("<|user|>", 2), Token("\u202e\x1b[31m", 3))
    assert found.removed == (Token("b", 1),)
    assert found.renumbered == ((Token("c", 2), 1),)
    assert json.loads(json.dumps(found.to_dict()))["counts"] == {"added": 2, "removed": 1, "renumbered": 1}


def test_a_unigram_vocabulary_is_numbered_by_its_places() -> None:
    found = between(
        {"tokenizer.json": whole([["<unk>", 0.0], ["▁a", -1.5]])},
        {"tokenizer.json": whole([["<unk>", 0.0], ["▁b", -2], ["▁a", -1.5]])},
    )
    assert (found.added, found.renumbered) == ((Token("▁b", 1),), ((Token("▁a", 1), 2),))


def test_only_so_many_are_listed_and_all_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizers, "MOST", 3)
    found = between(
        {"tokenizer.json": whole({"x": 0})}, {"tokenizer.json": whole({str(n): n for n in range(10)})}
    )
    assert ([t.id for t in found.added], found.counts) == ([0, 1, 2], (10, 1, 0))


def test_older_files_are_read_where_there_is_no_tokenizer_json() -> None:
    config = {"added_tokens_decoder": {"3": {"content": "<new>"}}}
    found = between(
        {"vocab.txt": b"[PAD]\r\na\nb\n", "tokenizer_config.json": b"{}"},
        {"vocab.txt": b"[PAD]\na\nc\n", "tokenizer_config.json": json.dumps(config).encode()},
    )
    assert (found.sizes, found.removed) == ((3, 4), (Token("b", 2),))
    assert found.added == (Token("c", 2), Token("<new>", 3))
    merged = between(
        {"vocab.json": b'{"a":0}', "merges.txt": b"a b\n"}, {"vocab.json": b'{"a":0}', "merges.txt": b"b a\n"}
    )
    assert merged.notes == ("the merges differ: the same text may be cut into other tokens",)
    assert merged.counts == (0, 0, 0)


def test_special_tokens_settings_and_templates() -> None:
    a = {
        "tokenizer_config.json": json.dumps(
            {
                "pad_token": None,
                "eos_token": {"content": "</s>"},
                "model_max_length": 512,
                "chat_template": "x\ny",
            }
        ).encode(),
    }
    b = {
        "tokenizer_config.json": json.dumps(
            {
                "pad_token": "<pad>",
                "eos_token": "</s>",
                "extra_special_tokens": ["<a>"],
                "model_max_length": 1024,
            }
        ).encode(),
        "chat_template.jinja": b"x\nz",
        "additional_chat_templates/rag.jinja": b"{{ documents }}",
    }
    found = between(a, b)
    assert found.special.added == {"pad_token": "<pad>", "extra_special_tokens": ["<a>"]}
    assert [(c.key, c.a, c.b) for c in found.settings.changed] == [("model_max_length", 512, 1024)]
    assert [(t.name, t.lines[1:]) for t in found.templates] == [
        ("default", (" x", "-y", "+z")),
        ("rag", ("+{{ documents }}",)),
    ]
    assert found.sizes is None


def test_the_pipeline_tells_types_and_their_settings() -> None:
    lower = {
        "type": "Sequence",
        "normalizers": [{"type": "NFD"}, {"type": "BertNormalizer", "lowercase": True}],
    }
    found = between(
        {"tokenizer.json": whole({}, normalizer=lower, pre_tokenizer={"type": "Whitespace"})},
        {"tokenizer.json": whole({}, normalizer={"type": "NFC"}, pre_tokenizer={"type": "Whitespace"})},
    )
    assert [(c.key, c.a, c.b) for c in found.pipeline.changed] == [
        ("normalizer", "Sequence[NFD, BertNormalizer(lowercase=true)]", "NFC")
    ]


def test_the_same_tokenizer_is_not_read() -> None:
    def read(path: str) -> bytes:
        raise AssertionError(path)

    both = tree({"tokenizer.json": whole({"a": 0}), "model.safetensors": b""})
    found = compare_tokenizers(both, both, read, read)
    assert found.same
    assert not found
    # Of settings that differ the vocabulary is not read.
    config = b'{"eos_token":"x"}'
    a = {"tokenizer.json": b"no JSON", "tokenizer_config.json": b"{}"}
    assert between(a, {**a, "tokenizer_config.json": config}).special.added == {"eos_token": "x"}


def test_who_has_none_is_said() -> None:
    found = between({"config.json": b"{}"}, {"tok/tokenizer.json": whole({})})
    assert found.notes == ("only b has a tokenizer",)
    assert not between({}, {})
    assert between({"tokenizer.model": b"1"}, {"tokenizer.model": b"2"}).notes == (
        "tokenizer.model differs: compared as bytes",
    )


def test_the_tokenizer_nearest_to_the_top_is_compared() -> None:
    a = {"tokenizer/vocab.json": b'{"a":0}', "deep/er/vocab.json": b"{}"}
    assert between(a, {**a, "tokenizer/vocab.json": b'{"b":0}'}).counts == (1, 1, 0)
    assert between(a, {**a, "deep/er/vocab.json": b'{"b":0}'}).same


@pytest.mark.parametrize(
    "broken",
    [
        b"", b"[]", b"{", b"\xff", b"[" * 100_000, b'{"model":' * 5000, b'{"model":{"vocab":7}}',
        b'{"model":{"vocab":{"a":"b"}}}', b'{"model":{"vocab":[["a"]]}}', b'{"added_tokens":{}}',
        b'{"normalizer":' + b'{"type":' * 2000 + b"1" + b"}" * 2001,
    ],
)  # fmt: skip
def test_what_the_library_would_not_write_is_a_note(broken: bytes) -> None:
    found = between({"tokenizer.json": broken}, {"tokenizer.json": whole({"a": 0})})
    assert found.notes == ("tokenizer.json cannot be read: it is not what the library writes",)
    both = between({"tokenizer_config.json": broken}, {"tokenizer_config.json": b"{}"})
    assert both.files == ("tokenizer_config.json",)
    older = between({"vocab.json": broken or b"[", "x": b""}, {"vocab.json": b"{}"})
    assert older.counts == (0, 0, 0)


def test_what_is_huge_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizerfiles, "MAX_VOCABULARY", 100)
    a, b = ({"tokenizer.json": whole({str(n): n for n in range(count)})} for count in (30, 5))
    (note,) = between(a, b).notes
    assert note.startswith("tokenizer.json cannot be read: its vocabulary has")
    long = {"vocab.txt": b"x\n" * 80}
    (note,) = between(long, {"vocab.txt": b"x\n"}).notes
    assert note == "vocab.txt has 160 bytes: too many to be compared by tokens"


def test_a_long_or_deep_pipeline_is_cut() -> None:
    wide = {"type": "Sequence", "normalizers": [{"type": "X", "y": "z" * 500}] * 30}
    deep: dict[str, Any] = {"type": "A"}
    for _ in range(50):
        deep = {"type": "B", "inner": deep}
    for node in (wide, deep):
        found = between({"tokenizer.json": whole({})}, {"tokenizer.json": whole({}, normalizer=node)})
        told = found.pipeline.added["normalizer"]
        assert isinstance(told, str)
        assert "…" in told
        assert len(told) <= 300


def test_a_damaged_file_is_a_note() -> None:
    def lost(path: str) -> bytes:
        raise MissingObject(digest=path)

    a, b = {"tokenizer.json": whole({"a": 0})}, {"tokenizer.json": whole({"b": 0})}
    found = compare_tokenizers(tree(a), tree(b), lost, b.__getitem__)
    assert found.notes == (f"tokenizer.json cannot be read: {MissingObject.kind}",)
