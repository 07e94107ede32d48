"""A second reader of objects and packs, made from FORMAT.md and nothing of stemmata, in plain Python."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

import zstandard
from blake3 import blake3

WIDTHS = [1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 4, 4, 4, 8, 8, 8]
MANTISSA = {4: 3, 5: 2, 8: 10, 9: 7, 12: 23, 15: 52}
F16, BF16, F32 = 8, 9, 12
BLOCK, GROUP = 128, 4096

Fetch = Callable[[bytes, bytes], bytes]
"""The encoded object of a pack's name and a digest."""


def digest(data: bytes) -> bytes:
    return blake3(data).digest()


def body_of(sealed: bytes) -> bytes:
    body = sealed[:-66]
    assert sealed[-66:] == b"\n" + digest(body).hex().encode() + b"\n"
    return body


def unpacked(frame: bytes, length: int) -> bytes:
    data = zstandard.ZstdDecompressor(max_window_size=8 << 20).decompress(frame)
    assert len(data) == length
    return data


def integers(data: bytes, width: int) -> list[int]:
    return list(struct.unpack(f"<{len(data) // width}{' BH I   Q'[width]}", data))


def bytes_of(values: list[int], width: int) -> bytes:
    return struct.pack(f"<{len(values)}{' BH I   Q'[width]}", *values)


class Streams:
    """The streams of a payload, one after another."""

    def __init__(self, payload: bytes) -> None:
        self.rest = payload

    def take(self, length: int | None) -> bytes:
        """The next one, of a known length, or as it is."""
        mode, stored = struct.unpack_from("<BI", self.rest)
        data, self.rest = self.rest[5 : 5 + stored], self.rest[5 + stored :]
        if mode:
            assert (mode, length is None) == (1, False)
            return unpacked(data, length or 0)
        assert length is None or len(data) == length
        return data


