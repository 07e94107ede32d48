"""Zip files whose members are stored as they are. Owns what is believed of a zip's directory.

Stricter than zipfile: a file that two readers could read in two ways is none. It ends with its directory
and no comment; local headers say what the directory says; members are stored, not encrypted, and do not
overlap. torch writes data descriptors and a zip64 directory always, numpy zip64 sizes: these are read.
The format: https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from stemmata.containers.base import ZIP_MAGIC, NotThisContainer, RandomReader

MAX_MEMBERS = 1 << 18
MAX_DIRECTORY = 64 << 20
"""Bytes."""
_END = struct.Struct("<4s4H2IH")
_END_MAGIC = b"PK\x05\x06"
_LOCATOR = struct.Struct("<4sIQI")
_END64 = struct.Struct("<4sQ2H2I4Q")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_LOCAL = struct.Struct("<4s5H3I2H")
_DESCRIPTOR, _UTF8 = 1 << 3, 1 << 11
_KNOWN_FLAGS = _DESCRIPTOR | _UTF8
"""Whatever else there is - encryption, patches - changes what the bytes mean."""
_FULL, _FULL_SHORT = 0xFFFFFFFF, 0xFFFF
_ZIP64 = 1


@dataclass(frozen=True, slots=True)
class Member:
    """One stored member: its name, and where its bytes lie in the file."""

    name: str
    offset: int
    size: int

    @property
    def end(self) -> int:
        return self.offset + self.size


@dataclass(frozen=True, slots=True)
class _Entry:
    """A member as the directory tells it. `header` is where its local header begins."""

    raw: bytes
    flags: int
    size: int
    header: int


def read_members(reader: RandomReader, size: int) -> list[Member]:
    """The members of a zip file in the order of their bytes. Raises NotThisContainer."""
    start, length, count = _find_directory(reader, size)
    directory = _read(reader, start, length)
    entries = sorted(_entries(directory, count), key=lambda entry: entry.header)
    members: list[Member] = []
    at = 0
    for entry in entries:
        if entry.header < at:
            raise NotThisContainer("two members overlap")
        member = _locate(reader, entry, start)
        members.append(member)
        at = member.end
    if len({member.name for member in members}) != len(members):
        raise NotThisContainer("two members have one name")
    return members


def is_cut_off(reader: RandomReader, size: int) -> bool:
    """Whether it begins as a zip file and lacks the end, which is written last: nobody can read it yet."""
    if size < len(ZIP_MAGIC) or reader.read_at(0, len(ZIP_MAGIC)) != ZIP_MAGIC:
        return False
    tail = min(size, _END.size + _FULL_SHORT)  # a comment may follow
    last = tail - _END.size + len(_END_MAGIC)
    return bytes(reader.read_at(size - tail, tail)).find(_END_MAGIC, 0, max(last, 0)) < 0


def _find_directory(reader: RandomReader, size: int) -> tuple[int, int, int]:
    """Where the directory begins, its bytes and its entries."""
    end = size - _END.size
    if end < 0:
        raise NotThisContainer("it is too short")
    magic, disk, first_disk, here, count, length, start, comment = _END.unpack(_read(reader, end, _END.size))
    if magic != _END_MAGIC or (disk, first_disk, comment) != (0, 0, 0) or here != count:
        raise NotThisContainer("it does not end with a directory")
    locator = end - _LOCATOR.size
    if locator >= _END64.size and _read(reader, locator, 4) == b"PK\x06\x07":
        end, wide = _find_wide(reader, locator)
        narrow = (count, length, start)
        limits = (_FULL_SHORT, _FULL, _FULL)
        if any(n not in (w, limit) for n, w, limit in zip(narrow, wide, limits, strict=True)):
            raise NotThisContainer("its two ends differ")
        count, length, start = wide
    elif count == _FULL_SHORT or _FULL in (length, start):
        raise NotThisContainer("its directory's place is not told")
    if start + length != end:
        raise NotThisContainer("its directory is not where it should be")
    if count > MAX_MEMBERS or length > MAX_DIRECTORY or count * _CENTRAL.size > length:
        raise NotThisContainer("its directory has an absurd size")
    return start, length, count


def _find_wide(reader: RandomReader, locator: int) -> tuple[int, tuple[int, int, int]]:
    """Where the zip64 end begins, and its entries, bytes and start of the directory."""
    _, disk, at, disks = _LOCATOR.unpack(_read(reader, locator, _LOCATOR.size))
    if disk != 0 or disks > 1 or at != locator - _END64.size:
        raise NotThisContainer("its zip64 end is not where it should be")
    end = _END64.unpack(_read(reader, at, _END64.size))
    magic, rest, _, _, disk, first_disk, here, count, length, start = end
    if magic != b"PK\x06\x06" or rest != _END64.size - 12 or (disk, first_disk) != (0, 0) or here != count:
        raise NotThisContainer("its zip64 end cannot be read")
    return at, (count, length, start)


def _entries(directory: bytes, count: int) -> Iterator[_Entry]:
    at = 0
    for _ in range(count):
        if at + _CENTRAL.size > len(directory):
            raise NotThisContainer("its directory is cut off")
        row = _CENTRAL.unpack_from(directory, at)
        magic, _, _, flags, method, _, _, _, packed, size, name_length, extra_length, comment, disk = row[:14]
        if magic != b"PK\x01\x02" or disk != 0:
            raise NotThisContainer("its directory cannot be read")
        if method != 0 or flags & ~_KNOWN_FLAGS:
            raise NotThisContainer("a member is compressed or encrypted")
        name_at = at + _CENTRAL.size
        extra_at = name_at + name_length
        at = extra_at + extra_length + comment
        if at > len(directory):
            raise NotThisContainer("its directory is cut off")
        extra = directory[extra_at : extra_at + extra_length]
        size, packed, header = _widened(extra, (size, packed, row[16]))
        if packed != size:
            raise NotThisContainer("a member is compressed or encrypted")
        yield _Entry(directory[name_at:extra_at], flags, size, header)
    if at != len(directory):
        raise NotThisContainer("its directory has something behind it")


def _widened(extra: bytes, values: tuple[int, int, int]) -> tuple[int, ...]:
    """The values of a directory entry, those that are full taken from its zip64 field."""
    full = [i for i, value in enumerate(values) if value == _FULL]
    if not full:
        return values
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, at)
        if kind == _ZIP64:
            if length != 8 * len(full) or at + 4 + length > len(extra):
                break
            wide = struct.unpack_from(f"<{len(full)}Q", extra, at + 4)
            found = list(values)
            for i, value in zip(full, wide, strict=True):
                found[i] = value
            return tuple(found)
        at += 4 + length
    raise NotThisContainer("a member's zip64 sizes cannot be read")


def _locate(reader: RandomReader, entry: _Entry, limit: int) -> Member:
    """Where a member's bytes lie, before `limit`; its local header must agree with the directory."""
    length = _LOCAL.size + len(entry.raw)
    if entry.header + length > limit:
        raise NotThisContainer("a member lies behind the directory")
    head = _read(reader, entry.header, length)
    magic, _, flags, method, _, _, _, packed, size, name_length, extra_length = _LOCAL.unpack_from(head)
    told = (entry.size, _FULL, 0) if flags & _DESCRIPTOR else (entry.size, _FULL)
    if magic != ZIP_MAGIC or (flags, method) != (entry.flags, 0) or name_length != len(entry.raw):
        raise NotThisContainer("a member's header is not what the directory says")
    if head[_LOCAL.size :] != entry.raw or packed not in told or size not in told:
        raise NotThisContainer("a member's header is not what the directory says")
    try:
        name = entry.raw.decode("utf-8" if flags & _UTF8 else "ascii")
    except UnicodeDecodeError:
        raise NotThisContainer("a member's name cannot be read") from None
    member = Member(name, entry.header + length + extra_length, entry.size)
    if member.end > limit:
        raise NotThisContainer("a member ends behind the directory")
    return member


def _read(reader: RandomReader, offset: int, length: int) -> bytes:
    data = reader.read_at(offset, length)
    if len(data) != length:
        raise NotThisContainer("it is shorter than it was")
    return data
