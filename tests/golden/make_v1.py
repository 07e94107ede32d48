"""Make the golden repository of format 1: `python tests/golden/make_v1.py tests/golden/v1`.

Run once, when the format settled; what it made is committed and never made again. It holds every op,
codec, dtype and corner that format 1 knows, and beside it, in `expected.json`, what reading must give.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np

from stemmata.ids import Digest
from stemmata.log import ops
from stemmata.log.bundles import write_due_bundles
from stemmata.log.entries import log_key, seal
from stemmata.log.identity import create_identity
from stemmata.objects import ObjectWriter
from stemmata.records import Base, Run
from stemmata.repository import Repository
from stemmata.storage.memory import MemoryStorage
from stemmata.version import Version

SETTINGS = {"~tilde": "~nan is text", "flag": True, "none": None, "big": 2**80, "list": [1, 2.5, "x"]}
HIDDEN = {"scratch@hidden": "deleted", "scratch@forgotten": "forgotten"}
AUTHOR = "golden@stemmata"
ITEM = {"BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "I16": 2, "U16": 2, "F16": 2}
ITEM |= {"BF16": 2, "I32": 4, "U32": 4, "F32": 4, "I64": 8, "U64": 8, "F64": 8}


def safetensors(tensors: dict[str, tuple[str, list[int], bytes]]) -> bytes:
    """A safetensors file of (dtype, shape, bytes) by name."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, (dtype, shape, data) in tensors.items():
        assert len(data) == math.prod(shape) * ITEM[dtype]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, offset + len(data)]}
        offset += len(data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + b"".join(data for _, _, data in tensors.values())


def every_dtype() -> bytes:
    """A tensor of each dtype, with the bit patterns that libraries like to lose."""
    rng = np.random.default_rng(1)
    tensors: dict[str, tuple[str, list[int], bytes]] = {}
    for dtype, size in ITEM.items():
        count = 96
        data = rng.integers(0, 2 if dtype == "BOOL" else 256, count * size, np.uint8).tobytes()
        tensors[f"layer.0.{dtype.lower()}"] = (dtype, [8, 12], data)
    special = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1e-45, -3.4e38, 1.0], "<f4")
    payload = np.array([0x7FC00001, 0xFFC0BEEF, 0x7F800001, 0x80000001], "<u4")
    tensors["specials"] = ("F32", [12], special.tobytes() + payload.tobytes())
    tensors["scalar"] = ("F64", [], np.array(math.pi, "<f8").tobytes())
    tensors["nothing"] = ("F16", [0, 4], b"")
    # Longer than one frame, and of a kind that byte planes make small.
    wave = (1 + np.arange(140_000, dtype="<f4") / 2**18).astype("<f4")
    tensors["wave"] = ("F32", [140_000], wave.tobytes())
    return safetensors(tensors)


def adapter(seed: int, rank: int) -> bytes:
    rng = np.random.default_rng(seed)
    tensors: dict[str, tuple[str, list[int], bytes]] = {}
    for layer in range(2):
        prefix = f"base_model.model.layers.{layer}.q_proj"
        for side, shape in (("A", [rank, 16]), ("B", [16, rank])):
            data = rng.normal(size=shape).astype("<f4").tobytes()
            tensors[f"{prefix}.lora_{side}.weight"] = ("F32", shape, data)
    return safetensors(tensors)


def write_adapter(folder: Path, seed: int, rank: int) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": 2 * rank,
        "target_modules": ["q_proj"],
        "base_model_name_or_path": "toy/base",
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))
    (folder / "adapter_model.safetensors").write_bytes(adapter(seed, rank))
    return folder


def fill(repo: Repository, work: Path) -> None:
    """Every op of format 1, most of them as people would cause them."""
    whole = work / "whole"
    (whole / "пустая" / "空").mkdir(parents=True)
    (whole / "all.safetensors").write_bytes(every_dtype())
    (whole / "empty.bin").write_bytes(b"")
    (whole / "config.json").write_text('{"model_type": "toy", "hidden_size": 16}')
    (whole / "読んで 🙂.txt").write_text("Grüße, мир, 世界\n" * 50, encoding="utf-8")
    (whole / "run.sh").write_text("#!/bin/sh\n")
    (whole / "run.sh").chmod(0o755)
    base = repo.save(whole, "team/основа", name="base", message="the base", provenance={})

    run = [Run(id=f"{i:032x}", name=name) for i, name in ((1, "r4"), (2, "r8-é"))]
    for place, rank in enumerate((4, 8)):
        for epoch in (1, 2):
            version = repo.save(
                write_adapter(work / "adapter", 10 * rank + epoch, rank),
                "Sentiment",
                name=f"{run[place].name}/epoch-{epoch}",
                run=run[place],
                step=50 * epoch,
                epoch=epoch - 0.5 * (epoch == 1),
                event="epoch",
                metrics={"eval_loss": 1 / (rank + epoch), "odd": math.nan, "big": math.inf * (-1) ** epoch},
                config=SETTINGS,
                data={"rows": 12_000, "fingerprint": "00ff"},
                base=Base("toy/base", "main", base.record.content.digest, [("m", 1, "0" * 64)], base.id.hex),
                provenance={"command": b'["train.py"]', "packages": b'{"torch":"2.13.0"}'},
                message=f"rank {rank}\nepoch {epoch}",
                labels={"team": "search"} if epoch == 2 else None,
                alias="staging" if epoch == 2 else None,
            )
        repo.alias("Sentiment", "production", version, why=f"gate {rank}")
    repo.rollback("Sentiment", "production", why="latency")
    repo.tag("Sentiment", "v1.0", "Sentiment@r4/epoch-2")
    repo.name("Sentiment", "r4/final", "Sentiment@r4/epoch-2")
    repo.configure("Sentiment", metric="eval_loss", direction="min")
    repo.annotate("Sentiment@v1.0", metrics={"human": 4.5, "odd": -math.inf}, notes="fine", why="review")
    repo.annotate("Sentiment@v1.0", labels={"team": None, "stage": "gold"})
    repo.alias("Sentiment", "gone", "Sentiment@v1.0")
    repo.unalias("Sentiment", "gone", why="no use")
    _attach(repo)
    _delete(repo, work)


