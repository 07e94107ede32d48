"""Reading: a version's capture, typed. Takes older layouts, and says of what is missing why it is."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar, cast

import msgspec

from stemmata.capturing.missing import Missing
from stemmata.errors import Damage, Redacted

T = TypeVar("T")


class Attached(msgspec.Struct, frozen=True):
    """What `stemmata run` was told, where it started the command."""

    model: str
    every: str | int = "epoch"
    run_name: str | None = None


class Command(msgspec.Struct, frozen=True):
    """`argv` begins with Python itself; a masked argument is `***` or holds it. `begun`: when the process was
    started."""

    argv: list[str] = []
    folder: str = ""
    python_path: list[str] = []
    begun: str | None = None
    attached: Attached | None = None
    missing: list[Missing] = []


class Gpu(msgspec.Struct, frozen=True):
    """`memory` in bytes."""

    name: str
    memory: int | None = None
    capability: str | None = None


class Environment(msgspec.Struct, frozen=True):
    """The machine, and the variables of the list that were set."""

    python: str = ""
    implementation: str = ""
    build: str = ""
    platform: str = ""
    machine: str = ""
    libc: str | None = None
    cpu: str = ""
    cpus: int | None = None
    driver: str | None = None
    torch: dict[str, Any] | None = None
    gpus: list[Gpu] = []
    variables: dict[str, str] = {}
    missing: list[Missing] = []


class Package(msgspec.Struct, frozen=True):
    """An installed distribution; `url` where it came from no index (PEP 610)."""

    version: str = ""
    url: str | None = None
    commit: str | None = None
    vcs: str | None = None
    hash: str | None = None
    editable: bool = False
    subdirectory: str | None = None


class Seeds(msgspec.Struct, frozen=True):
    """Seeds of the training's arguments; switches and generators of Python, numpy and torch."""

    seed: int | None = None
    data_seed: int | None = None
    full_determinism: bool | None = None
    python: dict[str, Any] | None = None
    numpy: dict[str, Any] | None = None
    torch: dict[str, Any] | None = None
    missing: list[Missing] = []


class EntryPoint(msgspec.Struct, frozen=True):
    """`kind`: script, module, notebook, command, prompt, program. `path`: below the code's root, or whole."""

    kind: str = ""
    path: str | None = None
    module: str | None = None


class SourceFile(msgspec.Struct, frozen=True):
    """A file as it was, but what was `masked` in it."""

    text: str
    executable: bool = False
    masked: bool = False


class Code(msgspec.Struct, frozen=True):
    """`commit` is None without git: then `files` are all there is. Else they go over a checkout of it,
    without what was `deleted`; `diff` is for people."""

    commit: str | None = None
    branch: str | None = None
    remote: str | None = None
    dirty: bool | None = None
    root: str = ""
    entry: EntryPoint = EntryPoint()
    changed: list[str] = []
    deleted: list[str] = []
    diff: str = ""
    files: dict[str, SourceFile] = {}
    cells: list[str] = []
    missing: list[Missing] = []


class Trainer(msgspec.Struct, frozen=True):
    """Classes by their full names."""

    trainer: str | None = None
    arguments: str | None = None
    model: str | None = None
    optimizer: str | None = None
    scheduler: str | None = None
    collator: str | None = None
    processing: str | None = None
    callbacks: list[str] = []
    missing: list[Missing] = []


class BaseModel(msgspec.Struct, frozen=True):
    """What the model was loaded from; `digest` is the content digest of the files that decide its weights."""

    name_or_path: str = ""
    revision: str | None = None
    digest: str | None = None
    files: list[tuple[str, int, str]] = []
    missing: list[Missing] = []


class DataFile(msgspec.Struct, frozen=True):
    """A file that rows were read from: BLAKE3 and bytes, where it was here."""

    path: str
    bytes: int | None = None
    digest: str | None = None


