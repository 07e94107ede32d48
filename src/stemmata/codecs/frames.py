"""Frames and the header before them: where they lie and what bounds them. Codes no bytes itself.

Everything that a stored length could make this process allocate is bounded here first.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence

import msgspec

from stemmata.codecs.dtypes import DTYPES, MAX_RAW_LENGTH, DType
from stemmata.codecs.encoded import Encoded
from stemmata.codecs.faults import DamagedFault, HostileFault, NewerFault
from stemmata.codecs.hashing import CHECK_SIZE, Buffer, check_of
from stemmata.ids import Digest, PackName

MAGIC, LAYOUT = 0xB5, 1
MAX_REFERENCES = 4
MAX_FRAMES = 4096
RAW, ZSTD, PLANES, DELTA, CAST = 0, 1, 2, 3, 4
BASED = frozenset({DELTA, CAST})
"""Codecs whose payload begins with the number of a reference."""
MAX_CHAIN = 8
"""References that are followed one after another."""
MAX_WORK = 16
"""What a read may decode, bases included, in multiples of the object."""

_REFERENCE = struct.Struct("<16s32s")
_HEADER = struct.Struct("<BBBBIQ")
_HEADER_REFERENCES = 3
"""Where the count of references stands."""
_FRAME = struct.Struct("<BBHIII")
FRAME_OVERHEAD = _FRAME.size + CHECK_SIZE
MIN_STORED = _HEADER.size + CHECK_SIZE
MAX_HEADER = _HEADER.size + MAX_REFERENCES * _REFERENCE.size + CHECK_SIZE
"""Bytes of the longest header."""
MAX_OVERHEAD = MAX_HEADER + MAX_FRAMES * FRAME_OVERHEAD
"""Bytes by which an encoded object is longer than what it stands for, at most: no payload is."""
MAX_STORED = MAX_RAW_LENGTH + MAX_OVERHEAD
"""Bytes of the largest encoded object."""


class Reference(msgspec.Struct, frozen=True):
    """Where a base lies: the object `digest` of `pack`."""

    pack: PackName
    digest: Digest


class Header(msgspec.Struct, frozen=True):
    """An object's own header. `size` is its length with checksum; frames follow."""

    dtype: DType
    frames: int
    raw_length: int
    size: int
    references: tuple[Reference, ...] = ()

    @property
    def elements(self) -> int:
        return self.raw_length // self.dtype.itemsize


class Frame(msgspec.Struct, frozen=True):
    """One frame: `raw_length` bytes from `raw_offset` on. Its payload is `stored` bytes from `at` on, within
    the encoded object."""

    codec: int
    dtype: DType
    raw_offset: int
    raw_length: int
    head: memoryview
    check: bytes
    at: int
    stored: int
    reference: int | None = None
    """Which of the object's references it leans on, if it does."""

    def require_sound(self, payload: memoryview) -> None:
        """Hold the stored bytes against the frame's checksum. Raises DamagedFault."""
        if check_of((self.head, payload)) != self.check:
            raise DamagedFault(f"the frame at byte {self.raw_offset} fails its checksum")


