"""The environment of a training: packages, machine, variables. Owns which of its differences matter most.

The order is that of `importance`: what computes the numbers first, tools that test and build last.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple

import msgspec

from stemmata.compare.records import equal
from stemmata.records import Value

KINDS = ("packages", "environment")
"""Kinds of provenance that this reads."""
MAX_BYTES = 16 << 20
PACKAGE, MACHINE, VARIABLE = "package", "machine", "variable"
_OTHERS = 1000
_TOOLS = 2000
_NOISE = 3000
"""Ranks from which a difference is one of many: other packages, tools, what differs by every process."""

_ORDER = (
    # What computes: the numbers of a training depend on these.
    "torch gpus driver nvidia-cuda-runtime nvidia-cudnn nvidia-nccl transformers peft trl accelerate datasets"
    " tokenizers safetensors numpy bitsandbytes triton flash-attn xformers deepspeed liger-kernel"
    " unsloth torchao gptqmodel auto-gptq autoawq optimum lightning pytorch-lightning sentence-transformers"
    " diffusers torchvision torchaudio jax jaxlib flax tensorflow keras scikit-learn scipy pandas pyarrow"
    " sentencepiece tiktoken evaluate huggingface-hub stemmata"
    # Where it ran.
    " python implementation platform machine cpu cpus"
)
_FIRST = _ORDER.split()
_PLACES = {name: place for place, name in enumerate(_FIRST)}
_TOOL = re.compile(
    r"(?:pytest|hypothesis|ruff|mypy|black|isort|flake8|pylint|pyright|coverage|tox|nox|pre-commit|ipython"
    r"|ipykernel|ipywidgets|jupyter|notebook|nbconvert|nbformat|nbclient|debugpy|sphinx|mkdocs|build|wheel|twine"
    r"|setuptools|pip|pip-tools|pip-audit|uv|virtualenv|types|import-linter|pluggy|iniconfig|mypy-extensions)"
    r"(?:-.*)?"
)
_OF_A_PROCESS = re.compile(r"(?:LOCAL_)?RANK|SLURM_(?:JOB_ID|ARRAY_TASK_ID)")
_CUDA = re.compile(r"(nvidia-.+)-cu\d+")


class Item(NamedTuple):
    """What is compared: one package, one fact of the machine, one variable."""

    kind: str
    name: str


@dataclass(frozen=True, slots=True)
class EnvironmentChange:
    """One item that differs; None on the side that lacks it."""

    item: Item
    a: Value
    b: Value

    @property
    def folded(self) -> bool:
        """Whether it is one of many that tell little by themselves."""
        return is_folded(self.item)

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.item.kind, "name": self.item.name, "a": self.a, "b": self.b}


@dataclass(frozen=True, slots=True)
class EnvironmentDiff:
    """What differs, the most important first."""

    changes: tuple[EnvironmentChange, ...] = ()
    same: int = 0
    """Items that are equal, of what was read: objects that are the very same are not."""
    unknown: Mapping[str, str] = field(default_factory=dict)
    """Kinds of which nothing can be told, and why: redacted, on one side only, damaged."""
    alike: tuple[str, ...] = ()
    """Kinds that are the very same on both sides, and were not read."""

    def __bool__(self) -> bool:
        return bool(self.changes or self.unknown)

    def to_dict(self) -> dict[str, Any]:
        return {
            "changes": [c.to_dict() for c in self.changes],
            "same": self.same,
            "unknown": dict(self.unknown),
            "alike": list(self.alike),
        }


def importance(item: Item) -> int:
    """Its place in the order of what matters: less is more."""
    if item.kind == VARIABLE:
        return _NOISE if is_of_a_process(item.name) else len(_FIRST)
    name = canonical(item.name)
    if name in _PLACES:
        return _PLACES[name]
    if item.kind == MACHINE:
        return len(_FIRST)
    return _TOOLS if is_tool(name) else _OTHERS


def is_tool(package: str) -> bool:
    """Whether a package, by its canonical name, tests, builds or shows: nothing that a training computes."""
    return _TOOL.fullmatch(package) is not None


def is_of_a_process(variable: str) -> bool:
    """Whether a variable differs by every process."""
    return _OF_A_PROCESS.fullmatch(variable) is not None


def is_folded(item: Item) -> bool:
    """Whether it is one of many that tell little by themselves."""
    return importance(item) >= _OTHERS


@cache
def canonical(package: str) -> str:
    """A package's name as all its spellings are one (PEP 503); of NVIDIA's without the CUDA release."""
    name = re.sub(r"[-_.]+", "-", package).lower()
    found = _CUDA.fullmatch(name)
    return found[1] if found else name


def items(documents: Mapping[str, bytes]) -> dict[Item, Value]:
    """The items of the JSON objects of one version, by kind. Raises ValueError for what is no such object."""
    found: dict[Item, Value] = {}
    for kind, data in documents.items():
        told = document(data)
        if kind == "packages":
            versions: dict[str, set[str]] = {}
            for name, version in told.items():
                versions.setdefault(canonical(name), set()).add(_release(version))
            found |= {Item(PACKAGE, name): " + ".join(sorted(said)) for name, said in versions.items()}
        else:
            variables = told.pop("variables", None)
            told.pop("missing", None)  # what could not be found out, not what was there
            if isinstance(told.get("gpus"), list):
                told["gpus"] = [x["name"] if isinstance(x, dict) and "name" in x else x for x in told["gpus"]]
            found |= {Item(MACHINE, name): _value(value) for name, value in told.items() if value is not None}
            if isinstance(variables, dict):
                found |= {Item(VARIABLE, str(name)): _value(value) for name, value in variables.items()}
    return found


def _release(said: Any) -> str:
    """A version, and where it came from if that was no index."""
    if not isinstance(said, dict):
        return str(said)
    origin = said.get("commit") or said.get("url")
    return f"{said.get('version')} of {origin}" if origin else str(said.get("version"))


def document(data: bytes) -> dict[str, Any]:
    """A JSON object of provenance. Raises ValueError."""
    if len(data) > MAX_BYTES:
        raise ValueError(f"it has {len(data):,} bytes")
    try:
        return msgspec.json.decode(data, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise ValueError("it is no JSON object") from None


def _value(value: Any) -> Value:
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, list) and all(x is None or isinstance(x, str | int | float | bool) for x in value):
        return list(value)
    return str(value)


def counted(values: Sequence[object]) -> list[str]:
    """What a list has how often: `8 × NVIDIA H100`."""
    return [f"{n} × {each}" if n > 1 else each for each, n in Counter(map(str, values)).items()]


def ordered(found: Iterable[Item]) -> list[Item]:
    """The most important first; by name where they matter alike."""
    return sorted(found, key=lambda item: (importance(item), item.name.lower(), item.name, item.kind))


def environment_changes(
    a: Mapping[Item, Value], b: Mapping[Item, Value], unknown: Mapping[str, str], alike: tuple[str, ...] = ()
) -> EnvironmentDiff:
    """What leads from `a` to `b`."""
    different = [i for i in ordered(a.keys() | b.keys()) if not equal(a.get(i), b.get(i))]
    return EnvironmentDiff(
        changes=tuple(EnvironmentChange(i, a.get(i), b.get(i)) for i in different),
        same=len(a.keys() | b.keys()) - len(different),
        unknown=unknown,
        alike=alike,
    )
