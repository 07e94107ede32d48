"""numpy's files: one array (.npy), and several in a zip (.npz). Owns what is believed of an array's header.

The header is a Python literal in the one form that numpy writes; it is matched, not evaluated.
The format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
"""

from __future__ import annotations

import re

from stemmata.codecs.dtypes import dtype_of
from stemmata.containers.base import NPY_MAGIC, CutPlan, NotThisContainer, RandomReader
from stemmata.containers.tensors import Run, tile, usable_name
from stemmata.containers.zipped import Member

_SUFFIX = ".npy"
_MAX_HEADER = 4096
"""Bytes, magic included; numpy's own have 128 unless there are very many dimensions or fields."""
_LENGTH_BYTES = {1: 2, 2: 4, 3: 4}
"""How many bytes the header's length has, by the format's major version."""
_HEADER = re.compile(
    rb"\{'descr': '([<>|=][a-zA-Z]\d{1,2})', "
    rb"'fortran_order': (True|False), 'shape': \(([\d, ]{0,999})\), ?\} *\n"
)
_WORDS = {
    "|b1": "BOOL",
    "|i1": "I8",
    "|u1": "U8",
    **{f"<{kind}{n}": f"{word}{8 * n}" for kind, word in (("i", "I"), ("u", "U")) for n in (2, 4, 8)},
    **{f"<f{n}": f"F{8 * n}" for n in (2, 4, 8)},
}
"""Little-endian types; all others - big-endian, complex, text, objects - are bytes here."""


def is_npz(members: list[Member]) -> bool:
    return bool(members) and all(member.name.endswith(_SUFFIX) for member in members)


def plan_npz(reader: RandomReader, size: int, members: list[Member]) -> CutPlan:
    """Cut at every array's data. Raises NotThisContainer if a member is no array."""
    runs = [_array(reader, m.offset, m.size, usable_name(m.name.removesuffix(_SUFFIX))) for m in members]
    return CutPlan("npz", tile(size, runs))


def plan_npy(reader: RandomReader, size: int) -> CutPlan:
    """Header and data. The array has no name. Raises NotThisContainer."""
    return CutPlan("npy", tile(size, [_array(reader, 0, size, None)]))


def _array(reader: RandomReader, offset: int, size: int, name: str | None) -> Run:
    """The data of the array whose file lies at `offset` and has `size` bytes."""
    head = reader.read_at(offset, min(size, _MAX_HEADER))
    start, header = _header_of(head)
    at, length = offset + start, size - start
    if length < 0:
        raise NotThisContainer("an array ends within its header")
    match = _HEADER.fullmatch(header)
    if match is None:
        return Run(at, length)
    word = _WORDS.get(match[1].decode(), "")
    parts = [part for part in match[3].rstrip(b",").split(b", ") if part]
    if not all(part.isdigit() and len(part) < 19 for part in parts):
        return Run(at, length)
    shape = [int(part) for part in parts]
    if match[2] == b"True" and len(shape) > 1:
        # Columns first: the same numbers, but no tensor of this shape to those who read rows first.
        return Run(at, length, word, (length // dtype_of(word).itemsize,))
    return Run(at, length, word, shape, name)


def _header_of(head: bytes) -> tuple[int, bytes]:
    """Where the data begins, and the header's text; empty where it is longer than was read."""
    if not head.startswith(NPY_MAGIC) or len(head) < 12:
        raise NotThisContainer("a member is no array")
    width = _LENGTH_BYTES.get(head[6])
    if width is None:
        raise NotThisContainer("an array is of an unknown version")
    begin = 8 + width
    start = begin + int.from_bytes(head[8:begin], "little")
    return start, head[begin:start] if start <= len(head) else b""