def _attach(repo: Repository) -> None:
    """An annotation with stored objects and details; a redaction."""
    session = repo.session
    writer = ObjectWriter(session.storage, lambda digest: [], session.reader)
    outputs = writer.put(b'[{"answer":"yes"}]' * 20, "bytes").hex
    packs = writer.finish()
    version = repo["Sentiment@v1.0"].id.hex
    attach = ops.VersionAnnotate(
        version=version,
        objects={"outputs": outputs},
        packs=[packs[0].name.hex],
        details={"data": "held-out", "n": 20},
        event="eval",
    )
    session.commit(lambda catalog: [attach], new_packs=packs)
    session.commit(lambda catalog: [ops.VersionRedact(version=version, items=["command"], why="a name")])


def _delete(repo: Repository, work: Path) -> None:
    """Deleted, restored, forgotten, moved to other packs; packs retired and dropped."""
    session = repo.session
    for name in ("hidden", "restored", "forgotten"):
        (work / "note.txt").write_text(name * 30)
        repo.save(work / "note.txt", "scratch", name=name, provenance={})
    ids = {name: repo[f"scratch@{name}"].id.hex for name in ("hidden", "restored", "forgotten")}
    row = repo["scratch@forgotten"]._row
    packs = [pack.hex for pack in session.packs(row)]
    session.commit(lambda catalog: [ops.VersionDelete(version=v, why="tidy") for v in ids.values()])
    session.commit(lambda catalog: [ops.VersionRestore(version=ids["restored"])])
    forget = ops.VersionForget(versions=[ids["forgotten"]], why="for good")
    session.commit(lambda catalog: [forget, ops.PackRetire(packs=packs, why="nothing needs them")])
    session.commit(lambda catalog: [ops.PackDrop(packs=packs)])
    for pack in packs:
        session.storage.delete(f"packs/{pack[:2]}/{pack}.pack")
    # The same content in a pack of its own, as a repack would put it.
    found = repo["scratch@restored"]
    writer = ObjectWriter(session.storage, lambda digest: [], session.reader)
    wanted = [*found._row.tree, *(o for f in found.files for s in f.segments for o in s.objects)]
    for digest in wanted:
        writer.put(session.read_object(found._row, digest), "bytes")
    new = writer.finish()
    place = ops.VersionPlace(version=found.id.hex, tree=list(found._row.tree), packs=[new[0].name.hex])
    session.commit(lambda catalog: [place], new_packs=new)


def add_void(storage: MemoryStorage, n: int) -> None:
    """An entry without effect, as the loser of a race between older programs might have left it."""
    previous = Digest.of(storage.get(log_key(n - 1))).hex
    op = {"op": "ref.delete", "model": "Sentiment", "kind": "alias", "name": "nope", "expect": "0" * 64}
    entry = {"n": n, "format": 1, "txn": "0" * 32, "prev": previous, "at": "2026-01-01T00:00:00.000000Z"}
    storage.put_new(log_key(n), seal(json.dumps({**entry, "by": AUTHOR, "ops": [op]}).encode()))


def expected(repo: Repository) -> dict[str, object]:
    """What reading must give, in terms that need nothing of stemmata."""
    versions = [describe(v) for v in repo.versions()]
    return {
        "repository": repo.id,
        "entries": repo.session.catalog.position.n,
        "versions": sorted(versions, key=lambda v: str(v["id"])),
        "hidden": HIDDEN,
        "history": [
            [m.before and m.before.hex, m.after and m.after.hex, m.at, m.by, m.why, m.rollback]
            for m in repo.history("Sentiment", "production")
        ],
        "best": repo.best("Sentiment").id.hex,
    }


def describe(version: Version) -> dict[str, object]:
    """One version as plain JSON."""
    found = version.to_dict()
    found["metrics"] = {k: repr(v) for k, v in version.metrics.items()}
    found["config"] = {k: repr(v) for k, v in version.config.items()}
    found["files"] = {f.path: [f.size, _sha(version.read(f.path)), f.executable] for f in version.files}
    found["empty_folders"] = version.tree().empty_folders
    kinds = {*version.record.provenance, *(k for a in version.annotations for k in a.objects)}
    kinds -= {"command"} if "v1.0" in version.tags else set()
    found["objects"] = {k: _sha(version.provenance(k)) for k in sorted(kinds)}
    return found


def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def main(target: Path) -> None:
    storage = MemoryStorage()
    create_identity(storage)
    with tempfile.TemporaryDirectory() as work, Repository(storage, author=AUTHOR) as repo:
        fill(repo, Path(work))
        repo.refresh()
        add_void(storage, repo.session.catalog.position.n + 1)
        repo.refresh()
        while repo.session.catalog.position.n < 258:
            turn = str(repo.session.catalog.position.n)
            repo.annotate("team/основа@base", labels={"turn": turn})
        if not list(storage.list("bundles/")):
            write_due_bundles(storage, 256)
        found = expected(repo)
    shutil.rmtree(target, ignore_errors=True)
    for key in storage.list(""):
        path = target / "repository" / key.key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(storage.get(key.key))
    text = json.dumps(found, indent=1, ensure_ascii=False, sort_keys=True)
    (target / "expected.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
