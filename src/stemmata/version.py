"""Version: one immutable snapshot as people use it. Owns reading; writes nothing but `add_eval`."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stemmata.arguments import text_of
from stemmata.catalog import queries
from stemmata.catalog.queries import AnnotationRow, VersionRow
from stemmata.deferred import deferred
from stemmata.errors import FileNotInVersion, MissingExtra, NotFound
from stemmata.ids import SHORT, VersionId
from stemmata.measurements import Dataset, Measurement, dataset_of_save, measured
from stemmata.metricnames import by_interest
from stemmata.records import Base, Record, Run, Value, load_metrics, load_value
from stemmata.session import Session
from stemmata.trees import Tree, TreeFile

if TYPE_CHECKING:
    from stemmata import (
        capture,
        capturing,
        checkouts,
        portraits,
        redacting,
        reproductions,
        surveyor,
        weighing,
    )
    from stemmata.capturing import Captured
    from stemmata.catalog import deletions
    from stemmata.compare import deltas, factors, lora, surprises
    from stemmata.compare.deltas import DeltaTable
    from stemmata.compare.factors import FillObject
    from stemmata.compare.lora import LoraFacts
    from stemmata.compare.statistics import TensorStatistics
    from stemmata.compare.surprises import Surprise
    from stemmata.evals import Eval, Examples
    from stemmata.evals.lines import Source
    from stemmata.exporting import card, requirements, script, subject
    from stemmata.histories import logs
    from stemmata.pictures.heatmap import HeatMap
    from stemmata.pictures.spectra import Spectra
    from stemmata.reproductions import Reproduction
else:
    capture = deferred("stemmata.capture")
    capturing = deferred("stemmata.capturing")
    card = deferred("stemmata.exporting.card")
    checkouts = deferred("stemmata.checkouts")
    deletions = deferred("stemmata.catalog.deletions")
    deltas = deferred("stemmata.compare.deltas")
    factors = deferred("stemmata.compare.factors")
    lora = deferred("stemmata.compare.lora")
    portraits = deferred("stemmata.portraits")
    redacting = deferred("stemmata.redacting")
    reproductions = deferred("stemmata.reproductions")
    logs = deferred("stemmata.histories.logs")
    requirements = deferred("stemmata.exporting.requirements")
    script = deferred("stemmata.exporting.script")
    subject = deferred("stemmata.exporting.subject")
    surprises = deferred("stemmata.compare.surprises")
    surveyor = deferred("stemmata.surveyor")
    weighing = deferred("stemmata.weighing")


class Version:
    """One version. Everything it says is immutable but names, metrics, labels and notes, which
    later annotations may add to; those are read when the object is made. Of a version that was asked for as
    of a moment, `at`, they are as they were then.

    Reading weights verifies every object and every whole file; damaged bytes raise `Damage`.
    """

    def __init__(self, session: Session, row: VersionRow, *, at: str | None = None) -> None:
        self._session = session
        self._row = row
        self._at = at

    # --- identity ---------------------------------------------------------------------------

    @property
    def id(self) -> VersionId:
        """BLAKE3-256 of the record."""
        return self._row.id

    @property
    def short(self) -> str:
        """The first 12 hex digits of the id."""
        return self._row.id.hex[:SHORT]

    @property
    def model(self) -> str:
        return queries.model_name(self._session.catalog.connection, self._row.model)

    @property
    def name(self) -> str:
        """The name it was saved under, such as `run/epoch-3`."""
        return self._row.name

    @cached_property
    def names(self) -> list[str]:
        """All version names, the first one first."""
        return self._names_of("name")

    @property
    def aliases(self) -> list[str]:
        """Aliases that point here now, or at `at`."""
        return self._names_of("alias")

    @property
    def tags(self) -> list[str]:
        return self._names_of("tag")

    def _names_of(self, kind: str) -> list[str]:
        if self._at is not None:
            refs = self._session.names_then(self._row.model, self._at).get(self._row.id, [])
        else:
            refs = queries.names_of(self._session.catalog.connection, self._row.id)
        found = [r.name for r in refs if r.kind == kind]
        return sorted(found, key=lambda n: (n != self._row.name, n))

    @property
    def at(self) -> str | None:
        """The moment as of which it was asked for, RFC 3339, UTC; None: as it is now."""
        return self._at

    # --- what it says -----------------------------------------------------------------------

    @cached_property
    def record(self) -> Record:
        """The record, checked against the id."""
        return self._session.record(self._row)

    @property
    def created_at(self) -> str:
        """RFC 3339, UTC, microseconds."""
        return self.record.created_at

    @property
    def author(self) -> str:
        return self.record.author

    @property
    def message(self) -> str:
        return self.record.message

    @property
    def parents(self) -> list[str]:
        """Ids of the versions it came from, hex; the line goes on through the first."""
        return list(self.record.parents)

    @property
    def run(self) -> Run | None:
        return self.record.run

    @property
    def step(self) -> int | None:
        return self.record.step

    @property
    def epoch(self) -> float | None:
        return self.record.epoch

    @property
    def event(self) -> str:
        return self.record.event

    @property
    def kind(self) -> str:
        """model, adapter, checkpoint or files."""
        return self.record.kind

    @property
    def base(self) -> Base | None:
        """For an adapter: the base model it was trained on."""
        return self.record.base

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return self.record.content.bytes

    @cached_property
    def config(self) -> dict[str, Value]:
        """Flat config: training arguments, `lora.*`, `model.*` and what the caller gave."""
        return {k: load_value(v) for k, v in self.record.config.items()}

    @cached_property
    def data(self) -> dict[str, Value]:
        return {k: load_value(v) for k, v in self.record.data.items()}

    @cached_property
    def annotations(self) -> list[AnnotationRow]:
        """What was added after the save, oldest first."""
        return queries.annotations_of(self._session.catalog.connection, self._row.seq, at=self._at)

    @cached_property
    def metrics(self) -> dict[str, float]:
        """Metrics of the save and of every later annotation; the later value wins."""
        merged = load_metrics(self.record.metrics)
        for annotation in self.annotations:
            merged.update(load_metrics(annotation.metrics))
        return merged

    @cached_property
    def measurements(self) -> dict[str, Measurement]:
        """By metric, its value with what it was measured on and with, by whom and when."""
        record = self.record
        found = {
            key: Measurement(
                value, dataset_of_save(key, record.data), "", record.created_at, record.author, False
            )
            for key, value in load_metrics(record.metrics).items()
        }
        for each in self.annotations:
            dataset, source = measured(each.details)
            for key, value in load_metrics(each.metrics).items():
                found[key] = Measurement(value, dataset, source, each.at, each.by, True)
        return found

    def evals(self) -> list[Eval]:
        """Evals that were kept with it, oldest first."""
        from stemmata.evals import evals_of  # like each import of it: most have no use for it

        self._session.refresh()
        return evals_of(self._session, self._row, at=self._at)

    def examples(self, name: str) -> Iterator[dict[str, Any]]:
        """The examples of the last eval of that name, verified, one at a time.

        Raises EvalNotFound, Redacted, Damage.
        """
        from stemmata.evals import examples_of

        self._require_visible()
        return examples_of(self._session, self._row, name, at=self._at)

    def example_lines(self, name: str) -> Iterator[bytes]:
        """As `examples`, the lines of the file as it was given."""
        from stemmata.evals import read_lines, with_examples

        self._require_visible()
        found = with_examples(self._session, self._row, name, at=self._at)
        return read_lines(self._session, self._row, found)

    def add_eval(
        self,
        name: str,
        *,
        metrics: Mapping[str, float] | None = None,
        dataset: str = "",
        fingerprint: str = "",
        source: str = "",
        examples: Source | None = None,
        why: str = "",
        told: Callable[[Examples], object] | None = None,
    ) -> Eval:
        """Keep what a benchmark found with this version: its metrics, and what became of each example.

        `examples` is a JSONL file, kept byte for byte, or dicts; it may be larger than memory. `dataset`, its
        `fingerprint` and `source` (what measured) are said of the metrics too. `told` gets what was found in
        the examples, such as ids that occur twice. The metrics show in objects made from now on.

        Raises InvalidExamples, SourceMissing, UnsupportedFile, InvalidArgument, InvalidName.
        """
        from stemmata.evals import add_eval

        return add_eval(
            self._session,
            self.id,
            name,
            metrics=metrics or {},
            dataset=dataset_of_words(dataset, fingerprint),
            source=capture.mask(text_of(source)),
            examples=examples,
            why=why,
            told=told,
        )

    def reproductions(self) -> list[Reproduction]:
        """What came of making it again, each time that was kept, oldest first."""
        self._session.refresh()
        rows = queries.annotations_of(self._session.catalog.connection, self._row.seq, at=self._at)
        return reproductions.reproductions_of(rows)

    @cached_property
    def labels(self) -> dict[str, str]:
        merged: dict[str, str] = {}
        for annotation in self.annotations:
            for key, value in annotation.labels.items():
                if value is None:
                    merged.pop(key, None)
                else:
                    merged[key] = value
        return merged

    @property
    def notes(self) -> list[str]:
        return [a.notes for a in self.annotations if a.notes]

    # --- files ------------------------------------------------------------------------------

    def tree(self) -> Tree:
        """The list of files and how they are cut. Raises DamagedTree."""
        return self._session.tree(self._row)

    @property
    def files(self) -> list[TreeFile]:
        return list(self.tree().files)

    def file(self, path: str) -> TreeFile:
        """One file's entry. Raises FileNotInVersion."""
        for entry in self.tree().files:
            if entry.path == path:
                return entry
        raise FileNotInVersion(version=self.short, path=path)

    def read(self, path: str) -> bytes:
        """All bytes of one file, verified. Raises FileNotInVersion, Damage."""
        self._require_visible()
        return checkouts.read_file(self.file(path), self._session.object_reader(self._row))

    def checkout(
        self,
        directory: str | os.PathLike[str],
        *,
        force: bool = False,
        only: Collection[str] | None = None,
        progress: Any = None,
    ) -> Path:
        """Write the files into `directory`, byte for byte as they were saved (I3).

        All bytes are verified before any is visible. A folder that holds something is refused
        (TargetNotEmpty) unless `force`, which replaces files of the same names only. `only` names the files,
        or folders of files, to write; a text is one name.
        """
        target = Path(directory)
        self._require_visible()
        read = self._session.object_reader(self._row)
        checkouts.write(self.tree(), read, target, force=force, only=only, progress=progress)
        return target

    def path(self, *, weights: bool = True) -> Path:
        """A read-only folder with the files, kept in the cache; checked each time it is asked for.

        Without `weights` it is the same folder, but the files of weights may be missing from it: for
        who reads configuration or a tokenizer.
        """
        self._require_visible()
        read = self._session.object_reader(self._row)
        return checkouts.hand_out(self._session.cache_folders(), self.id, self.tree(), read, weights=weights)

    def cached(self) -> Path | None:
        """The folder of `path()`, if it is in the cache with all files; nothing is made."""
        self._require_visible()
        found = (checkouts.find(each, self.id, self.tree()) for each in self._session.cache_folders())
        return next(filter(None, found), None)

    def tensor_file(self, path: str) -> checkouts.TensorFile | None:
        """A safetensors file, to read tensors of it into memory of one's own; None if it was stored as
        plain bytes. Raises FileNotInVersion, Damage."""
        self._require_visible()
        read = self._session.object_reader(self._row)
        fill = self._session.object_filler(self._row)
        return checkouts.TensorFile.of(self.file(path), read, fill, read.length)

    def object_filler(self) -> FillObject:
        """Decodes objects of its files into memory that is given, each verified; for comparisons."""
        self._require_visible()
        return self._session.object_filler(self._row)

    def provenance(self, kind: str) -> bytes:
        """One erasable object: provenance (JSON: `command`, `environment`, `packages`, …), or one
        that an annotation attached. Raises NotFound, Redacted."""
        attached = {k: d for a in self.annotations for k, d in a.objects.items()}
        digest = {**attached, **self.record.provenance}.get(kind)
        if digest is None:
            raise NotFound(reason=f"version {self.short} has no provenance named {kind!r}")
        self._require_visible()
        for gone in self.redactions:
            if gone.item == kind:
                raise redacting.redacted(gone, self.id)
        return bytes(self._session.read_object(self._row, digest))

    def logged(self) -> list[dict[str, int | float]]:
        """What its run logged, step by step: `step`, `epoch` and every metric, as far as it was kept with the
        run's versions; those that came after this one included, of a moment those of then. Reads an object of
        each."""
        row = self._session.row(self.id)
        return [each.row() for each in logs.of_run(self._session, row, at=self._at).values()]

    def captured(self) -> Captured:
        """All that is known of how it came about, typed: command, environment, packages, seeds, code, data;
        `missing` says what is not there, and why. Raises VersionNotFound."""
        self._require_visible()
        return capturing.read(self.record.provenance, self.provenance)

    @property
    def redactions(self) -> list[deletions.Redaction]:
        """What was redacted of it: kind, when, by whom, why."""
        return deletions.redactions(self._session.catalog.connection, self._row.seq)

    def _as(self, what: str, **kwargs: Any) -> Any:
        self._require_visible()
        return _loader()(self, what, **kwargs)

    def _require_visible(self) -> None:
        """A version in hand may have been deleted since, by anybody: its bytes are not handed out then.
        Raises VersionNotFound."""
        self._session.refresh()
        self._session.row(self.id)

    def statistics(self) -> dict[str, TensorStatistics]:
        """What was learnt of each tensor when this was saved: mean, std, norm, …, and how far it moved from
        the first parent's. Empty for a version that has none, such as one of an earlier release."""
        return weighing.statistics_by_name(self._session, self._row)

    def surprises(self) -> list[Surprise]:
        """What about it nobody would expect who knows its parent."""
        parents = [VersionId.parse(parent) for parent in self.parents[:1]]
        before = surveyor.tree_of(self._session, parents)
        return surprises.surprises(before, self.tree(), self.record.statistics)

    def lora(self) -> LoraFacts | None:
        """Rank, alpha and targets read from the weights' shapes; None if there is no LoRA."""
        return lora.facts(self.tree(), self.read)

    def lora_spectra(self) -> DeltaTable | None:
        """What the LoRA adds to the base's weights, module by module: delta-W's norm, singular values and
        effective rank; None if there is no LoRA, or its weights cannot be read without unpickling.

        From the factors alone, in float64, without torch. A module whose bytes are damaged says so.
        """
        adapter = factors.adapter_of(self.tree(), self.read)
        return None if adapter is None else deltas.table(adapter, self.object_filler())

    # --- looking at it ----------------------------------------------------------------------

    def heatmap(self) -> HeatMap:
        """How far each module of each layer moved from the first parent's, as a picture; empty for a version
        without statistics, or without a parent."""
        return portraits.heatmap(self)

    def spectra(self) -> Spectra | None:
        """`lora_spectra` as a picture."""
        return portraits.spectra(self)

    def to_html(self, path: str | os.PathLike[str] | None = None) -> str:
        """A page of it; it needs no network and no other file. Raises PictureNotWritten."""
        return portraits.page_of_version(self).to_html(path)

    def to_pandas(self) -> Any:
        """A DataFrame, a row for each tensor with its statistics. Raises MissingExtra without pandas."""
        return portraits.to_pandas(self)

    def _repr_html_(self) -> str:
        return portraits.snippet_of_version(self)

    # --- for others -------------------------------------------------------------------------

    def card(self) -> str:
        """A Hugging Face model card, README.md: YAML header, how to load it, the training, the metrics.

        What was not recorded is left out and said; no path or user of a machine is in it.
        """
        return card.card(self._subject())

    def script(self) -> str:
        """A training script made from the record; its options ask for what was not recorded (`--data`)."""
        return script.script(self._subject())

    def requirements(self) -> str:
        """A requirements.txt: what was installed, pinned, the telling packages first."""
        return requirements.requirements(self._subject())

    def _subject(self) -> subject.Subject:
        self._session.refresh()
        return subject.gather(self, self._session.catalog.connection)

    # --- models -----------------------------------------------------------------------------

    def load(self, **kwargs: Any) -> Any:
        """The model, ready to use: the right AutoModel class, or the PEFT model on its base.

        Weights are decoded straight into its tensors; where `path()` was made before, they are taken
        from there.

        Takes from_pretrained's arguments, and `base=` (a folder, a version or a model), `merge=True`
        (fold an adapter into its base), `adapter=` (of several, the active one), `allow_pickle=True`.
        Raises BaseMismatch, BaseMissing, PickleRefused, NotLoadable.
        """
        return self._as("model", **kwargs)

    def load_tokenizer(self, **kwargs: Any) -> Any:
        """The tokenizer that was saved with the weights."""
        return self._as("tokenizer", **kwargs)

    def load_processor(self, **kwargs: Any) -> Any:
        """The processor of a vision, audio or multimodal model, as it was saved with the weights.

        A feature extractor or an image processor where that is all there is; a text model's tokenizer.
        Raises NotLoadable.
        """
        return self._as("processor", **kwargs)

    def state_dict(self, **kwargs: Any) -> dict[str, Any]:
        """All tensors by name, in memory of their own; `tensors=[…]` names those to read, a text
        one. For an adapter: the adapter's alone. Raises TensorNotInVersion, PickleRefused, NotLoadable.
        """
        tensors: dict[str, Any] = self._as("state_dict", **kwargs)
        return tensors

    def tensor(self, name: str, **kwargs: Any) -> Any:
        """One tensor; no other one is read. Raises as `state_dict`, and takes what that takes."""
        return self._as("state_dict", tensors=[name], **kwargs)[name]

    @property
    def source(self) -> Session:
        """The session this version is read through; for loaders."""
        return self._session

    def to_dict(self) -> dict[str, Any]:
        """What `--json` prints: names, record and merged metrics, JSON-safe but for NaN and inf."""
        return {
            "id": self.id.hex,
            "model": self.model,
            "name": self.name,
            "names": self.names,
            "aliases": self.aliases,
            "tags": self.tags,
            "created_at": self.created_at,
            "author": self.author,
            "message": self.message,
            "parents": self.parents,
            "run": self.run.name if self.run else None,
            "step": self.step,
            "epoch": self.epoch,
            "event": self.event,
            "kind": self.kind,
            "metrics": dict(self.metrics),
            "labels": dict(self.labels),
            "notes": self.notes,
            "config": dict(self.config),
            "data": dict(self.data),
            "base": _base_dict(self.base),
            "files": self.record.content.files,
            "bytes": self.size,
        }

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Version) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        shown = ", ".join(f"{k}={self.metrics[k]:.4g}" for k in by_interest(self.metrics)[:3])
        return f"<Version {self.short} {self.model}@{self.name}{' ' + shown if shown else ''}>"


def dataset_of_words(name: str, fingerprint: str) -> Dataset:
    """A dataset as it is told, without what looks like a secret (I10)."""
    return Dataset(capture.mask(text_of(name)), capture.mask(text_of(fingerprint)))


def _base_dict(base: Base | None) -> Mapping[str, object] | None:
    if base is None:
        return None
    return {
        "name_or_path": base.name_or_path,
        "revision": base.revision,
        "digest": base.digest,
        "version": base.version,
    }


def _loader() -> Any:
    """The loader of the `transformers` extra, found as a plug-in: nothing here imports torch."""
    from importlib.metadata import entry_points  # email and csv come with it

    for entry in entry_points(group="stemmata.loaders", name="transformers"):
        try:
            return entry.load()
        except ModuleNotFoundError as error:
            missing = error.name or "torch"
            raise MissingExtra(feature="loading a model", package=missing, extra="hf") from error
    raise MissingExtra(feature="loading a model", package="stemmata's own installation", extra="hf")