def most_stored(length: int, dtype: DType) -> int:
    """Bytes that an object of `length` bytes takes at most, once encoded."""
    return MAX_HEADER + length + -(-length // dtype.max_frame_bytes) * FRAME_OVERHEAD


def write_header(dtype: DType, frames: int, raw_length: int, references: Sequence[Reference] = ()) -> bytes:
    head = _HEADER.pack(MAGIC, LAYOUT, dtype.code, len(references), frames, raw_length)
    head += b"".join(_REFERENCE.pack(base.pack.raw, base.digest.raw) for base in references)
    return head + check_of((head,))


def pointed(
    encoded: memoryview, where: Callable[[Reference], PackName]
) -> tuple[list[Buffer], list[PackName]]:
    """A sound encoded object, in parts, its bases named in the packs that `where` says; and those.

    Nothing else changes: a base is its content, and that is the same. The caller has held `encoded` against
    its checksum, which holds more than the header's own. Raises DamagedFault, NewerFault.
    """
    if len(encoded) < MIN_STORED or encoded[0] != MAGIC or encoded[1] != LAYOUT:
        read_header(encoded)  # says what is wrong
    count = encoded[_HEADER_REFERENCES]
    if not count:
        return [encoded], []
    body = _HEADER.size + count * _REFERENCE.size
    head, packs = bytearray(encoded[:body]), []
    for at in range(_HEADER.size, body, _REFERENCE.size):
        pack, digest = _REFERENCE.unpack_from(encoded, at)
        found = where(Reference(PackName(pack), Digest(digest)))
        head[at : at + PackName.SIZE] = found.raw
        packs.append(found)
    head += check_of((head,))
    return [head, encoded[body + CHECK_SIZE :]], packs


def write_frame_head(codec: int, dtype: DType, raw_length: int, payload: list[Buffer]) -> bytes:
    """The 24 bytes before a frame's payload."""
    head = _FRAME.pack(codec, dtype.code, 0, raw_length, sum(map(len, payload)), 0)
    return head + check_of((head, *payload))


def read_header(encoded: memoryview) -> Header:
    """The header, checked alone. Raises DamagedFault, HostileFault, NewerFault."""
    if len(encoded) < MIN_STORED:
        raise DamagedFault("it is shorter than a header")
    magic, layout, code, references, frames, raw_length = _HEADER.unpack_from(encoded)
    if magic != MAGIC:
        raise DamagedFault("it does not begin as an object does")
    body = _HEADER.size + references * _REFERENCE.size
    if len(encoded) < body + CHECK_SIZE:
        raise DamagedFault("its header is cut off")
    if check_of((encoded[:body],)) != encoded[body : body + CHECK_SIZE]:
        raise DamagedFault("its header fails its checksum")
    if layout != LAYOUT:
        raise NewerFault(f"layout {layout}")
    if references > MAX_REFERENCES:
        raise HostileFault(f"{references} references")
    dtype = _dtype(code)
    if raw_length > min(dtype.max_object_bytes, MAX_RAW_LENGTH):
        raise HostileFault(f"{raw_length} bytes of {dtype.word}")
    if frames > MAX_FRAMES:
        raise HostileFault(f"{frames} frames")
    found = _REFERENCE.iter_unpack(encoded[_HEADER.size : body])
    bases = tuple(Reference(PackName(pack), Digest(digest)) for pack, digest in found)
    return Header(dtype, frames, raw_length, body + CHECK_SIZE, bases)


def header_of(encoded: Encoded) -> Header:
    """As `read_header`."""
    begin = encoded.part(0, MAX_HEADER)
    if len(begin) == MAX_HEADER and begin[_HEADER_REFERENCES] > MAX_REFERENCES:
        # Longer than any may be: whether it is damaged or hostile, its checksum tells.
        begin = encoded.part(0, _HEADER.size + begin[_HEADER_REFERENCES] * _REFERENCE.size + CHECK_SIZE)
    return read_header(begin)


def read_frames(encoded: Encoded, header: Header) -> list[Frame]:
    """All frames, bounded and tiling the object; payloads are not looked at yet, but for the first byte.

    Raises DamagedFault, HostileFault, NewerFault.
    """
    frames: list[Frame] = []
    at, offset = header.size, 0
    for _ in range(header.frames):
        frame, at = _read_frame(encoded, at, offset, len(header.references))
        offset += frame.raw_length
        if offset > header.raw_length:
            raise DamagedFault("its frames hold more than its header says")
        frames.append(frame)
    if offset != header.raw_length:
        raise DamagedFault("its frames hold less than its header says")
    if at != encoded.size:
        raise DamagedFault("bytes follow its last frame")
    return frames


def peek_frame(head: memoryview) -> tuple[int, int, int]:
    """Codec, raw length and stored length, as the 16 bytes at a frame's begin say; nothing is checked."""
    codec, _, _, raw_length, stored, _ = _FRAME.unpack_from(head)
    return codec, raw_length, stored


def _read_frame(encoded: Encoded, at: int, offset: int, references: int) -> tuple[Frame, int]:
    if encoded.size - at < FRAME_OVERHEAD:
        raise DamagedFault("a frame's header is cut off")
    begin = encoded.part(at, FRAME_OVERHEAD + 1)
    codec, code, reserved, raw_length, stored, reserved_too = _FRAME.unpack_from(begin)
    dtype = _dtype(code)
    if reserved or reserved_too:
        raise DamagedFault("a reserved field of a frame is not zero")
    if codec > CAST:
        raise NewerFault(f"codec {codec}")
    if codec in (PLANES, DELTA) and not dtype.has_planes:
        raise DamagedFault(f"{'planes' if codec == PLANES else 'a delta'} of {dtype.word}")
    if codec == CAST and dtype.word not in ("F16", "BF16"):
        raise DamagedFault(f"a cast to {dtype.word}")
    if raw_length > dtype.max_frame_bytes:
        raise HostileFault(f"a frame of {raw_length} bytes of {dtype.word}")
    if not raw_length or raw_length % dtype.itemsize:
        raise DamagedFault(f"a frame of {raw_length} bytes of {dtype.word}")
    start = at + FRAME_OVERHEAD
    if stored > encoded.size - start:
        raise DamagedFault("a frame is cut off")
    if codec == RAW and stored != raw_length:
        raise DamagedFault("a raw frame is not as long as it says")
    reference = None
    if codec in BASED:
        if not stored or begin[FRAME_OVERHEAD] >= references:
            raise DamagedFault("a frame names a reference that is not there")
        reference = begin[FRAME_OVERHEAD]
    head, check = begin[: _FRAME.size], bytes(begin[_FRAME.size : FRAME_OVERHEAD])
    return Frame(codec, dtype, offset, raw_length, head, check, start, stored, reference), start + stored


def _dtype(code: int) -> DType:
    if code >= len(DTYPES):
        raise NewerFault(f"dtype {code}")
    return DTYPES[code]
