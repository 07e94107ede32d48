"""Tokenizers: what differs between those of two versions. Owns when their files are read at all.

Vocabularies are compared token by token, templates line by line. What cannot be compared so is a note.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, NamedTuple

from stemmata.compare.records import Changes, changes
from stemmata.compare.texts import TextChange, compare_strings
from stemmata.compare.tokenizerfiles import (
    BINARIES,
    VOCABULARIES,
    Settings,
    TokenizerFiles,
    Vocabulary,
    read_settings,
    read_vocabulary,
    tokenizer_files,
)
from stemmata.trees import Tree

Read = Callable[[str], bytes]
MOST = 10_000
"""Tokens of each kind that are listed; the counts are of all."""


class Token(NamedTuple):
    """A token and its number."""

    text: str
    id: int


@dataclass(frozen=True, slots=True)
class TokenizerDiff:
    """What differs between two tokenizers; false where nothing does."""

    sizes: tuple[int, int] | None = None
    """Tokens of both; None where the vocabularies are the same, and were not read."""
    added: tuple[Token, ...] = ()
    removed: tuple[Token, ...] = ()
    renumbered: tuple[tuple[Token, int], ...] = ()
    """Tokens of both with another number, and which it is now."""
    counts: tuple[int, int, int] = (0, 0, 0)
    """How many were added, removed, renumbered: the lists end at MOST."""
    special: Changes = field(default_factory=Changes)
    """bos_token, pad_token, …"""
    pipeline: Changes = field(default_factory=Changes)
    """model, normalizer, pre_tokenizer, post_processor, decoder, …: each in a line."""
    settings: Changes = field(default_factory=Changes)
    """The rest of tokenizer_config.json."""
    templates: tuple[TextChange, ...] = ()
    """Chat templates by name; the usual one is `default`."""
    notes: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    """Names of its files that differ."""
    same: bool = False
    """Both versions have one, and it is the same."""

    def __bool__(self) -> bool:
        return bool(self.files)

    def to_dict(self) -> dict[str, Any]:
        return {
            "vocabulary": {"a": self.sizes[0], "b": self.sizes[1]} if self.sizes else None,
            "added": {t.text: t.id for t in self.added},
            "removed": {t.text: t.id for t in self.removed},
            "renumbered": {t.text: {"a": t.id, "b": now} for t, now in self.renumbered},
            "counts": dict(zip(("added", "removed", "renumbered"), self.counts, strict=True)),
            "special": self.special.to_dict(),
            "pipeline": self.pipeline.to_dict(),
            "settings": self.settings.to_dict(),
            "templates": [t.to_dict() for t in self.templates],
            "notes": list(self.notes),
            "files": list(self.files),
        }


def compare_tokenizers(a: Tree, b: Tree, read_a: Read, read_b: Read) -> TokenizerDiff:
    """Of the tokenizers nearest to the top of both. What has the same digest is not read."""
    notes: list[str] = []
    left, right = tokenizer_files(a, read_a, notes), tokenizer_files(b, read_b, notes)
    if left is None or right is None:
        there = left or right
        if there is None:
            return TokenizerDiff()
        only = f"only {'a' if left else 'b'} has a tokenizer"
        return TokenizerDiff(notes=(only,), files=tuple(sorted(there.files)))
    names = sorted(n for n in {*left.files, *right.files} if _digest(left, n) != _digest(right, n))
    if not names:
        return TokenizerDiff(same=True)
    found = TokenizerDiff(files=tuple(names))
    if not set(VOCABULARIES).isdisjoint(names):
        found = _with_vocabularies(found, read_vocabulary(left), read_vocabulary(right), notes)
    if not set(names) <= {*VOCABULARIES, *BINARIES}:
        found = _with_settings(found, read_settings(left), read_settings(right))
    notes += [f"{name} differs: compared as bytes" for name in names if name in BINARIES]
    return replace(found, notes=tuple(dict.fromkeys(notes)))


def _digest(files: TokenizerFiles, name: str) -> str | None:
    file = files.files.get(name)
    return file.digest if file is not None else None


def _with_vocabularies(
    found: TokenizerDiff, a: Vocabulary | None, b: Vocabulary | None, notes: list[str]
) -> TokenizerDiff:
    if a is None or b is None:
        return found
    added, removed = b.tokens.keys() - a.tokens.keys(), a.tokens.keys() - b.tokens.keys()
    moved = [(Token(t, n), b.tokens[t]) for t, n in a.tokens.items() if b.tokens.get(t, n) != n]
    if a.merges != b.merges:
        notes.append("the merges differ: the same text may be cut into other tokens")
    return replace(
        found,
        sizes=(len(a.tokens), len(b.tokens)),
        added=_listed(Token(t, b.tokens[t]) for t in added),
        removed=_listed(Token(t, a.tokens[t]) for t in removed),
        renumbered=tuple(islice(sorted(moved, key=lambda m: m[0].id), MOST)),
        counts=(len(added), len(removed), len(moved)),
        pipeline=changes(a.pipeline, b.pipeline),
    )


def _listed(tokens: Iterable[Token]) -> tuple[Token, ...]:
    return tuple(sorted(tokens, key=lambda t: (t.id, t.text))[:MOST])


def _with_settings(found: TokenizerDiff, a: Settings, b: Settings) -> TokenizerDiff:
    names = sorted(a.templates.keys() | b.templates.keys(), key=lambda n: (n != "default", n))
    texts = [(n, a.templates.get(n, ""), b.templates.get(n, "")) for n in names]
    return replace(
        found,
        special=changes(a.special, b.special),
        settings=changes(a.others, b.others),
        templates=tuple(compare_strings(n, x, y) for n, x, y in texts if x != y),
    )
