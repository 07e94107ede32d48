"""The code and the command of a training: what differs as far as it was captured. Owns which kinds of
provenance are code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from typing import Any

from stemmata import logrows
from stemmata.compare.environment import KINDS as OF_ENVIRONMENT
from stemmata.compare.environment import document
from stemmata.compare.records import Changes, changes
from stemmata.compare.texts import TextChange, compare_texts
from stemmata.records import Value

CODE, COMMAND = "code", "command"
TOLD_ELSEWHERE = frozenset(
    {*OF_ENVIRONMENT, "seeds", "training_arguments", "trainer_state", logrows.KIND, "statistics"}
)
"""Kinds that are other sections' matter: environment, config, metrics."""
_MAX_WORDS = 500


@dataclass(frozen=True, slots=True)
class CommandChange:
    """Two command lines, word by word."""

    a: tuple[str, ...]
    b: tuple[str, ...]

    def words(self) -> list[tuple[str, tuple[str, ...], tuple[str, ...]]]:
        """Runs of words as (what, words of a, words of b); what: equal, replace, delete, insert."""
        if max(len(self.a), len(self.b)) > _MAX_WORDS:
            return [("replace", self.a, self.b)]
        return [
            (what, self.a[i:j], self.b[k:m])
            for what, i, j, k, m in SequenceMatcher(None, self.a, self.b, autojunk=False).get_opcodes()
        ]


@dataclass(frozen=True, slots=True)
class CodeDiff:
    """What differs of the code, where it was captured."""

    git: Changes = field(default_factory=Changes)
    """commit, branch, remote, and dirty: whether there were changes that no commit has."""
    command: CommandChange | None = None
    folder: tuple[str, str] | None = None
    """Where the command ran, if that differs."""
    texts: tuple[TextChange, ...] = ()
    """Sources and other texts that were kept with both versions, by kind."""
    unknown: Mapping[str, str] = field(default_factory=dict)
    """Kinds of which nothing can be told, and why: redacted, on one side only, damaged."""
    alike: tuple[str, ...] = ()
    """Kinds that are the very same on both sides, and were not read."""

    def __bool__(self) -> bool:
        return bool(self.git or self.command or self.folder or self.texts or self.unknown)

    def to_dict(self) -> dict[str, Any]:
        command = self.command
        return {
            "git": self.git.to_dict(),
            "command": {"a": list(command.a), "b": list(command.b)} if command is not None else None,
            "folder": {"a": self.folder[0], "b": self.folder[1]} if self.folder is not None else None,
            "texts": [t.to_dict() for t in self.texts],
            "unknown": dict(self.unknown),
            "alike": list(self.alike),
        }


def code_changes(
    pairs: Mapping[str, tuple[bytes, bytes]], unknown: Mapping[str, str], alike: tuple[str, ...] = ()
) -> CodeDiff:
    """From provenance that both sides have and that differs, by kind; `unknown` says why others are not
    in it. What cannot be read joins that."""
    unknown = dict(unknown)
    git, command, folder = Changes(), None, None
    texts: list[TextChange] = []
    for kind, (a, b) in sorted(pairs.items()):
        if kind not in (CODE, COMMAND):
            texts.append(compare_texts(kind, a, b))
            continue
        try:
            left, right = document(a), document(b)
        except ValueError as error:
            unknown[kind] = f"cannot be read: {error}"
            continue
        if kind == CODE:
            git = changes(_facts(left), _facts(right))
        else:
            first, second = (_words(side.get("argv")) for side in (left, right))
            command = CommandChange(first, second) if first != second else None
            places = str(left.get("folder") or ""), str(right.get("folder") or "")
            folder = places if places[0] != places[1] else None
    return CodeDiff(git, command, folder, tuple(texts), unknown, alike)


def _facts(told: Mapping[str, Any]) -> dict[str, Value]:
    return {key: value for key, value in told.items() if isinstance(value, str | bool | int | float)}


def _words(argv: Any) -> tuple[str, ...]:
    return tuple(map(str, argv)) if isinstance(argv, list) else ()
