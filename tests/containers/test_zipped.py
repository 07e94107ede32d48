"""Zip directories: members are where they are said to be, or the file is cut into chunks."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Callable

import pytest

from cuts import Memory, cut
from stemmata.containers import zipped
from stemmata.containers.base import NotThisContainer
from stemmata.containers.zipped import read_members

BODIES = {"a.npy": b"one" * 10, "b.npy": b"", "folder/c.npy": bytes(range(200))}


class Pipe(io.RawIOBase):
    """Where nothing can be written twice, so that sizes come behind the data."""

    def __init__(self) -> None:
        self.data = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        self.data += memoryview(data)  # type: ignore[arg-type]
        return memoryview(data).nbytes  # type: ignore[arg-type]


def packed(
    bodies: dict[str, bytes] = BODIES, *, wide: bool = False, method: int = zipfile.ZIP_STORED
) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, body in bodies.items():
            about = zipfile.ZipInfo(name)
            about.compress_type = method
            with archive.open(about, "w", force_zip64=wide) as member:
                member.write(body)
    return file.getvalue()


def piped() -> bytes:
    file = Pipe()
    with zipfile.ZipFile(file, "w") as archive:
        for name, body in BODIES.items():
            archive.writestr(name, body)
    return bytes(file.data)


def members(data: bytes) -> dict[str, bytes]:
    return {m.name: data[m.offset : m.end] for m in read_members(Memory(data), len(data))}


@pytest.mark.parametrize(
    "data", [packed(), packed(wide=True), piped()], ids=["plain", "zip64", "descriptors"]
)
def test_members_are_found(data: bytes) -> None:
    assert members(data) == BODIES


def test_a_zip_without_members_is_one(tmp_path: object) -> None:
    assert members(packed({})) == {}


def test_names_beyond_ascii_are_read() -> None:
    assert members(packed({"größe.npy": b"x"})) == {"größe.npy": b"x"}


def test_a_member_beyond_four_gigabytes_is_found() -> None:
    """As torch writes it: sizes behind the data, zip64 fields in the directory."""
    size = 5 << 30
    local = struct.pack("<4s5H3I2H", b"PK\x03\x04", 0, 8, 0, 0, 0, 0, 0, 0, 1, 0) + b"m"
    extra = struct.pack("<2H2Q", 1, 16, size, size)
    full = 0xFFFFFFFF
    row = struct.pack(
        "<4s6H3I5H2I", b"PK\x01\x02", 0, 0, 8, 0, 0, 0, 0, full, full, 1, len(extra), 0, 0, 0, 0, 0
    )
    start = len(local) + size
    directory = row + b"m" + extra
    end = start + len(directory)
    wide = struct.pack("<4sQ2H2I4Q", b"PK\x06\x06", 44, 0, 0, 0, 0, 1, 1, len(directory), start)
    locator = struct.pack("<4sIQI", b"PK\x06\x07", 0, end, 1)
    last = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 1, 1, len(directory), full, 0)
    tail = directory + wide + locator + last

    class Long(Memory):
        def read_at(self, offset: int, length: int) -> bytes:
            if offset >= start:
                return tail[offset - start : offset - start + length]
            return super().read_at(offset, length)

    found = read_members(Long(local), start + len(tail))
    assert [(m.name, m.offset, m.size) for m in found] == [("m", len(local), size)]


def at(data: bytes, signature: bytes, number: int = 0) -> int:
    found = -1
    for _ in range(number + 1):
        found = data.index(signature, found + 1)
    return found


def patch(signature: bytes, offset: int, form: str, value: int, number: int = 0) -> Callable[[bytes], bytes]:
    """Overwrite a field of the header with this signature."""

    def apply(data: bytes) -> bytes:
        changed = bytearray(data)
        struct.pack_into(form, changed, at(data, signature, number) + offset, value)
        return bytes(changed)

    return apply


def overlap(data: bytes) -> bytes:
    """The third member is said to begin where the first one does, under the first one's name."""
    first, third = at(data, CENTRAL), at(data, CENTRAL, 2)
    changed = bytearray(data)
    changed[third + 42 : third + 46] = data[first + 42 : first + 46]
    return bytes(changed)


def swallow(data: bytes) -> bytes:
    """The first member is said to reach into the next, in both places."""
    changed = data
    for signature, offset in ((LOCAL, 18), (LOCAL, 22), (CENTRAL, 20), (CENTRAL, 24)):
        changed = patch(signature, offset, "<I", 60)(changed)
    return changed


def encrypt(data: bytes) -> bytes:
    return patch(LOCAL, 6, "<H", 1)(patch(CENTRAL, 8, "<H", 1)(data))


