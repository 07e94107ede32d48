"""Rows: what a dataset holds, told by a digest over its rows as they lie there.

Rows in Arrow (the `datasets` library) are hashed block by block, column by column, with the interpreter's
lock let go: a training beside it waits for nothing. No row is made: a dataset that computes its rows would
move the random numbers, and one that streams would lose them; those are listed as missing. Refuses to take
for ever: above 4 GiB evenly spread blocks stand for the rest, and a time limit holds.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from blake3 import blake3

from stemmata.bases import hash_file
from stemmata.capture import mask, to_json
from stemmata.capturing.arrow import Arrow
from stemmata.capturing.missing import Missing, told

BLOCK = 1024
"""Rows hashed at a time; part of the digest's definition."""
WHOLE = 4 << 30
"""Bytes up to which every row counts."""
SAMPLED = 1024
"""Blocks that count above that."""
SECONDS = 120.0
_MOST_FILES = 1000
_SLICE = 4 << 20
_MOST_BYTES = (1 << 32) - 1


class _Later(Exception):
    """Why there is no digest."""


def collect(datasets: Mapping[str, Any]) -> dict[str, bytes]:
    """The object `data`: each part's rows, columns, fingerprint, digest, and the files it was read from."""
    missing: list[Missing] = []
    parts = {}
    for part, dataset in flat(datasets):
        parts[part] = describe(part, dataset, missing)
    return {"data": to_json({"parts": parts, "missing": told(missing)})}


