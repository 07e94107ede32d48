"""Subject: what is exported, gathered from a version and the catalog. Owns what counts as known.

What was erased, is damaged or was never kept is no error here: it is listed as missing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from stemmata.catalog import queries, selecting
from stemmata.catalog.asking import Connection, versions_numbered
from stemmata.catalog.queries import VersionRow
from stemmata.errors import StemmataError
from stemmata.ids import VersionId
from stemmata.log.entries import is_hex
from stemmata.measurements import Measurement
from stemmata.names import name_key
from stemmata.records import Base, Record, Run, Value, decode_record, load_metrics, load_value
from stemmata.trees import TreeFile

_EPOCHS = 30
"""Versions of a run that the table of metrics shows."""
_STEPS_BACK = 10_000
"""Versions that are gone back through to where a run began."""
_MAX_README = 1 << 20
_HUB_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,95}(?:/[A-Za-z0-9_][A-Za-z0-9_.-]{0,95})?")
_HEADER_KEYS = ("license", "license_name", "license_link", "base_model", "datasets", "language")


class Exported(Protocol):
    """What `Version` offers, as far as an export needs it."""

    @property
    def id(self) -> VersionId: ...
    @property
    def model(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def record(self) -> Record: ...
    @property
    def config(self) -> dict[str, Value]: ...
    @property
    def data(self) -> dict[str, Value]: ...
    @property
    def metrics(self) -> dict[str, float]: ...
    @property
    def measurements(self) -> dict[str, Measurement]: ...
    @property
    def labels(self) -> dict[str, str]: ...
    @property
    def at(self) -> str | None: ...
    @property
    def files(self) -> list[TreeFile]: ...
    def read(self, path: str) -> bytes: ...
    def provenance(self, kind: str) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Relative:
    """Another version, as one speaks of it."""

    id: str
    name: str
    """model@name; "" if it is not in this repository."""
    kind: str = ""
    model: str = ""
    is_here: bool = False
    """It can be loaded: it is neither elsewhere nor deleted."""


@dataclass(frozen=True, slots=True)
class Moment:
    """One version of the run: where it stood and what was measured."""

    epoch: float | None
    step: int | None
    metrics: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Subject:
    """Everything that an export is written from."""

    id: str
    reference: str
    """model@name."""
    model: str
    name: str
    kind: str
    created_at: str
    message: str
    run: Run | None
    epoch: float | None
    step: int | None
    base: Base | None
    config: Mapping[str, Value]
    data: Mapping[str, Value]
    labels: Mapping[str, str]
    metrics: Mapping[str, float]
    measurements: Mapping[str, Measurement]
    paths: tuple[str, ...]
    adapter: Mapping[str, Any]
    """`adapter_config.json`, if there is one."""
    header: Mapping[str, list[str]]
    """What the YAML header of a README.md among the files says."""
    arguments: Mapping[str, Any]
    """The trainer's arguments, all of them; of the config what it has if they are missing."""
    all_arguments: bool
    packages: Mapping[str, Any]
    environment: Mapping[str, Any]
    parents: tuple[Relative, ...]
    origin: Relative | None
    """The version that the run began from."""
    base_version: Relative | None
    """The version of this repository that an adapter is loaded on."""
    history: tuple[Moment, ...]
    moments: int
    """Versions of the run; `history` may be some of them."""
    missing: tuple[str, ...]
    """Sentences: what was not recorded, or is gone."""

    @property
    def short(self) -> str:
        return self.id[:12]

    @property
    def architecture(self) -> str:
        """The model's class, "" if it is not known."""
        said = self.config.get("model.architecture") or self.config.get("model.architectures")
        first = said[0] if isinstance(said, list) and said else said
        return first if isinstance(first, str) and first.isidentifier() else ""

    @property
    def is_merge(self) -> bool:
        return len(self.parents) > 1

    def setting(self, *keys: str) -> str:
        """The first of these labels or config keys that is a text; "" if none is."""
        for key in keys:
            found = self.labels.get(key) or self.config.get(key)
            if isinstance(found, str) and found:
                return found
        return ""

    def datasets(self) -> list[str]:
        """Names of the data that it was trained on, as far as anything tells."""
        said = [self.data.get(key) for key in ("train.dataset", "train.name", "train.path", "dataset")]
        said += [self.config.get("dataset_name"), self.labels.get("dataset"), self.config.get("dataset")]
        found = [name for each in said for name in (each if isinstance(each, list) else [each])]
        found = [each for each in found if isinstance(each, str) and each]
        return list(dict.fromkeys([*found, *self.header.get("datasets", ())]))


def hub_name(text: str, *, owned: bool = False) -> bool:
    """Whether a text can name a repository on the hub; with `owned` only as owner/name."""
    fits = _HUB_NAME.fullmatch(text) is not None and "--" not in text and ".." not in text
    if not fits or text.endswith((".git", ".", "-")) or len(text) > 96:
        return False
    return "/" in text or not owned


