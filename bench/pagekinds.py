"""Kinds of versions on the page of benchmarks: how they are told by their names, and where a kind begins."""

from __future__ import annotations

from keeping import History

FIRST = "the first version"
KINDS = {
    "full": "all weights in fp32",
    "epoch": "all weights in fp32",
    "long": "all weights in fp32",
    "ten": "all weights in fp32, ten epochs in a line",
    "frozen": "two of six layers trained, all in fp32",
    "bf16-base": "the first version, rounded to bf16",
    "bf16": "trained in bf16 alone",
    "rounded-base": "the first version, rounded to bf16",
    "rounded": "mixed precision, saved as bf16",
    "lora": "LoRA",
    "perturbed": "noise in fp32",
}
"""Of versions, by their names, or by what stands before the first hyphen."""


def kind_of(name: str) -> str:
    prefix = name.split("-")[0]
    return KINDS.get(name) or KINDS.get(prefix, prefix)


def kinds_of(history: History) -> dict[str, list[int]]:
    """The places of its versions, by kind."""
    kinds: dict[str, list[int]] = {}
    for at, kind in enumerate(_each(history)):
        kinds.setdefault(kind, []).append(at)
    return kinds


def _each(history: History) -> list[str]:
    """The kind of each version. The first is a kind of its own: it has nothing to lean on."""
    return [kind_of(str(v["name"])) if at else FIRST for at, v in enumerate(history.versions)]


def branches(history: History) -> list[tuple[int, str]]:
    """Where versions of another kind begin, and which; nothing of a history that is one line."""
    kinds = _each(history)
    begun = [(at, kind) for at, kind in enumerate(kinds) if at and kind != kinds[at - 1]]
    return begun if len(begun) > 1 else []
