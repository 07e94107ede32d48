"""What the weights of a history's versions are: embeddings and the rest, what of each changed, and the loss.

    python bench/contents.py NAME --work bench-work/corpus

Owns what counts as an embedding, and on what a version's loss is taken. What is found is kept beside the
history's manifest, and not computed again while that stays the same.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import corpus
from manifests import BRANCHES, Entry
from recipes import LOSS_BATCHES

_FORM = 1
"""Of the file: counted up with what it says."""
_FILE = "contents.json"
_TABLES = ("word_embeddings", "position_embeddings", "token_type_embeddings", ".wte.", ".wpe.")
MOVED = 1e-4
"""A row has moved if it lies further from where it was than this part of its length: weight decay alone takes
a hundredth of that in an epoch, a step of AdamW more than all of it."""
EMBEDDINGS, REST = "embeddings", "rest"


def part_of(tensor: str) -> str:
    """EMBEDDINGS of a table with a row for each token, position or kind of sentence, else REST."""
    return EMBEDDINGS if any(table in f".{tensor}" for table in _TABLES) else REST


def contents(name: str, work: Path) -> dict[str, dict[str, Any]]:
    """By version: `loss`, and of each part its `bytes`, its share of values `changed` against the first
    parent, and of the embeddings the share of rows that `moved`. What is not known is absent."""
    if name in BRANCHES:
        whole = contents(BRANCHES[name][0], work)
        return {entry.name: _within(entry, whole[entry.name]) for entry in corpus.history(name, work)}
    home = (work / name).absolute()
    made = hashlib.sha256((home / "manifest.json").read_bytes()).hexdigest()
    file = home / _FILE
    if file.exists():
        kept = json.loads(file.read_text(encoding="utf-8"))
        if (kept["form"], kept["made"]) == (_FORM, made):
            found: dict[str, dict[str, Any]] = kept["versions"]
            return found
    entries = corpus.history(name, work)
    found = {entry.name: _parts(entry, entries) for entry in entries}
    for entry, loss in _losses(name, entries):
        found[entry.name]["loss"] = loss
    file.write_text(json.dumps({"form": _FORM, "made": made, "versions": found}, indent=1) + "\n", "utf-8")
    return found


def _parts(entry: Entry, entries: Sequence[Entry]) -> dict[str, Any]:
    import torch
    from safetensors import safe_open

    integers = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    before = next((e.folder for e in entries if e.name in entry.parents[:1]), None)
    told: dict[str, dict[str, float]] = {}
    counts: dict[str, list[int]] = {EMBEDDINGS: [0, 0], REST: [0, 0], "rows": [0, 0]}
    for path in sorted(entry.folder.glob("*.safetensors")):
        older = before / path.name if before else None
        with safe_open(path, "pt") as new:
            old = safe_open(older, "pt") if older and older.exists() else None
            known = set(old.keys()) if old else set()
            for name in new.keys():  # noqa: SIM118 - no dictionary
                one, part = new.get_tensor(name), part_of(name)
                sizes = told.setdefault(part, {"bytes": 0})
                sizes["bytes"] += one.numel() * one.element_size()
                two = old.get_tensor(name) if old and name in known else None
                if two is None or two.dtype != one.dtype or two.shape != one.shape:
                    continue
                bits = integers[one.element_size()]
                _add(counts[part], one.view(bits) != two.view(bits))
                if part == EMBEDDINGS:
                    apart = (one.float() - two.float()).norm(dim=1)
                    _add(counts["rows"], apart > MOVED * two.float().norm(dim=1))
    for part, sizes in told.items():
        if counts[part][1]:
            sizes["changed"] = counts[part][0] / counts[part][1]
    if EMBEDDINGS in told and counts["rows"][1]:
        told[EMBEDDINGS]["moved"] = counts["rows"][0] / counts["rows"][1]
    return dict(told)


def _within(entry: Entry, found: dict[str, Any]) -> dict[str, Any]:
    """In a branch: without a parent nothing has changed."""
    if entry.parents:
        return found
    compared = ("changed", "moved")
    return {
        part: {k: v for k, v in told.items() if k not in compared} if isinstance(told, dict) else told
        for part, told in found.items()
    }


def _add(counts: list[int], found: Any) -> None:
    counts[0] += int(found.sum())
    counts[1] += found.numel()


def _losses(name: str, entries: Sequence[Entry]) -> list[tuple[Entry, float]]:
    """The loss of each version on the same batches of the texts that its history trains on, nothing dropped
    out, in fp32: a version in bf16 too, whose numbers are fp32's as well. Of what is not trained none."""
    ways: dict[str, Callable[[Sequence[Entry]], Callable[[Entry], float]]] = {
        "H": _of_encoders,
        "L": _of_encoders,
        "G": _of_gpts,
    }
    if name not in ways or not (entries[0].folder / "config.json").exists():
        return []
    loss = ways[name](entries)
    return [(entry, loss(entry)) for entry in entries if entry.kind in ("model", "adapter")]


def _of_encoders(entries: Sequence[Entry]) -> Callable[[Entry], float]:
    import finetuning as ways
    import texts

    base = entries[0].folder
    _, tokenizer = ways.encoder(base)
    batches = ways.contrastive_batches(tokenizer, texts.standard_library(), 0)
    same = [next(batches) for _ in range(LOSS_BATCHES)]

    def loss(entry: Entry) -> float:
        import peft

        model, _ = ways.encoder(base if entry.kind == "adapter" else entry.folder)
        if entry.kind == "adapter":
            model = peft.PeftModel.from_pretrained(model, entry.folder)
        return _mean(model, ways.contrastive, same)

    return loss


def _of_gpts(entries: Sequence[Entry]) -> Callable[[Entry], float]:
    import finetuning as ways

    batches = ways.gpt_batches(ways.AutoTokenizer.from_pretrained(entries[0].folder), 0)
    same = [next(batches) for _ in range(LOSS_BATCHES)]

    def loss(entry: Entry) -> float:
        return _mean(ways.GPT2LMHeadModel.from_pretrained(entry.folder), ways.next_word, same)

    return loss


def _mean(model: Any, loss: Callable[[Any, Any], Any], batches: Sequence[Any]) -> float:
    import torch

    model.eval()
    with torch.no_grad():
        return sum(loss(model, batch).item() for batch in batches) / len(batches)


def main() -> None:
    parser = argparse.ArgumentParser(description="Tell what the weights of a history are.")
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("--work", type=Path, default=corpus.WORK, help="where corpus.py put it")
    options = parser.parse_args()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for version, found in contents(options.name, options.work).items():
        print(f"  {version:14} {json.dumps(found)}")


if __name__ == "__main__":
    main()
