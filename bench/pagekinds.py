"""Kinds of versions on the page of benchmarks: how they are told by their names, and where a kind begins."""

from __future__ import annotations

from keeping import History

KINDS = {
    "base": "the first version",
    "full": "all weights in fp32",
    "epoch": "all weights in fp32",
    "long": "all weights in fp32",
    "frozen": "fp32 with most frozen",
    "bf16": "bf16",
    "rounded": "fp32 saved as bf16",
    "lora": "LoRA",
    "perturbed": "noise in fp32",
}
"""Of versions, by what stands before the first hyphen of their names."""


def kind_of(name: str) -> str:
    prefix = name.split("-")[0]
    return KINDS.get(prefix, prefix)


def kinds_of(history: History) -> dict[str, list[int]]:
    """The places of its versions, by kind."""
    kinds: dict[str, list[int]] = {}
    for at, version in enumerate(history.versions):
        kinds.setdefault(kind_of(str(version["name"])), []).append(at)
    return kinds


def branches(history: History) -> list[tuple[int, str]]:
    """Where versions of another kind begin, and which; nothing of a history that is one line."""
    kinds = [kind_of(str(version["name"])) for version in history.versions]
    begun = [(at, kind) for at, kind in enumerate(kinds) if at and kind != kinds[at - 1]]
    return begun if len(begun) > 1 else []
