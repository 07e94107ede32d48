"""Lines: examples as JSON objects, one a line. Owns what counts as an example, and by what one is known.

Everything is read a line at a time: a file may be larger than memory.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias, cast

import msgspec

from stemmata.errors import InvalidExamples, SourceMissing, UnsupportedFile
from stemmata.ids import Digest

MAX_LINE = 16 << 20
"""Bytes of one example."""
Example: TypeAlias = dict[str, Any]
Source: TypeAlias = "str | os.PathLike[str] | Iterable[Mapping[str, Any]]"
"""A JSONL file, or the examples themselves."""
_TOLD = 5
_SAMPLE, _SAMPLE_BYTES = 100, 4 << 20
_BOM = b"\xef\xbb\xbf"
_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder(order="sorted").encode

BY_LINE = "line"
_FILTER = "filter"
_IDS = ("id", "example_id", "doc_id", "uid", "idx")
_INPUTS = frozenset(
    {"input", "inputs", "prompt", "question", "context", "messages", "text", "sentence", "query"}
)
_SCORES = ("correct", "is_correct", "passed", "exact_match", "score", "acc", "accuracy")


def checked(source: Source) -> Iterator[bytes]:
    """The lines of a source as they are kept, newline and all. Raises InvalidExamples, at the end, naming the
    lines that are none; SourceMissing, UnsupportedFile."""
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        yield from _without_broken(_lines_of(path), str(path))
    else:
        yield from _without_broken(_encoded(source), "what was given")


def _without_broken(lines: Iterable[bytes], where: str) -> Iterator[bytes]:
    broken: list[str] = []
    count, examples = 0, 0
    for number, line in enumerate(lines, start=1):
        reason = _fault(line, number)
        if reason is not None:
            count += 1
            if count <= _TOLD:
                broken.append(f"line {number} {reason}")
        elif not count:
            examples += bool(line.strip())
            yield line
    if count:
        more = f", and {count - _TOLD} more" if count > _TOLD else ""
        raise InvalidExamples(path=where, reason=", ".join(broken) + more)
    if not examples:
        raise InvalidExamples(path=where, reason="it holds no example")


def _lines_of(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            while line := file.readline(MAX_LINE + 2):
                yield line
                is_whole = len(line) <= MAX_LINE
                while line and not is_whole and not line.endswith(b"\n"):
                    line = file.readline(MAX_LINE)
    except FileNotFoundError:
        raise SourceMissing(path=str(path)) from None
    except OSError as error:
        raise UnsupportedFile(path=str(path), reason=error.strerror or str(error)) from error


def _encoded(examples: Iterable[Mapping[str, Any]]) -> Iterator[bytes]:
    for number, example in enumerate(examples, start=1):
        if not isinstance(cast("object", example), Mapping):
            reason = f"example {number} is {type(example).__name__}, no object"
            raise InvalidExamples(path="what was given", reason=reason)
        try:
            # Not msgspec: it writes NaN as null.
            text = json.dumps(dict(example), ensure_ascii=False, default=_plain)
            yield text.encode("utf-8") + b"\n"
        except (TypeError, ValueError, RecursionError) as error:
            reason = f"example {number} is not JSON: {error}"
            raise InvalidExamples(path="what was given", reason=reason) from None


def _plain(value: object) -> object:
    """Numbers and arrays of numpy and torch as Python has them."""
    if callable(listed := getattr(value, "tolist", None)):
        return listed()
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


def _fault(line: bytes, number: int) -> str | None:
    if len(line) > MAX_LINE:
        return f"is longer than {MAX_LINE >> 20} MiB"
    try:
        example = parsed(line, number)
    except ValueError as error:
        return f"is not JSON ({error})"
    return "is no object" if example is not None and not isinstance(example, dict) else None


def parsed(line: bytes, number: int) -> Any:
    """What a line says; None of a blank one. Raises ValueError."""
    text = line.removeprefix(_BOM) if number == 1 else line
    if not text.strip():
        return None
    try:
        return _decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        pass
    try:
        return json.loads(text)  # takes NaN, as Python writes it
    except json.JSONDecodeError as error:
        raise ValueError(error.msg) from None
    except RecursionError:
        raise ValueError("it nests too deep") from None


def examples_in(lines: Iterable[bytes], first: int = 1) -> Iterator[tuple[int, Example]]:
    """Number and content of each example; what is none, as others may have written, is passed over."""
    for number, line in enumerate(lines, start=first):
        try:
            found = parsed(line, number)
        except ValueError:
            continue
        if isinstance(found, dict):
            yield number, found


# --- by what an example is known --------------------------------------------------------------------


def field_of(example: Mapping[str, Any], path: str) -> Any:
    """The value under a key, or under a dotted path; None if there is none."""
    if path in example:
        return example[path]
    found: Any = example
    for part in path.split("."):
        if not isinstance(found, dict) or part not in found:
            return None
        found = found[part]
    return found


class Key:
    """How the examples of two evals are matched: by an id, by their inputs, else by their place."""

    def __init__(self, fields: Sequence[str], how: str) -> None:
        self.fields = tuple(fields)
        self.how = how
        """`id`, `inputs` or `line`."""

    @classmethod
    def for_examples(cls, samples: Sequence[Sequence[Example]], chosen: str | None) -> Key:
        """The key that the caller chose, else what the examples of each of these samples have."""
        if chosen == BY_LINE:
            return cls((), BY_LINE)
        if chosen is not None:
            return cls((chosen,), "id")
        for field in _IDS:
            if all(2 * sum(_is_scalar(e.get(field)) for e in some) >= len(some) for some in samples):
                # lm-eval has a line for each way that it reads an answer.
                ways = [{str(e.get(_FILTER)) for e in some} for some in samples]
                told = all(isinstance(e.get(_FILTER), str) for some in samples for e in some)
                both = field == "doc_id" and told and set.intersection(*ways)
                return cls((field, _FILTER) if both else (field,), "id")
        inputs = [f for f in _INPUTS if all(f in example for some in samples for example in some)]
        return cls(sorted(inputs), "inputs") if inputs else cls((), BY_LINE)

    def __str__(self) -> str:
        return "their line numbers" if self.how == BY_LINE else " and ".join(self.fields)

    def of(self, number: int, example: Example) -> bytes | None:
        """Bytes that stand for the example, 33 at most; None if it lacks what it is known by."""
        if self.how == BY_LINE:
            return number.to_bytes(8, "big")
        if self.how == "id":
            ids = [field_of(example, field) for field in self.fields]
            if all(_is_scalar(value) for value in ids):
                text = "\0".join(map(_id_text, ids)).encode("utf-8", "surrogatepass")
                return b"=" + text if len(text) <= 32 else Digest.of(text).raw
            if ids[0] is None:
                return None
        values = [field_of(example, field) for field in self.fields]
        # A context that is null is an input too, as long as there is another.
        if all(value is None for value in values):
            return None
        try:
            return Digest.of(_encode(values)).raw
        except UnicodeEncodeError:
            # Half of a surrogate pair, as text that was cut leaves it: JSON may hold it, UTF-8 may not.
            return Digest.of(json.dumps(values, sort_keys=True).encode()).raw


def _id_text(value: str | float) -> str:
    """7, 7.0 and "7" are one id: tools do not agree on how they write it."""
    return str(int(value) if isinstance(value, float) and value.is_integer() else value)


def _is_scalar(value: object) -> bool:
    return isinstance(value, str | int | float) and not isinstance(value, bool)


def score_field(samples: Sequence[Sequence[Example]], chosen: str | None) -> str | None:
    """The field that says how good an answer was: the chosen one, else the first known one that all have."""
    if chosen is not None:
        return chosen
    for field in _SCORES:
        if all(any(score_of(example, field) is not None for example in some) for some in samples):
            return field
    return None


def sample(lines: Iterable[bytes]) -> list[Example]:
    """Some of the first examples, at least one if there is one: what a file's examples look like."""
    found: list[Example] = []
    size = 0
    for number, line in enumerate(lines, start=1):
        size += len(line)
        found += (example for _, example in examples_in([line], number))
        if found and (len(found) >= _SAMPLE or size >= _SAMPLE_BYTES):
            break
    return found


def score_of(example: Example, field: str) -> float | None:
    """A number; a bool counts as 1 or 0, and NaN as no score."""
    value = field_of(example, field)
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if not isinstance(value, bool | int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None