class DataPart(msgspec.Struct, frozen=True):
    """One dataset. `digest` is over its rows (FORMAT.md, section 7): all of them if `covers` is "all"."""

    type: str = ""
    rows: int | None = None
    columns: dict[str, str] = {}
    fingerprint: str | None = None
    digest: str | None = None
    covers: str | None = None
    files: list[DataFile] = []


class StoredData(msgspec.Struct, frozen=True):
    """The version that holds the rows, and the files there by part."""

    model: str
    version: str
    files: dict[str, str] = {}


class Data(msgspec.Struct, frozen=True):
    """`parts`: train, eval, …"""

    parts: dict[str, DataPart] = {}
    stored: StoredData | None = None
    missing: list[Missing] = []


class Captured(msgspec.Struct, frozen=True):
    """What is known of how a version came about. A part that was not captured is None; `missing` says why
    what is not there is not there, everything together."""

    command: Command | None = None
    environment: Environment | None = None
    packages: dict[str, Package] | None = None
    seeds: Seeds | None = None
    code: Code | None = None
    training_arguments: dict[str, Any] | None = None
    trainer: Trainer | None = None
    base: BaseModel | None = None
    data: Data | None = None
    missing: list[Missing] = []


def read(kinds: Collection[str], get: Callable[[str], bytes]) -> Captured:
    """The capture among a version's provenance objects. `get` gives an object's bytes.

    What is redacted, damaged or of an unknown layout is None and listed as missing; raises nothing of it.
    """
    reader = _Reader(kinds, get)
    code = reader.typed("code", Code)
    if code is not None:
        files = reader.typed("code_files", _Files)
        cells = reader.typed("code_cells", _Cells)
        code = msgspec.structs.replace(
            code,
            diff=(reader.bytes("code_diff") or b"").decode("utf-8", "replace"),
            files=files.files if files is not None else {},
            cells=cells.cells if cells is not None else [],
        )
    found = Captured(
        command=reader.typed("command", Command),
        environment=reader.typed("environment", Environment),
        packages=reader.packages(),
        seeds=reader.typed("seeds", Seeds),
        code=code,
        training_arguments=reader.typed("training_arguments", dict[str, Any]),
        trainer=reader.typed("trainer", Trainer),
        base=reader.typed("base", BaseModel),
        data=reader.typed("data", Data),
    )
    parts = (found.command, found.environment, found.seeds, found.code, found.trainer, found.base, found.data)
    said = [reason for part in parts if part is not None for reason in part.missing]
    return msgspec.structs.replace(found, missing=[*reader.missing, *said])


class _Files(msgspec.Struct):
    files: dict[str, SourceFile] = {}


class _Cells(msgspec.Struct):
    cells: list[str] = []


_ALWAYS = ("command", "environment", "packages", "seeds", "code")


class _Reader:
    def __init__(self, kinds: Collection[str], get: Callable[[str], bytes]) -> None:
        self._kinds, self._get = kinds, get
        self.missing = [
            Missing(kind, "it was not captured with this version") for kind in _ALWAYS if kind not in kinds
        ]

    def bytes(self, kind: str) -> bytes | None:
        if kind not in self._kinds:
            return None
        try:
            return self._get(kind)
        except Redacted as error:
            self.missing.append(Missing(kind, f"it was redacted at {error.data['at']}"))
        except Damage as error:
            self.missing.append(Missing(kind, f"its bytes are damaged: {error}"))
        return None

    def typed(self, kind: str, layout: type[T]) -> T | None:
        data = self.bytes(kind)
        if data is None:
            return None
        try:
            return msgspec.json.decode(data, type=layout)
        except (msgspec.DecodeError, RecursionError):
            self.missing.append(Missing(kind, "this release does not know its layout"))
            return None

    def packages(self) -> dict[str, Package] | None:
        found = self.typed("packages", cast("type[dict[str, str | Package]]", dict[str, str | Package]))
        if found is None:
            return None
        return {name: Package(said) if isinstance(said, str) else said for name, said in _sorted(found)}


def _sorted(found: Mapping[str, str | Package]) -> list[tuple[str, str | Package]]:
    return sorted(found.items(), key=lambda item: item[0].lower())