def gather(version: Exported, connection: Connection) -> Subject:
    """Read what there is. Raises Damage for a record or tree that cannot be read."""
    record = version.record
    missing: list[str] = []
    arguments = _document(version, "training_arguments", missing, "the trainer's arguments")
    packages = _document(version, "packages", missing, "the packages that were installed")
    environment = _document(version, "environment", missing, "the machine and its Python")
    paths = tuple(sorted(file.path for file in version.files))
    history, moments = _history(connection, version)
    base_id = record.base.version if record.base is not None else None
    return Subject(
        id=version.id.hex,
        reference=f"{version.model}@{version.name}",
        model=version.model,
        name=version.name,
        kind=record.kind,
        created_at=record.created_at,
        message=record.message,
        run=record.run,
        epoch=record.epoch,
        step=record.step,
        base=record.base,
        config=version.config,
        data=version.data,
        labels=version.labels,
        metrics=version.metrics,
        measurements=version.measurements,
        paths=paths,
        adapter=_adapter(version, paths),
        header=_header(version, paths),
        arguments=_loaded(arguments) if arguments else _flat_arguments(version.config),
        all_arguments=bool(arguments),
        packages=packages,
        environment=environment,
        parents=tuple(_relative(connection, parent) for parent in record.parents),
        origin=_origin(connection, record),
        base_version=_relative(connection, base_id) if base_id else None,
        history=history,
        moments=moments,
        missing=tuple(missing),
    )


def _document(version: Exported, kind: str, missing: list[str], what: str) -> dict[str, Any]:
    if kind not in version.record.provenance:
        missing.append(f"{what}: not recorded")
        return {}
    try:
        found = json.loads(version.provenance(kind))
    except StemmataError as error:
        missing.append(f"{what}: {'redacted' if error.kind == 'redacted' else 'cannot be read any more'}")
        return {}
    except (ValueError, RecursionError):
        missing.append(f"{what}: cannot be read any more")
        return {}
    return found if isinstance(found, dict) else {}


def _loaded(value: Any) -> Any:
    """Numbers that JSON has not, as they were."""
    if isinstance(value, dict):
        return {key: _loaded(each) for key, each in value.items()}
    return value if isinstance(value, list) and any(isinstance(v, dict) for v in value) else load_value(value)


def _flat_arguments(config: Mapping[str, Value]) -> dict[str, Value]:
    from stemmata.exporting.arguments import DEFAULTS, OF_SFT

    return {key: value for key, value in config.items() if key in DEFAULTS or key in OF_SFT}


def _adapter(version: Exported, paths: Sequence[str]) -> dict[str, Any]:
    found = [path for path in paths if path.rpartition("/")[2] == "adapter_config.json"]
    if not found:
        return {}
    try:
        document = json.loads(version.read(min(found, key=len)))
    except (StemmataError, ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _header(version: Exported, paths: Sequence[str]) -> dict[str, list[str]]:
    """The plain entries of a README's YAML header; what is written in any other way is left out."""
    if "README.md" not in paths:
        return {}
    try:
        data = version.read("README.md")
    except StemmataError:
        return {}
    if len(data) > _MAX_README:
        return {}
    lines = data.decode("utf-8", "replace").splitlines()
    if not lines or lines[0].strip() != "---":
        return {}
    found: dict[str, list[str]] = {}
    key = ""
    for line in lines[1:200]:
        if line.strip() == "---":
            return found
        entry = re.fullmatch(r"([a-z_]+):\s*([^\s#\[{|>&*!%@`'\"][^#]*?|)\s*", line)
        item = re.fullmatch(r"\s*-\s+([^\s#\[{|>&*!%@`'\":]+)\s*", line)
        if entry is not None:
            key = entry[1] if entry[1] in _HEADER_KEYS else ""
            if key and entry[2]:
                found[key] = [entry[2]]
        elif item is not None and key:
            found.setdefault(key, []).append(item[1])
        else:
            key = ""
    return {}  # it never ends: none


def _row(connection: Connection, text: str) -> VersionRow | None:
    return queries.version_by_id(connection, VersionId.parse(text)) if is_hex(text, 64) else None


def _relative(connection: Connection, text: str) -> Relative:
    row = _row(connection, text)
    if row is None:
        return Relative(text, "")
    model = queries.model_name(connection, row.model)
    return Relative(text, f"{model}@{row.name}", row.kind, model, row.state == "visible")


def _origin(connection: Connection, record: Record) -> Relative | None:
    """Back through first parents to the first that is of another run."""
    if record.run is None:
        return _relative(connection, record.parents[0]) if record.parents else None
    parents = record.parents
    for _ in range(_STEPS_BACK):
        if not parents:
            return None
        row = _row(connection, parents[0])
        if row is None or row.run_id != record.run.id:
            return _relative(connection, parents[0])
        parents = [parent.hex for parent in queries.parents(connection, row.seq)]
    return None


def _history(connection: Connection, version: Exported) -> tuple[tuple[Moment, ...], int]:
    """The run's versions up to this one, oldest first; some of very many, evenly."""
    run = version.record.run
    if run is None:
        return (), 0
    numbers = selecting.numbers(connection, name_key(version.model), run=run.name, at=version.at)
    own = queries.version_by_id(connection, version.id)
    numbers = [n for n in reversed(numbers) if own is None or n <= own.seq]
    shown = numbers
    if len(numbers) > _EPOCHS:
        shown = [numbers[place * (len(numbers) - 1) // (_EPOCHS - 1)] for place in range(_EPOCHS)]
    found = []
    for row in versions_numbered(connection, shown):
        if row.run_id != run.id:
            continue
        metrics = load_metrics(decode_record(row.record).metrics)
        for annotation in queries.annotations_of(connection, row.seq, at=version.at):
            metrics.update(load_metrics(annotation.metrics))
        found.append(Moment(row.epoch, row.step, metrics))
    return tuple(found), len(numbers)
