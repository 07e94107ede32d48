"""FORMAT.md is enough: a second reader, made from that page and nothing of stemmata, reads the repository."""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard
from blake3 import blake3

GOLDEN = Path(__file__).parent / "v1"
ROOT = GOLDEN / "repository"
WIDTHS = [1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 4, 4, 4, 8, 8, 8]
FLOATS = {8, 9, 12, 15}


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


def planes(payload: bytes, dtype: int, raw: int) -> bytes:
    width = WIDTHS[dtype]
    columns, at = [], 0
    for _ in range(width):
        mode, stored = struct.unpack_from("<BI", payload, at)
        plane = payload[at + 5 : at + 5 + stored]
        columns.append(np.frombuffer(unpacked(plane, raw // width) if mode else plane, np.uint8))
        at += 5 + stored
    assert at == len(payload)
    words = np.stack(columns, 1).reshape(-1).view(f"<u{width}")
    if dtype in FLOATS:
        words = (words >> 1) | (words << (8 * width - 1)).astype(words.dtype)
    return words.tobytes()


def decoded(encoded: bytes) -> bytes:
    magic, layout, _, references, frames, length = struct.unpack_from("<BBBBIQ", encoded)
    assert (magic, layout) == (0xB5, 1)
    at = 16 + 48 * references
    assert encoded[at : at + 8] == digest(encoded[:at])[:8]
    at += 8
    content = b""
    for _ in range(frames):
        head = encoded[at : at + 16]
        codec, dtype, _, raw, stored, _ = struct.unpack("<BBHIII", head)
        payload = encoded[at + 24 : at + 24 + stored]
        assert encoded[at + 16 : at + 24] == digest(head + payload)[:8]
        content += (
            payload if codec == 0 else unpacked(payload, raw) if codec == 1 else planes(payload, dtype, raw)
        )
        at += 24 + stored
    assert (at, len(content)) == (len(encoded), length)
    return content


def objects_of(pack: bytes) -> dict[str, bytes]:
    assert (pack[:8], pack[-8:]) == (b"STMPACK1", b"STMPKEND")
    start, count = struct.unpack_from("<QQ", pack, len(pack) - 64)
    index = pack[start:-64]
    assert (len(index), digest(index)) == (64 * count, pack[-48:-16])
    found = {}
    for row in range(0, len(index), 64):
        name = index[row : row + 32]
        at, stored, raw = struct.unpack_from("<QQQ", index, row + 32)
        encoded = pack[at : at + stored]
        assert index[row + 56 : row + 64] == digest(encoded)[:8]
        content = decoded(encoded)
        assert (digest(content), len(content)) == (name, raw)
        found[name.hex()] = content
    return found


@pytest.fixture(scope="module")
def entries() -> list[bytes]:
    """Every entry of the log, its seal and the chain checked."""
    before = (ROOT / "stemmata.json").read_bytes()
    assert json.loads(body_of(before))["magic"] == "stemmata"
    found: list[bytes] = []
    while (path := ROOT / f"log/{len(found) + 1:020d}.json").exists():
        entry = json.loads(body_of(path.read_bytes()))
        assert (entry["n"], entry["prev"]) == (len(found) + 1, digest(before).hex())
        before = path.read_bytes()
        found.append(before)
    return found


def test_bundles_hold_the_entries(entries: list[bytes]) -> None:
    paths = list(ROOT.glob("bundles/*/*.bundle"))
    assert paths
    for path in paths:
        data = path.read_bytes()
        assert data[-32:] == digest(data[:-32])
        magic, first, last, blocks = struct.unpack_from("<8sQQI", data)
        assert magic == b"STMBNDL1"
        held, at = [], 28
        for _ in range(blocks):
            raw, stored = struct.unpack_from("<II", data, at)
            block = unpacked(data[at + 8 : at + 8 + stored], raw)
            at += 8 + stored
            while block:
                end = 4 + int.from_bytes(block[:4], "little")
                held.append(block[4:end])
                block = block[end:]
        assert at == len(data) - 32
        assert held == entries[first - 1 : last]


def test_every_version_and_every_byte_is_read(entries: list[bytes]) -> None:
    told = {
        v["id"]: v for v in json.loads((GOLDEN / "expected.json").read_text(encoding="utf-8"))["versions"]
    }
    packs = {path.stem: path.read_bytes() for path in ROOT.glob("packs/*/*.pack")}
    objects = {name: objects_of(data) for name, data in packs.items()}
    ops = [op for entry in entries for op in json.loads(body_of(entry))["ops"]]
    for op in ops:
        if op["op"] == "pack.add" and op["pack"] in packs:
            pack = packs[op["pack"]]
            assert (op["size"], op["digest"]) == (len(pack), digest(pack).hex())
    places = {op["version"]: op for op in ops if op["op"] == "version.place"}
    read = set()
    for entry in entries:
        for op in json.loads(body_of(entry))["ops"]:
            if op["op"] == "version.add" and (version := digest(verbatim(entry)).hex()) in told:
                place = places.get(version, op)
                held = {name: data for pack in place["packs"] for name, data in objects[pack].items()}
                assert files_of(place, op["record"], held) == told[version]["files"]
                read.add(version)
    assert read == set(told)


def verbatim(entry: bytes) -> bytes:
    """The bytes of the entry's one record."""
    body = body_of(entry).decode()
    start = body.index('"record":') + len('"record":')
    return body[start : json.JSONDecoder().raw_decode(body, start)[1]].encode()


def files_of(place: Any, record: Any, held: dict[str, bytes]) -> dict[str, Any]:
    tree = json.loads(b"".join(held[name] for name in place["tree"]))
    content, found = blake3(b"stemmata content 1\n"), {}
    for file in tree["files"]:
        segments = file.get("segments", [])
        data = b"".join(held[name] for segment in segments for name in segment["objects"])
        assert sum(segment["length"] for segment in segments) == len(data) == file["size"]
        assert digest(data).hex() == file["digest"]
        path = file["path"].encode()
        content.update(
            b"f" + struct.pack("<I", len(path)) + path + struct.pack("<Q", len(data)) + digest(data)
        )
        found[file["path"]] = [len(data), hashlib.sha256(data).hexdigest(), file.get("executable", False)]
    for folder in tree.get("empty_folders", []):
        content.update(b"d" + struct.pack("<I", len(folder.encode())) + folder.encode())
    assert content.hexdigest() == record["content"]["digest"]
    assert set(record.get("provenance", {}).values()) <= held.keys()
    return found
