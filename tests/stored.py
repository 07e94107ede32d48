"""Stored: a small repository as its keys and bytes, with what reading it must give."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import faults
from makers import adapter_folder, contents, model_folder
from stemmata.errors import Damage
from stemmata.log.bundles import write_due_bundles
from stemmata.records import Run
from stemmata.repository import Repository


@dataclass(frozen=True)
class Stored:
    """`kept`: bytes by key; `files`: of each version by its id; `names`: ids by reference."""

    kept: dict[str, bytes]
    files: dict[str, dict[str, bytes]]
    names: dict[str, str]

    def lay_out(self, root: Path) -> Path:
        """Write the repository into a folder."""
        for key, data in self.kept.items():
            path = root / key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return root


def make(work: Path, *, entries: int = 0) -> Stored:
    """Three versions of two models, an alias that moved and was rolled back, a tag, an annotation;
    then more annotations until the log has so many entries."""
    run = Run(id="0" * 32, name="r4")
    files: dict[str, dict[str, bytes]] = {}
    with Repository.in_memory() as repo:
        for epoch in (1, 2):
            folder = adapter_folder(work / "adapter", epoch)
            (folder / "empty").mkdir(exist_ok=True)
            name = f"r4/epoch-{epoch}"
            version = repo.save(folder, "toy", name=name, run=run, metrics={"loss": 1 / epoch})
            files[version.id.hex] = contents(folder)
        base = repo.save(model_folder(work / "base", 3), "base", name="one", provenance={})
        files[base.id.hex] = contents(work / "base")
        first, second = repo["toy@r4/epoch-1"], repo["toy@r4/epoch-2"]
        repo.alias("toy", "production", first)
        repo.alias("toy", "production", second)
        repo.rollback("toy", "production")
        repo.alias("toy", "staging", second)
        repo.tag("toy", "v1", second)
        repo.annotate(second, metrics={"human": 4.0}, labels={"team": "x"}, notes="good")
        catalog = repo.session.catalog
        while catalog.position.n < entries:
            repo.annotate(second, labels={"turn": str(catalog.position.n)})
        write_due_bundles(repo.session.storage, entries - entries % 256)
        kept = faults.contents(repo.session.storage)
    names = {"toy@production": first.id.hex, "toy@staging": second.id.hex, "toy@v1": second.id.hex}
    return Stored(kept, files, names)


def read_or_refuse(repo: Repository, stored: Stored) -> int:
    """Read all versions and names of a damaged repository; how many reads were refused as Damage.

    Every read gives exactly what was saved, or raises Damage: nothing in between.
    """
    refused = 0
    for version, expected in stored.files.items():
        try:
            found = repo[f"id:{version}"]
            for path, data in expected.items():
                assert found.read(path) == data
            assert {f.path for f in found.files} == set(expected)
        except Damage:
            refused += 1
    for reference, version in stored.names.items():
        try:
            assert repo[reference].id.hex == version
        except Damage:
            refused += 1
    return refused
