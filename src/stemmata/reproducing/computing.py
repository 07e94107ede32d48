"""Computing: what two captures tell differently of how a training was computed: packages, machine, variables,
switches. Owns what of these changes no number."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from stemmata.capturing.reading import Environment, Package, Seeds
from stemmata.compare.environment import (
    MACHINE,
    PACKAGE,
    Item,
    canonical,
    importance,
    is_of_a_process,
    is_tool,
)
from stemmata.compare.records import equal
from stemmata.records import Value
from stemmata.reproducing import recorded
from stemmata.reproducing.recorded import Difference

_OF_PYTHON = ("python", "implementation", "build")
_OF_SYSTEM = ("platform", "libc")
_OFFLINE = frozenset({"HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE"})
_TORCH = ("cuda", "hip", "cudnn", "cpu_capability")
_OF_GENERATORS = frozenset({"state", "initial_seed", "cuda_state", "cuda_initial_seed"})


def packages(a: Mapping[str, Package], b: Mapping[str, Package]) -> Iterator[Difference]:
    """Installed distributions; what numbers depend on comes first."""
    sides = [{canonical(name): package for name, package in each.items()} for each in (a, b)]
    for name in sides[0].keys() | sides[1].keys():
        before, after = (_release(each.get(name)) for each in sides)
        if before != after:
            rank = importance(Item(PACKAGE, name))
            aside = "it tests, builds or shows" if is_tool(name) else ""
            rank += recorded.PACKAGE if rank < recorded.OTHER else 0
            yield Difference("package", name, before, after, rank, aside)


def _release(package: Package | None) -> str | None:
    """A version; the commit or digest where it came from no index. A folder's path is no release."""
    if package is None:
        return None
    origin = package.commit or package.hash
    if not origin and package.url and not package.url.startswith("file:"):
        origin = package.url
    return f"{package.version} of {origin}" if origin else package.version


def machine(a: Environment, b: Environment, torch_told: bool) -> Iterator[Difference]:
    """Python, system, processor, accelerators. `torch_told`: torch itself is among the packages already."""
    facts = [_facts(each) for each in (a, b)]
    for name in facts[0].keys() | facts[1].keys():
        before, after = (each.get(name) for each in facts)
        # Not told on a side: torch was not loaded there yet, or the system hides it.
        if equal(before, after) or before is None or after is None:
            continue
        if name == "torch":
            if not torch_told:
                yield Difference("package", "torch", before, after, recorded.PACKAGE)
            continue
        kind = "python" if name in _OF_PYTHON else "system" if name in _OF_SYSTEM else "hardware"
        rank = recorded.PACKAGE + importance(Item(MACHINE, "nvidia-cudnn" if name in _TORCH else name))
        yield Difference(kind, name, before, after, recorded.OTHER if name in _LOW else rank)
    yield from _variables(a.variables, b.variables)


_LOW = frozenset({"build", "platform", "libc", "cpus"})
"""What differs between machines that compute alike."""


def _facts(told: Environment) -> dict[str, Value]:
    found: dict[str, Value] = {
        name: getattr(told, name) or None
        for name in (*_OF_PYTHON, *_OF_SYSTEM, "machine", "cpu", "cpus", "driver")
    }
    found["gpus"] = _counted([gpu.name for gpu in told.gpus])
    torch = told.torch or {}
    found["torch"] = _scalar(torch.get("version"))
    return found | {name: _scalar(torch.get(name)) for name in _TORCH}


def _counted(names: list[str]) -> str:
    """`2 × NVIDIA A100, 1 × NVIDIA T4`; "none"."""
    return ", ".join(f"{names.count(name)} × {name}" for name in dict.fromkeys(names)) or "none"


def _scalar(value: object) -> Value:
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)


def _variables(a: Mapping[str, str], b: Mapping[str, str]) -> Iterator[Difference]:
    for name in a.keys() | b.keys():
        if a.get(name) == b.get(name):
            continue
        aside = ""
        if is_of_a_process(name):
            aside = "it differs by every process"
        elif name in _OFFLINE:
            aside = "it says where files come from; what they hold is compared by itself"
        yield Difference("variable", name, a.get(name), b.get(name), recorded.VARIABLE, aside)


def switches(a: Seeds, b: Seeds) -> Iterator[Difference]:
    """What makes torch repeat itself, and in how many threads it sums."""
    left, right = _flat(a), _flat(b)
    for name in left.keys() & right.keys():
        before, after = left[name], right[name]
        if not equal(before, after) and before is not None and after is not None:
            yield Difference("switch", name, before, after, recorded.SWITCH)
    if a.full_determinism != b.full_determinism and None not in (a.full_determinism, b.full_determinism):
        yield Difference(
            "switch", "full_determinism", a.full_determinism, b.full_determinism, recorded.SWITCH
        )


def _flat(seeds: Seeds) -> dict[str, Value]:
    told: dict[str, Any] = {
        f"torch.{k}": v for k, v in (seeds.torch or {}).items() if k not in _OF_GENERATORS
    }
    if seeds.python is not None:
        told["python.hash_seed"] = seeds.python.get("hash_seed")
    return {name: _scalar(value) for name, value in told.items()}