def planes(payload: bytes, dtype: int, raw: int) -> bytes:
    width = WIDTHS[dtype]
    streams = Streams(payload)
    columns = [streams.take(raw // width) for _ in range(width)]
    assert not streams.rest
    words = integers(bytes(b for column in zip(*columns, strict=True) for b in column), width)
    if dtype in MANTISSA and width > 1:
        words = [v >> 1 | (v & 1) << (8 * width - 1) for v in words]
    return bytes_of(words, width)


# --- codecs 3 and 4 ---------------------------------------------------------------------------------


def to_bf16(v: int) -> int:
    assert v % 2**31 <= 0x7F800000
    return (v + 0x7FFF + (v >> 16) % 2) >> 16


def to_f16(v: int) -> int:
    r = v % 2**31
    assert r <= 0x7F800000
    sign, e = v >> 31 << 15, (r >> 23) - 112
    if e > 30:
        return sign | 0x7C00
    if e > 0:
        return sign | (r - (112 << 23) + 0xFFF + (r >> 13) % 2) >> 13
    if e < -10:
        return sign
    m, t = 0x800000 + r % 2**23, 14 - e
    return sign | (m + 2 ** (t - 1) - 1 + (m >> t) % 2) >> t


def cast(wide: bytes, dtype: int) -> bytes:
    return bytes_of([(to_f16 if dtype == F16 else to_bf16)(v) for v in integers(wide, 4)], 2)


def groups_of(keys: list[int]) -> list[list[int]]:
    """Places in `keys`, group after group."""
    found: list[list[int]] = []
    current: list[int] = []
    by_key: dict[int, list[int]] = {}
    for place, key in enumerate(keys):
        by_key.setdefault(key, []).append(place)
    for key in sorted(by_key):
        current += by_key[key]
        if len(current) >= GROUP:
            found.append(current)
            current = []
    if current and found:
        found[-1] += current
    elif current:
        found.append(current)
    return [sorted(group) for group in found]


def bits_of(raw: bytes) -> Iterator[int]:
    return (byte >> k & 1 for byte in raw for k in range(8))


def values_of(tokens: list[bytes], raw: bytes, width: int) -> list[list[int]]:
    """The z of every group."""
    s, found = 2 if width == 8 else 3, []
    for group in tokens:
        if width == 1:
            found.append(list(group))
            continue
        bits, taken, values = bits_of(raw), 0, []
        for token in group:
            if token < 16:
                values.append(token)
                continue
            e, top = (token - 16 >> s) + 4, (token - 16) % 2**s
            assert e < 8 * width
            low = sum(next(bits) << k for k in range(e - s))
            taken += e - s
            values.append(2**e + (top << (e - s)) + low)
        found.append(values)
        raw = raw[-(-taken // 8) :]
    assert not raw
    return found


def delta(payload: bytes, dtype: int, base: bytes) -> bytes:
    """`base` has the elements' own dtype."""
    width = WIDTHS[dtype]
    whole, half = 1 << 8 * width, 1 << (8 * width - 1)
    b, m = integers(base, width), MANTISSA.get(dtype)
    streams = Streams(payload)
    classes = streams.take(-(-len(b) // BLOCK))
    scattered = [i for i in range(len(b)) if classes[i // BLOCK] == 1]
    drifted = [i for i in range(len(b)) if classes[i // BLOCK] == 2]
    groups = groups_of([(b[i] % half) >> m if m is not None else 0 for i in scattered])
    values = values_of([streams.take(len(group)) for group in groups], streams.take(None), width)
    z: dict[int, int] = {}
    for group, found in zip(groups, values, strict=True):
        z.update({scattered[place]: value for place, value in zip(group, found, strict=True)})
    if drifted:
        assert m is not None
        assert m > 6
        low, high = streams.take(len(drifted)), streams.take(len(drifted))
        drifted.sort(key=lambda i: b[i] % 2**m >> (m - 6))
        z.update({i: x + 256 * y for i, x, y in zip(drifted, low, high, strict=True)})
    assert not streams.rest
    out = []
    for i, under in enumerate(b):
        d = z.get(i, 0)
        d = d // 2 if d % 2 == 0 else -(d + 1) // 2
        if m is None:
            out.append((under + d) % whole)
            continue
        negative = under >= half
        ordered = ((under ^ (whole - 1) if negative else under | half) + (-d if negative else d)) % whole
        out.append(ordered ^ half if ordered >= half else ordered ^ (whole - 1))
    return bytes_of(out, width)


# --- objects and packs ------------------------------------------------------------------------------


def no_bases(pack: bytes, name: bytes) -> bytes:
    raise AssertionError("nothing to lean on")


def frames_of(encoded: bytes, fetch: Fetch = no_bases) -> Iterator[tuple[int, int, int, bytes]]:
    """Of each frame codec, dtype, its first element and its content."""
    magic, layout, own, references, frames, length = struct.unpack_from("<BBBBIQ", encoded)
    assert (magic, layout) == (0xB5, 1)
    at = 16 + 48 * references
    bases = [encoded[k : k + 48] for k in range(16, at, 48)]
    assert encoded[at : at + 8] == digest(encoded[:at])[:8]
    at += 8
    offset = 0
    for _ in range(frames):
        head = encoded[at : at + 16]
        codec, dtype, _, raw, stored, _ = struct.unpack("<BBHIII", head)
        payload = encoded[at + 24 : at + 24 + stored]
        assert encoded[at + 16 : at + 24] == digest(head + payload)[:8]
        first = offset // WIDTHS[dtype]
        if codec in (3, 4):
            assert dtype == own
            base = bases[payload[0]]
            under = frames_of(fetch(base[:16], base[16:]), fetch)
            ((kind, wide),) = [(d, c) for _, d, begin, c in under if begin == first]
            assert kind == dtype or (kind == F32 and dtype in (F16, BF16))
            fitted = wide if kind == dtype else cast(wide, dtype)
            assert len(fitted) == raw
            content = delta(payload[1:], dtype, fitted) if codec == 3 else fitted
            assert codec == 3 or (kind, len(payload)) == (F32, 1)
        elif codec == 2:
            content = planes(payload, dtype, raw)
        else:
            content = unpacked(payload, raw) if codec else payload
        yield codec, dtype, first, content
        offset += raw
        at += 24 + stored
    assert (at, offset) == (len(encoded), length)


def decoded(encoded: bytes, fetch: Fetch = no_bases) -> bytes:
    return b"".join(content for _, _, _, content in frames_of(encoded, fetch))


def stored_in(pack: bytes) -> dict[bytes, tuple[bytes, int]]:
    """Encoded objects and their raw lengths by digest."""
    assert (pack[:8], pack[-8:]) == (b"STMPACK1", b"STMPKEND")
    start, count = struct.unpack_from("<QQ", pack, len(pack) - 64)
    index = pack[start:-64]
    assert (len(index), digest(index)) == (64 * count, pack[-48:-16])
    found = {}
    for row in range(0, len(index), 64):
        at, stored, raw = struct.unpack_from("<QQQ", index, row + 32)
        encoded = pack[at : at + stored]
        assert index[row + 56 : row + 64] == digest(encoded)[:8]
        found[index[row : row + 32]] = (encoded, raw)
    return found


def all_objects(packs: dict[str, bytes]) -> dict[str, dict[str, bytes]]:
    """The content of every object of every pack, by names in hex."""
    stored = {name: stored_in(data) for name, data in packs.items()}

    def fetch(pack: bytes, name: bytes) -> bytes:
        return stored[pack.hex()][name][0]

    found: dict[str, dict[str, bytes]] = {}
    for pack, objects in stored.items():
        found[pack] = {}
        for name, (encoded, raw) in objects.items():
            content = decoded(encoded, fetch)
            assert (digest(content), len(content)) == (name, raw)
            found[pack][name.hex()] = content
    return found
