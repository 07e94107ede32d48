"""Texts to train on, from what is installed: docstrings. Owns the two sets and that they share no text.

The first is Python's standard library, the second numpy and torch. The same Python and the same packages
give the same texts in the same order.
"""

from __future__ import annotations

import ast
import importlib.util
import random
import re
import sysconfig
import warnings
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

Pair = tuple[str, str]
"""What a thing is called, in words, and what its docstring says."""

_SKIPPED = {"test", "tests", "idlelib", "site-packages", "dist-packages", "_internal", "testing"}
_SHORTEST = 40
_LONGEST = 600


@cache
def standard_library() -> list[Pair]:
    root = Path(sysconfig.get_path("stdlib"))
    return _shuffled(_pairs([root]))


@cache
def libraries() -> list[Pair]:
    """Docstrings of numpy and torch, without those that the standard library has too."""
    taken = {text for _, text in standard_library()}
    roots = [_package("numpy"), *(_package("torch") / part for part in ("nn", "optim", "distributions"))]
    return [pair for pair in _shuffled(_pairs(roots)) if pair[1] not in taken]


def _package(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(f"{name} is not installed: ./scripts/test sets up what this needs")
    return Path(spec.submodule_search_locations[0])


def _shuffled(pairs: Iterable[Pair]) -> list[Pair]:
    # Each text once: the same docstring stands under many names.
    found = list({text: (name, text) for name, text in pairs}.values())
    random.Random(0).shuffle(found)
    return found


def _pairs(roots: list[Path]) -> Iterator[Pair]:
    for root in roots:
        for path in sorted(root.rglob("*.py")):
            within = path.relative_to(root)
            if not _SKIPPED.intersection(within.parts):
                yield from _docstrings(path, " ".join(within.with_suffix("").parts))


def _docstrings(path: Path, module: str) -> Iterator[Pair]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)  # escapes in other people's strings
            tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, UnicodeDecodeError):  # lib2to3 and such keep broken files on purpose
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            text = " ".join((ast.get_docstring(node) or "").split())
            if len(text) >= _SHORTEST:
                yield _words(f"{module} {node.name}"), text[:_LONGEST]


def _words(name: str) -> str:
    split = re.sub(r"(?<=[a-z])(?=[A-Z])|_", " ", name)
    return " ".join(split.lower().split())
