"""What lies in a repository of stemmata after a walk: what of each version leans on which, and what it takes.

Owns how objects are given to versions: one belongs to the first version that has it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import stemmata
from contents import part_of
from stemmata.usage.reading import objects_of


def leanings(repository: Path, model: str, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Of each version, in the order of saving: `bases`, bytes of its own weights by the version on whose they
    lean ("" is none), `same`, bytes of weights that an older version has, `kept`, stored bytes of its own by
    part, `reads`, the older versions of which weights are decoded to bring it back, and `decodes`, the bytes
    of all that is, over those of its weights."""
    with stemmata.open(repository) as repo:
        session = repo.session
        table = objects_of(session, _no_such, lambda: None)
        rows = {int(row["key"]): row for row in table}
        owners: dict[int, str] = {}
        told = {}
        for name in names:
            tree = session.tree(session.row(repo[f"{model}@{name}"].id))
            found = [(part_of(s.name), _key(d)) for f in tree.files for s in f.segments if s.name
                     for d in s.objects]  # fmt: skip
            told[name] = _of_version(name, dict.fromkeys(found), rows, owners)
    return told


def _of_version(
    name: str, found: dict[tuple[str, int], None], rows: dict[int, Any], owners: dict[int, str]
) -> dict[str, Any]:
    bases: Counter[str] = Counter()
    kept: Counter[str] = Counter()
    same = whole = 0
    read: set[int] = set()
    for part, key in found:
        row = rows[key]
        length = int(row["raw"].sum())
        whole += length
        if owners.setdefault(key, name) == name:
            bases[owners.get(int(row["base"]), "")] += length
            kept[part] += int(row["stored"])
        else:
            same += length
        while key in rows:
            read.add(key)
            key = int(rows[key]["base"])
    reads = [other for other in dict.fromkeys(owners.values()) if other != name]
    return {
        "bases": dict(bases),
        "same": same,
        "kept": dict(kept),
        "reads": [other for other in reads if any(owners.get(key) == other for key in read)],
        "decodes": sum(int(rows[key]["raw"].sum()) for key in read) / whole if whole else 0.0,
    }


def _key(digest: str) -> int:
    """As the table has it: a digest's first eight bytes."""
    return int.from_bytes(bytes.fromhex(digest)[:8], "little")


def _no_such(what: str) -> None:
    raise SystemExit(f"{what} could not be read")