def flat(datasets: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Each dataset by its part; one of several under a part as `eval.name`."""
    for part, dataset in datasets.items():
        if isinstance(dataset, Mapping):
            yield from ((f"{part}.{name}", each) for name, each in dataset.items())
        elif dataset is not None:
            yield part, dataset


def describe(part: str, dataset: Any, missing: list[Missing]) -> dict[str, object]:
    """One dataset's facts; what cannot be told goes to `missing`."""
    kind = type(dataset)
    table = _table(dataset)
    fingerprint = getattr(dataset, "_fingerprint", None)
    found: dict[str, object] = {
        "type": f"{kind.__module__}.{kind.__qualname__}",
        "rows": _count(dataset),
        "columns": {} if table is None else {f.name: str(f.type) for f in dataset.data.schema},
        "fingerprint": fingerprint if isinstance(fingerprint, str) else None,
        "digest": None,
        "covers": None,
        "files": _files(part, dataset, missing),
    }
    try:
        found["digest"], found["covers"] = digest(dataset)
    except _Later as why:
        missing.append(Missing(f"rows of {part}", str(why)))
    except Exception as error:  # noqa: BLE001
        # Somebody else's class: whatever it raises, the training goes on.
        missing.append(Missing(f"rows of {part}", f"they could not be read: {type(error).__name__}: {error}"))
    return found


def digest(dataset: Any, *, whole: int = WHOLE, seconds: float = SECONDS) -> tuple[str, str]:
    """BLAKE3 over the rows as hex, and what it covers: "all" or "N of M blocks". FORMAT.md, section 7."""
    until = time.monotonic() + seconds
    if _table(dataset) is not None:
        return _of_arrow(dataset, whole, until)
    if _is_subset(dataset):
        inner, covers = digest(dataset.dataset, whole=whole, seconds=seconds)
        picked = msgspec.msgpack.encode([int(i) for i in dataset.indices])
        return blake3(b"stemmata subset 1\n" + inner.encode() + picked).hexdigest(), covers
    tensors = getattr(dataset, "tensors", None)
    if isinstance(tensors, tuple):
        return _of_values(tensors, until)
    if isinstance(dataset, list | tuple):
        return _of_values(dataset, until)
    if _count(dataset) is None:
        raise _Later("it streams: its rows are read once, by the training")
    name = type(dataset).__name__
    raise _Later(f"{name} makes rows when they are asked for: to read them would move the random numbers")


def _of_arrow(dataset: Any, whole: int, until: float) -> tuple[str, str]:
    rows, arrow = len(dataset), Arrow(sys.modules["pyarrow"])
    view = dataset.with_format("arrow")
    blocks = -(-rows // BLOCK)
    total = int(dataset.data.nbytes)
    if getattr(dataset, "_indices", None) is not None and len(dataset.data):
        total = total * rows // len(dataset.data)
    numbers: Iterable[int] = range(blocks)
    covers = "all"
    if total > whole and blocks > SAMPLED:
        numbers = [i * (blocks - 1) // (SAMPLED - 1) for i in range(SAMPLED)]
        covers = f"{SAMPLED} of {blocks} blocks"
    schema = [[field.name, str(field.type)] for field in dataset.data.schema]
    hasher = blake3(b"stemmata rows 1\n")
    hasher.update(msgspec.json.encode([rows, schema]) + b"\n")
    for number in numbers:
        _hold(until)
        block = view[number * BLOCK : min(rows, (number + 1) * BLOCK)]
        for name, _ in schema:
            arrow.feed(hasher, block.column(name))
    return hasher.hexdigest(), covers


def _of_values(values: Sequence[Any], until: float) -> tuple[str, str]:
    """Rows that lie in memory as plain values, arrays and tensors."""
    hasher = blake3(b"stemmata values 1\n")
    encoder = msgspec.msgpack.Encoder(enc_hook=_array)
    for start in range(0, len(values), BLOCK):
        _hold(until)
        for value in values[start : start + BLOCK]:
            try:
                for piece in _pieces(value, encoder):
                    _hold(until)
                    hasher.update(piece)
            except (TypeError, NotImplementedError, OverflowError) as error:
                raise _Later("its rows hold more than plain values and arrays") from error
    return hasher.hexdigest(), "all"


def _pieces(value: Any, encoder: msgspec.msgpack.Encoder) -> Iterator[bytes | memoryview]:
    """The value's MessagePack in pieces. A large array is no message in memory beside itself: its bytes are
    handed on where they lie, a slice at a time, so that hashing them lets go of the interpreter's lock."""
    if getattr(value, "nbytes", 0) <= _SLICE or not hasattr(value, "dtype"):
        yield encoder.encode(value)
        return
    dtype, shape, data = _array(value)
    data = memoryview(data).cast("B")
    if len(data) > _MOST_BYTES:
        raise _Later("an array of them has more than 4 GiB")
    yield b"\x93" + encoder.encode(dtype) + encoder.encode(shape)
    # https://github.com/msgpack/msgpack/blob/master/spec.md: bin 32
    yield b"\xc6" + len(data).to_bytes(4, "big")
    yield from (data[start : start + _SLICE] for start in range(0, len(data), _SLICE))


def _array(value: Any) -> list[Any]:
    """An array or tensor as (dtype, shape, bytes)."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        flat = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        return [str(value.dtype), list(value.shape), memoryview(flat.numpy())]
    if hasattr(value, "dtype") and hasattr(value, "tobytes") and not value.dtype.hasobject:
        whole = value.nbytes > _SLICE and getattr(getattr(value, "flags", None), "c_contiguous", False)
        return [
            str(value.dtype),
            list(value.shape),
            value.reshape(-1).view("u1").data if whole else value.tobytes(),
        ]
    raise NotImplementedError(type(value).__name__)


def _files(part: str, dataset: Any, missing: list[Missing]) -> list[dict[str, object]]:
    """The files that `datasets` read the rows from, with digests of those that are here."""
    found: list[dict[str, object]] = []
    left = WHOLE
    for path in source_files(dataset):
        said: dict[str, object] = {"path": mask(path), "bytes": None, "digest": None}
        try:
            size = Path(path).stat().st_size
            if size <= left:
                left -= size
                said.update(bytes=size, digest=hash_file(Path(path)))
            else:
                missing.append(
                    Missing(f"digest of {mask(path)}", f"the files of {part} have more than 4 GiB")
                )
        except OSError:
            if "://" not in path:
                missing.append(Missing(f"digest of {mask(path)}", "the file is not here any more"))
        found.append(said)
    return found


def source_files(dataset: Any) -> list[str]:
    """Paths and addresses of the files that `datasets` read rows from."""
    checksums = getattr(getattr(dataset, "info", None), "download_checksums", None)
    return sorted(map(str, checksums))[:_MOST_FILES] if isinstance(checksums, Mapping) else []


def is_table(dataset: Any) -> bool:
    """Whether it is a dataset of `datasets` whose rows are there."""
    return _table(dataset) is not None


def _table(dataset: Any) -> Any:
    """The Arrow table of a dataset of `datasets`; None of all others."""
    if "pyarrow" not in sys.modules or not hasattr(dataset, "with_format"):
        return None
    table = getattr(dataset, "data", None)
    return table if hasattr(table, "schema") and hasattr(table, "nbytes") else None


def _is_subset(dataset: Any) -> bool:
    torch_data = sys.modules.get("torch.utils.data")
    return torch_data is not None and type(dataset) is torch_data.Subset


def _count(dataset: Any) -> int | None:
    try:
        return len(dataset)
    except (TypeError, NotImplementedError, AttributeError):
        return None


def _hold(until: float) -> None:
    if time.monotonic() > until:
        raise _Later(f"hashing them took longer than {SECONDS:g} s")
