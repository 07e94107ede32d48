"""Damaged and hostile deltas, casts and chains: refused one by one, in bounded memory and work (I4)."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from crafted_objects import frame, header, plane, raw_object
from kernel_choices import WAYS, use
from stemmata.codecs import delta
from stemmata.codecs.decoding import ObjectDecoder, Stored, decode_object, verify_stored
from stemmata.codecs.dtypes import DTYPES, dtype_of
from stemmata.codecs.frames import MAX_CHAIN, MAX_WORK, Reference
from stemmata.errors import Damage, DamagedObject, HostileData, MissingObject, StemmataError
from stemmata.ids import Digest, PackName
from tensor_pairs import CODED, pair

MIB = 1 << 20
PACK = bytes(16)
ZSTD = zstandard.ZstdCompressor()
U8, F32 = dtype_of("U8"), dtype_of("F32")


class Store:
    """Encoded objects by the name that references give them, true or not; counts what is fetched."""

    def __init__(self) -> None:
        self.held: dict[bytes, tuple[bytes, int]] = {}
        self.fetched = 0

    def put(self, name: bytes, encoded: bytes, raw: int) -> None:
        self.held[Digest.of(name).raw] = encoded, raw

    def fetch(self, base: Reference) -> Stored:
        self.fetched += 1
        if base.digest.raw not in self.held:
            raise MissingObject(digest=base.digest)
        encoded, raw = self.held[base.digest.raw]
        return Stored(encoded, raw, base.digest, "base" * 8)

    def decode(self, encoded: bytes, raw: int, content: bytes = b"never this") -> bytearray:
        return decode_object(
            encoded, raw_length=raw, digest=Digest.of(content), where="p" * 32, fetch=self.fetch
        )


def leaning(
    payload: bytes, *, raw: int, dtype: int, codec: int = 3, bases: int = 1, name: bytes = b"base"
) -> bytes:
    """An object of one frame; `payload` begins with the number of the reference."""
    named = [(PACK, Digest.of(name).raw)] * bases
    return header(frames=1, raw=raw, dtype=dtype, bases=named) + frame(
        payload, raw=raw, codec=codec, dtype=dtype
    )


def plain(content: bytes, dtype: int) -> bytes:
    return header(frames=1, raw=len(content), dtype=dtype) + frame(content, dtype=dtype)


def with_base(content: bytes, dtype: int) -> Store:
    store = Store()
    store.put(b"base", plain(content, dtype), len(content))
    return store


def streams(*parts: bytes) -> bytes:
    return b"\0" + b"".join(map(plane, parts))


# 300 elements: three blocks, the last of 44.
U8_BASE = bytes(300)
F32_BASE = np.full(300, 1.5, "<f4").tobytes()
NAN_BASE = np.full(300, np.nan, "<f4").tobytes()
ALL = b"\1\1\1"
TOKENS = bytes(300)

DAMAGED_U8 = {
    "unknown class": streams(b"\1\1\3", TOKENS, b""),
    "unknown class ": streams(b"\1\1\2", TOKENS, b""),
    "a stream of 3 bytes holds 2": streams(b"\1\1", TOKENS, b""),
    "a stream of 300 bytes holds 299": streams(ALL, TOKENS[1:], b""),
    "a stream of 300 bytes holds 301": streams(ALL, bytes(301), b""),
    "a stream of 128 bytes holds 300": streams(b"\1\0\0", TOKENS, b""),
    "a stream is cut off": streams(ALL, TOKENS),
    "a stream is cut off ": streams(ALL),
    "a stream is cut off  ": b"\0",
    "a stream is cut off   ": b"\0\0\0\0",
    "raw bits": streams(ALL, TOKENS, b"x"),
    "bytes follow the last stream": streams(ALL, TOKENS, b"") + b"x",
    "bytes follow the last stream ": streams(ALL, TOKENS, b"", bytes(1), bytes(1)),
    "longer than its frame": b"\0" + plane(ALL, stored=4),
    "unknown mode": b"\0" + plane(ALL, mode=2),
    "no sound header": b"\0" + plane(b"no zstd", mode=1),
    "of 3 bytes states 2": b"\0" + plane(ZSTD.compress(b"\1\1"), mode=1),
    "at most 300 bytes holds": streams(ALL, TOKENS, bytes(301)),
    "at most 300 bytes holds ": b"\0" + plane(ALL) + plane(TOKENS) + plane(ZSTD.compress(b""), mode=1),
    "reference that is not there": b"\1" + streams(ALL, TOKENS, b"")[1:],
    "reference that is not there ": b"\xff" + streams(ALL, TOKENS, b"")[1:],
    "reference that is not there  ": b"",
}

DAMAGED_F32 = {
    "token": streams(ALL, b"\xf0" + TOKENS[1:], b""),
    "raw bits": streams(ALL, b"\x10" + TOKENS[1:], b""),
    "raw bits ": streams(ALL, b"\x10" + TOKENS[1:], b"\0\0"),
    "raw bits  ": streams(ALL, b"\xef" + TOKENS[1:], b"\0\0\0"),
    "a stream of 44 bytes holds 43": streams(b"\0\0\2", b"", bytes(43), bytes(44)),
    "a stream of 44 bytes holds 45": streams(b"\0\0\2", b"", bytes(44), bytes(45)),
    "a stream is cut off": streams(b"\0\0\2", b"", bytes(44)),
    "unknown class": streams(b"\0\0\4", b""),
}


@pytest.mark.parametrize("kernel", WAYS)
@pytest.mark.parametrize(
    ("reason", "word"), [*((r, "U8") for r in DAMAGED_U8), *((r, "F32") for r in DAMAGED_F32)]
)
def test_i4_damaged_streams_are_refused(
    kernel, reason: str, word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(kernel, monkeypatch)
    content, table = (U8_BASE, DAMAGED_U8) if word == "U8" else (F32_BASE, DAMAGED_F32)
    dtype = dtype_of(word)
    out = leaning(table[reason], raw=len(content), dtype=dtype.code)
    with pytest.raises(DamagedObject, match=reason.strip()) as caught:
        with_base(content, dtype.code).decode(out, len(content))
    assert caught.value.data["pack"] == "p" * 32


@pytest.mark.parametrize("word", ["", "BOOL"])
def test_i4_deltas_of_what_is_no_number_are_refused(word: str) -> None:
    code = dtype_of(word).code
    out = leaning(streams(ALL, TOKENS, b""), raw=300, dtype=code)
    for read in (lambda: with_base(U8_BASE, code).decode(out, 300), lambda: verify_stored(out, "p" * 32)):
        with pytest.raises(DamagedObject, match="a delta of"):
            read()


@pytest.mark.parametrize("dtype", [d for d in DTYPES if d.word not in ("F16", "BF16")], ids=lambda d: d.word)
def test_i4_casts_to_other_than_halves_are_refused(dtype) -> None:
    out = leaning(b"\0", raw=8, dtype=dtype.code, codec=4)
    with pytest.raises(DamagedObject, match="a cast to"):
        with_base(bytes(16), F32.code).decode(out, 8)


@pytest.mark.parametrize("word", ["F16", "BF16"])
def test_i4_the_rounding_of_nan_is_refused(word: str) -> None:
    code = dtype_of(word).code
    store = with_base(NAN_BASE, F32.code)
    with pytest.raises(DamagedObject, match="a cast of NaN"):
        store.decode(leaning(b"\0", raw=600, dtype=code, codec=4), 600)
    with pytest.raises(DamagedObject, match="the rounding of NaN"):
        store.decode(leaning(streams(ALL, TOKENS, b""), raw=600, dtype=code), 600)
    with pytest.raises(DamagedObject, match="follow the reference"):
        with_base(F32_BASE, F32.code).decode(leaning(b"\0x", raw=600, dtype=code, codec=4), 600)


# --- bases that do not fit ----------------------------------------------------------------------------

SOUND = streams(ALL, TOKENS, b"")
HALVES = [frame(U8_BASE[:128], dtype=2), frame(U8_BASE[128:], dtype=2)]

MISFITS: dict[str, tuple[bytes, int, str]] = {
    "of another dtype": (plain(U8_BASE, 3), 300, "another kind"),
    "that is plain bytes": (raw_object(U8_BASE), 300, "another kind"),
    "longer": (plain(bytes(301), 2), 301, "another size"),
    "shorter": (plain(bytes(299), 2), 299, "another size"),
    "empty": (header(frames=0, raw=0, dtype=2), 0, "another size"),
    "in other frames": (header(frames=2, raw=300, dtype=2) + b"".join(HALVES), 300, "kind or size"),
    "in frames of several dtypes": (
        header(frames=2, raw=300, dtype=2) + HALVES[0] + frame(U8_BASE[128:], dtype=3),
        300,
        "several dtypes",
    ),
    "whose pack tells another length": (plain(U8_BASE, 2), 301, "where its pack says"),
    "cut off": (plain(U8_BASE, 2)[:-1], 300, "cut off"),
    "damaged": (plain(U8_BASE, 2)[:-1] + b"x", 300, "fails its checksum"),
}


@pytest.mark.parametrize("what", MISFITS)
def test_i4_a_base_that_does_not_fit_is_refused(what: str) -> None:
    encoded, raw, reason = MISFITS[what]
    store = Store()
    store.put(b"base", encoded, raw)
    with pytest.raises(DamagedObject, match=reason):
        store.decode(leaning(SOUND, raw=300, dtype=2), 300)


def test_i4_a_fault_of_a_base_is_told_of_the_base() -> None:
    store = Store()
    store.put(b"base", plain(U8_BASE, 2)[:-1] + b"x", 300)
    with pytest.raises(DamagedObject) as caught:
        store.decode(leaning(SOUND, raw=300, dtype=2), 300)
    assert (caught.value.data["digest"], caught.value.data["pack"]) == (Digest.of(b"base").hex, "base" * 8)


def test_i4_a_wrong_base_of_the_right_shape_is_found_by_the_digest() -> None:
    with pytest.raises(DamagedObject, match="not what its digest says"):
        with_base(b"\1" * 300, 2).decode(leaning(SOUND, raw=300, dtype=2), 300, U8_BASE)
    assert with_base(U8_BASE, 2).decode(leaning(SOUND, raw=300, dtype=2), 300, U8_BASE) == U8_BASE


def test_i4_a_base_that_is_not_there_is_missing() -> None:
    with pytest.raises(MissingObject, match=Digest.of(b"base").short):
        Store().decode(leaning(SOUND, raw=300, dtype=2), 300)
    with pytest.raises(DamagedObject, match="out of reach"):
        decode_object(
            leaning(SOUND, raw=300, dtype=2), raw_length=300, digest=Digest.of(U8_BASE), where="p" * 32
        )


@pytest.mark.parametrize("narrow", ["F16", "BF16"])
def test_i4_a_cast_of_its_own_kind_is_refused(narrow: str) -> None:
    code = dtype_of(narrow).code
    with pytest.raises(DamagedObject, match="another kind"):
        with_base(bytes(600), code).decode(leaning(b"\0", raw=600, dtype=code, codec=4), 600)


def test_frames_of_several_dtypes_lean_on_nothing() -> None:
    out = header(frames=2, raw=300, dtype=2, bases=[(PACK, Digest.of(b"base").raw)])
    out += frame(U8_BASE[:128], dtype=3)
    out += frame(streams(b"\0\0", b""), raw=172, codec=3, dtype=2)
    with pytest.raises(DamagedObject, match="several dtypes"):
        with_base(U8_BASE, 2).decode(out, 300)


# --- chains ---------------------------------------------------------------------------------------------


def chain(length: int, bases: int = 1) -> tuple[Store, bytes]:
    """An object that leans on `length` others, one after another, through each of its references."""
    store = with_base(U8_BASE, 2)
    name = b"base"
    unchanged = streams(b"\0\0\0", b"")[1:]
    out = plain(U8_BASE, 2)
    for step in range(length):
        named = [(PACK, Digest.of(name).raw)] * bases
        out = header(frames=1, raw=300, dtype=2, bases=named) + frame(
            bytes([bases - 1]) + unchanged, raw=300, codec=3, dtype=2
        )
        name = b"step %d" % step
        store.put(name, out, 300)
    return store, out


def test_a_chain_of_eight_is_read_and_one_of_nine_refused() -> None:
    store, out = chain(MAX_CHAIN)
    assert store.decode(out, 300, U8_BASE) == U8_BASE
    assert ObjectDecoder(Stored(out, 300, Digest.of(U8_BASE), "x"), store.fetch).work == 300 * 9
    store, out = chain(MAX_CHAIN + 1)
    with pytest.raises(HostileData, match="a chain of more than 8"):
        store.decode(out, 300, U8_BASE)


def test_objects_that_lean_on_each_other_are_refused() -> None:
    store = Store()
    unchanged = streams(b"\0\0\0", b"")
    one = leaning(unchanged, raw=300, dtype=2, name=b"two")
    two = leaning(unchanged, raw=300, dtype=2, name=b"one")
    store.put(b"one", one, 300)
    store.put(b"two", two, 300)
    for out in (one, two, leaning(unchanged, raw=300, dtype=2, name=b"one")):
        with pytest.raises(HostileData, match="a chain of more than 8"):
            store.decode(out, 300)
    assert store.fetched < 40


@pytest.mark.parametrize("size", [1, 128, 128 << 10])
def test_many_references_at_every_level_are_refused_before_they_are_followed(size: int) -> None:
    """Four at each of eight levels: without a bound 65,536 objects would be fetched and parsed."""
    store = Store()
    store.put(b"0", header(frames=4, raw=4 * size, dtype=2) + frame(bytes(size), dtype=2) * 4, 4 * size)
    unchanged = plane(bytes(-(-size // 128))) + plane(b"")
    for level in range(MAX_CHAIN):
        named = [(PACK, Digest.of(b"%d" % level).raw)] * 4
        out = header(frames=4, raw=4 * size, dtype=2, bases=named)
        for number in range(4):
            out += frame(bytes([number]) + unchanged, raw=size, codec=3, dtype=2)
        store.put(b"%d" % (level + 1), out, 4 * size)
    with pytest.raises(HostileData, match="would be decoded"):
        store.decode(out, 4 * size, bytes(4 * size))
    assert store.fetched == MAX_WORK


def test_little_bases_are_no_way_around_the_bound() -> None:
    """A base of one element and of four such: they do not fit, and are not even all fetched."""
    store = Store()
    tiny = header(frames=1, raw=4, dtype=2, bases=[(PACK, Digest.of(b"tiny").raw)] * 4)
    tiny += frame(streams(b"\0", b""), raw=4, codec=3, dtype=2)
    store.put(b"tiny", tiny, 4)
    with pytest.raises(StemmataError):
        store.decode(leaning(streams(b"\0" * 1024, b""), raw=128 << 10, dtype=2, name=b"tiny"), 128 << 10)
    assert store.fetched <= MAX_WORK


def test_bases_of_wider_elements_count_with_their_own_bytes() -> None:
    store = Store()
    store.put(b"base", plain(F32_BASE, F32.code), 1200)
    out = leaning(b"\0", raw=600, dtype=dtype_of("BF16").code, codec=4)
    found = ObjectDecoder(Stored(out, 600, Digest.of(b""), "x"), store.fetch)
    assert found.work == 600 + 1200


# --- memory ---------------------------------------------------------------------------------------------


def traced(read: Callable[[], object]) -> int:
    """Bytes at the peak of a read that is refused."""
    tracemalloc.start()
    try:
        with pytest.raises(Damage):
            read()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


BOMB = ZSTD.compress(bytes(256 * MIB))


@pytest.mark.parametrize("kernel", WAYS)
@pytest.mark.parametrize("at", range(4))
def test_a_bomb_in_any_stream_takes_no_memory(kernel, at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    use(kernel, monkeypatch)
    parts = [plane(b"\0\2\1"), plane(bytes(44)), plane(b""), plane(bytes(128)), plane(bytes(128))]
    place = at if at < 2 else at + 1
    parts[place] = plane(BOMB, mode=1)
    store = with_base(F32_BASE, F32.code)
    out = leaning(b"\0" + b"".join(parts), raw=1200, dtype=F32.code)
    assert traced(lambda: store.decode(out, 1200)) < 4 * MIB
    with pytest.raises(HostileData, match="bytes states 268435456"):
        store.decode(out, 1200)


def test_raw_bits_are_never_a_bomb() -> None:
    store = with_base(F32_BASE, F32.code)
    out = leaning(b"\0" + plane(ALL) + plane(TOKENS) + plane(BOMB, mode=1), raw=1200, dtype=F32.code)
    with pytest.raises(DamagedObject, match="a stream of at most 1200 bytes"):
        store.decode(out, 1200)


def test_an_object_that_claims_much_takes_little_until_its_base_fits() -> None:
    raw = 64 * MIB
    frames = [frame(b"\0", raw=512 << 10, codec=3, dtype=12)] * 128
    out = header(frames=128, raw=raw, dtype=12, bases=[(PACK, Digest.of(b"base").raw)]) + b"".join(frames)
    store = with_base(F32_BASE, F32.code)
    assert traced(lambda: store.decode(out, raw)) < 4 * MIB


# --- anything at all --------------------------------------------------------------------------------------

SMALL = 600
_payloads: dict[str, tuple[bytes, bytes, bytes]] = {}


def sample(word: str) -> tuple[bytes, bytes, bytes]:
    """Content, base and a sound payload."""
    if word not in _payloads:
        dtype = dtype_of(word)
        data, base = pair(f"fuzz {word}", SMALL, dtype)
        payload = b"".join(delta.encode(data, base, dtype, delta.Habits(repeats=False)))
        _payloads[word] = data.tobytes(), base.tobytes(), b"\0" + payload
    return _payloads[word]


@pytest.mark.parametrize("kernel", WAYS)
@given(word=st.sampled_from([dtype.word for dtype in CODED]), data=st.data())
@settings(max_examples=300)
def test_i4_any_change_of_a_payload_is_refused_or_harmless(kernel, word: str, data: st.DataObject) -> None:
    """With right checksums, so that the kernels meet it: refused, or the same content after all."""
    content, base, payload = sample(word)
    changed = bytearray(payload)
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(changed) - 1))
        how = data.draw(st.integers(0, 2))
        if how == 0:
            changed[at] ^= data.draw(st.integers(1, 255))
        elif how == 1:
            del changed[at : at + data.draw(st.integers(1, 40))]
        else:
            changed[at:at] = data.draw(st.binary(min_size=1, max_size=9))
        changed = changed or bytearray(b"\0")
    code = dtype_of(word).code
    out = leaning(bytes(changed), raw=len(content), dtype=code)
    with pytest.MonkeyPatch.context() as patched:
        use(kernel, patched)
        try:
            assert with_base(base, code).decode(out, len(content), content) == content
        except Damage:
            pass


@given(payload=st.binary(max_size=80), word=st.sampled_from([dtype.word for dtype in CODED]))
def test_i4_any_payload_at_all_is_refused(payload: bytes, word: str) -> None:
    content, base, _ = sample(word)
    code = dtype_of(word).code
    with pytest.raises(Damage):
        with_base(base, code).decode(leaning(b"\0" + payload, raw=len(content), dtype=code), len(content))


@given(st.data())
def test_i4_any_references_are_refused(data: st.DataObject) -> None:
    """Small objects that lean on each other at random, forwards and backwards: an answer, and a quick one."""
    store, unchanged = Store(), streams(b"\0", b"")[1:]
    for name in range(4):
        count = data.draw(st.integers(0, 4))
        named = [(PACK, Digest.of(b"%d" % data.draw(st.integers(0, 4))).raw) for _ in range(count)]
        used = [bytes([data.draw(st.integers(0, 4))]) for _ in range(data.draw(st.integers(0, 4)))]
        out = header(frames=len(used), raw=4 * len(used), dtype=2, bases=named)
        for number in used:
            out += frame(number + unchanged, raw=4, codec=3, dtype=2)
        store.put(b"%d" % name, out, 4 * len(used))
    encoded, raw = store.held[Digest.of(b"0").raw]
    if raw:
        with pytest.raises(Damage):
            store.decode(encoded, raw)
    assert store.fetched <= MAX_WORK


def test_names_of_packs_are_what_is_asked_for() -> None:
    asked: list[Reference] = []

    def fetch(base: Reference) -> Stored:
        asked.append(base)
        raise MissingObject(digest=base.digest)

    out = header(frames=1, raw=300, dtype=2, bases=[(bytes(range(16)), Digest.of(b"x").raw)])
    out += frame(SOUND, raw=300, codec=3, dtype=2)
    with pytest.raises(MissingObject):
        decode_object(out, raw_length=300, digest=Digest.of(b""), where="x", fetch=fetch)
    assert asked == [Reference(PackName(bytes(range(16))), Digest.of(b"x"))]