LOCAL, CENTRAL, END = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"
FAULTS: dict[str, Callable[[bytes], bytes]] = {
    "cut off": lambda data: data[:-1],
    "only its magic": lambda data: data[:4],
    "something behind it": lambda data: data + b"x",
    "a comment": lambda data: patch(END, 20, "<H", 1)(data) + b"x",
    "something before it": lambda data: LOCAL + data,
    "more entries than there are": patch(END, 10, "<H", 9),
    "more entries, twice": lambda data: patch(END, 8, "<H", 4)(patch(END, 10, "<H", 4)(data)),
    "fewer entries": lambda data: patch(END, 8, "<H", 2)(patch(END, 10, "<H", 2)(data)),
    "an absurd number of entries": lambda d: patch(END, 8, "<H", 65534)(patch(END, 10, "<H", 65534)(d)),
    "entries told elsewhere": lambda data: patch(END, 8, "<H", 65535)(patch(END, 10, "<H", 65535)(data)),
    "several disks": patch(END, 4, "<H", 1),
    "a directory elsewhere": patch(END, 16, "<I", 3),
    "a longer directory": patch(END, 12, "<I", 10_000),
    "a directory behind the end": patch(END, 16, "<I", 2**32 - 2),
    "an entry that is none": patch(CENTRAL, 0, "<H", 0, 1),
    "an entry of another disk": patch(CENTRAL, 34, "<H", 1),
    "a name that is too long": patch(CENTRAL, 28, "<H", 60_000, 2),
    "another size": patch(CENTRAL, 24, "<I", 29),
    "another size here than there": patch(LOCAL, 22, "<I", 29),
    "zip64 sizes without a field": patch(CENTRAL, 24, "<I", 0xFFFFFFFF),
    "a member behind the directory": patch(CENTRAL, 42, "<I", 2**31),
    "a header that is none": patch(LOCAL, 0, "<H", 0, 1),
    "another name there": patch(LOCAL, 30, "<H", 0x7878),
    "a longer name there": patch(LOCAL, 26, "<H", 7),
    "an extra field beyond the file": patch(LOCAL, 28, "<H", 60_000, 2),
    "other flags there": patch(LOCAL, 6, "<H", 8),
    "encrypted": encrypt,
    "compressed, it says": lambda data: patch(LOCAL, 8, "<H", 8)(patch(CENTRAL, 10, "<H", 8)(data)),
    "a name that is no text": lambda data: data.replace(b"a.npy", b"\xff.npy"),
    "one name twice": lambda data: data.replace(b"b.npy", b"a.npy"),
    "overlap": overlap,
    "a member that swallows the next": swallow,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_doubtful_directory_is_none(fault: str) -> None:
    data = FAULTS[fault](packed())
    with pytest.raises(NotThisContainer):
        members(data)
    assert cut(data).container == ""


WIDE_END, LOCATOR = b"PK\x06\x06", b"PK\x06\x07"
WIDE_FAULTS: dict[str, Callable[[bytes], bytes]] = {
    "a locator that points elsewhere": patch(LOCATOR, 8, "<Q", 0),
    "several disks": patch(LOCATOR, 16, "<I", 2),
    "an end that is none": patch(WIDE_END, 0, "<H", 0),
    "a longer end": patch(WIDE_END, 4, "<Q", 45),
    "an absurd number of entries": lambda data: patch(WIDE_END, 24, "<Q", 2**63)(
        patch(WIDE_END, 32, "<Q", 2**63)(patch(END, 8, "<H", 65535)(patch(END, 10, "<H", 65535)(data)))
    ),
    "an absurd length": lambda d: patch(WIDE_END, 40, "<Q", 2**63)(patch(END, 12, "<I", 0xFFFFFFFF)(d)),
    "two ends that differ": patch(WIDE_END, 48, "<Q", 0),
}


def with_wide_end() -> bytes:
    data = packed()
    end = len(data) - 22
    _, _, _, _, count, length, start, _ = struct.unpack("<4s4H2IH", data[end:])
    wide = struct.pack("<4sQ2H2I4Q", WIDE_END, 44, 45, 45, 0, 0, count, count, length, start)
    return data[:end] + wide + struct.pack("<4sIQI", LOCATOR, 0, end, 1) + data[end:]


def test_a_zip64_end_is_read() -> None:
    assert members(with_wide_end()) == BODIES


@pytest.mark.parametrize("fault", WIDE_FAULTS)
def test_a_doubtful_zip64_end_is_none(fault: str) -> None:
    with pytest.raises(NotThisContainer):
        members(WIDE_FAULTS[fault](with_wide_end()))


def test_compressed_members_are_no_members() -> None:
    data = packed(method=zipfile.ZIP_DEFLATED)
    with pytest.raises(NotThisContainer, match="compressed"):
        members(data)


def test_limits_hold_before_anything_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    data = packed()
    monkeypatch.setattr(zipped, "MAX_MEMBERS", 2)
    with pytest.raises(NotThisContainer, match="absurd"):
        members(data)
    monkeypatch.undo()
    monkeypatch.setattr(zipped, "MAX_DIRECTORY", 100)
    reader = Memory(data)
    with pytest.raises(NotThisContainer, match="absurd"):
        read_members(reader, len(data))
    assert max(length for _, length in reader.reads) < 100


def test_any_other_zip_is_cut_into_chunks() -> None:
    assert cut(packed({"word/document.xml": b"<x/>"})).container == ""
    assert cut(packed({})).container == ""
