"""Datastore: the rows that a run trains on, kept as a version of their own (`data="store"`).

A version of the model `<model>.data`, one Arrow file a part, named by its content: runs on the same rows
share it, and rows that stayed cost nothing again. As every version it is erased by `delete` and a collection.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from blake3 import blake3

from stemmata.bases import hash_file
from stemmata.capture import to_json
from stemmata.capturing import Capturing, Missing, rows
from stemmata.capturing.missing import told
from stemmata.errors import NameTaken
from stemmata.hf.recorder import Recorder
from stemmata.ids import VersionId
from stemmata.names import slug

SUFFIX = ".data"


def keep(recorder: Recorder, datasets: Mapping[str, Any]) -> None:
    """Store the rows in the background, before the run's first version, whose `data` object names them.

    What fails is listed at the end, as a version that fails; the training goes on.
    """
    captured = recorder.account.captured
    if captured is None:
        return

    def job() -> None:
        folder = recorder.workspace.folder()
        missing: list[Missing] = []
        try:
            _note(captured, _store(recorder, datasets, folder, missing), missing)
        except Exception as error:
            _note(captured, None, [Missing("stored rows", f"storing them failed: {error}")])
            raise
        finally:
            recorder.workspace.remove(folder)

    recorder.add(job, "the training data")


def _store(
    recorder: Recorder, datasets: Mapping[str, Any], folder: Path, missing: list[Missing]
) -> dict[str, object] | None:
    files: dict[str, str] = {}
    hasher = blake3()
    for part, dataset in rows.flat(datasets):
        if not rows.is_table(dataset):
            why = "only datasets of the datasets library that do not stream are stored"
            missing.append(Missing(f"stored rows of {part}", why))
            continue
        name = f"{slug(part)}.arrow"
        recorder.room.hold_on_disk(recorder.workspace.parent, int(dataset.data.nbytes))
        _write(dataset, folder / name)
        files[part] = name
        hasher.update(f"{name}\0{hash_file(folder / name)}\0".encode())
    if not files:
        return None
    model, name = recorder.model + SUFFIX, f"rows-{hasher.hexdigest()[:16]}"
    return {"model": model, "version": _version(recorder, folder, model, name).hex, "files": files}


def _version(recorder: Recorder, folder: Path, model: str, name: str) -> VersionId:
    message = f"rows of run {recorder.run.name}"
    try:
        saved = recorder.repository.save(folder, model, name=name, message=message, provenance={})
    except NameTaken:
        saved = recorder.repository[f"{model}@{name}"]  # the same rows, of an earlier run
    return saved.id


def _write(dataset: Any, path: Path) -> None:
    """The rows as an Arrow stream with the library's own schema: `datasets.Dataset.from_file` reads it."""
    pyarrow = sys.modules["pyarrow"]
    view, schema = dataset.with_format("arrow"), dataset.features.arrow_schema
    with pyarrow.ipc.new_stream(str(path), schema) as stream:
        for start in range(0, len(dataset), rows.BLOCK):
            block = view[start : min(len(dataset), start + rows.BLOCK)]
            stream.write_table(block.select(schema.names).cast(schema))


def _note(captured: Capturing, stored: dict[str, object] | None, missing: list[Missing]) -> None:
    said = json.loads(captured.objects()["data"])
    said["missing"] = [*said.get("missing", []), *told(missing)]
    captured.add({"data": to_json({**said, "stored": stored})})
