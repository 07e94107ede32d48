"""FORMAT.md is enough: a second reader, made from that page and nothing of stemmata, reads the repository."""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

from golden.second_reader import all_objects, body_of, digest, unpacked

HERE = Path(__file__).parent


@pytest.fixture(scope="module", params=["v1", "v2"])
def golden(request: pytest.FixtureRequest) -> Path:
    return HERE / str(request.param)


@pytest.fixture(scope="module")
def entries(golden: Path) -> list[bytes]:
    """Every entry of the log, its seal and the chain checked."""
    root = golden / "repository"
    before = (root / "stemmata.json").read_bytes()
    assert json.loads(body_of(before))["magic"] == "stemmata"
    found: list[bytes] = []
    while (path := root / f"log/{len(found) + 1:020d}.json").exists():
        entry = json.loads(body_of(path.read_bytes()))
        assert (entry["n"], entry["prev"]) == (len(found) + 1, digest(before).hex())
        before = path.read_bytes()
        found.append(before)
    return found


def test_bundles_hold_the_entries(golden: Path, entries: list[bytes]) -> None:
    paths = list(golden.glob("repository/bundles/*/*.bundle"))
    assert len(paths) == (len(entries) >= 256)
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


def test_every_version_and_every_byte_is_read(golden: Path, entries: list[bytes]) -> None:
    text = (golden / "expected.json").read_text(encoding="utf-8")
    told = {version["id"]: version for version in json.loads(text)["versions"]}
    packs = {path.stem: path.read_bytes() for path in golden.glob("repository/packs/*/*.pack")}
    objects = all_objects(packs)
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
