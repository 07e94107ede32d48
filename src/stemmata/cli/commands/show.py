"""`stemmata show`."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from stemmata.cli import exporting, overfitting, text
from stemmata.cli.config import telling
from stemmata.cli.help import HelpCommand, examples
from stemmata.cli.options import At, Heatmap, Html, Json, Ref, Repo, open_repo, output_for, outside
from stemmata.cli.registry import command_app
from stemmata.metricnames import by_interest

if TYPE_CHECKING:
    from stemmata.cli.output import Output
    from stemmata.cli.styled import Text
    from stemmata.repository import Repository
    from stemmata.resolve import Resolved
    from stemmata.trees import TreeFile
    from stemmata.version import Version

app = command_app()


@app.command(
    cls=HelpCommand,
    epilog=examples(
        "stemmata show sentiment@production",
        "stemmata show 3f9a12bc --files --tensors",
        "stemmata show sentiment@production --spectrum",
        "stemmata show sentiment@production --html production.html",
        "stemmata show 'sentiment@production@{3 weeks ago}'",
        "stemmata show sentiment@production --examples sst2 > sst2.jsonl",
        "stemmata show sentiment@production --card -o README.md",
        "stemmata show sentiment@production --script -o train.py",
        json="version (as in log), lora (rank, alpha, targets, … or null), provenance (list of kinds), "
        "redacted (list of item, at, by, why), surprises (list of kind, text), overfitting (of its run, as "
        "in log, or null), "
        "files (list of path, size, digest, executable), tensors (list of name, dtype, shape, bytes, file, "
        "statistics; "
        "with --tensors), spectrum (norm, effective_rank, modules by name; with --spectrum), "
        "annotations (list of at, by, metrics, labels, notes, event, why), measured (by metric: value, "
        "dataset, source, at, by, later), evals (list of name, metrics, dataset, source, at, by, why, "
        "examples, bytes, kind), reproductions (list of verdict, at, by, why, steps, first_step, largest, "
        "causes, object), at (UTC or null); with --card, --script or --requirements: version (id), "
        "export (which), text, written (the file or null), at",
    ),
)
def show(
    context: typer.Context,
    reference: Ref,
    tensors: Annotated[bool, typer.Option("--tensors", help="List the tensors too.")] = False,
    files: Annotated[bool, typer.Option("--files", help="List all files with their digests.")] = False,
    config: Annotated[
        bool, typer.Option("--config", help="List all settings, also the Trainer's housekeeping.")
    ] = False,
    spectrum: Annotated[
        bool, typer.Option("--spectrum", help="Read a LoRA's factors: what it adds to each module.")
    ] = False,
    eval_name: Annotated[
        str | None,
        typer.Option(
            "--examples", metavar="NAME", help="Print the examples of this eval alone, as JSON lines."
        ),
    ] = None,
    heatmap: Heatmap = False,
    html: Html = None,
    card: Annotated[
        bool, typer.Option("--card", help="Print it as a Hugging Face model card (README.md) instead.")
    ] = False,
    script: Annotated[
        bool, typer.Option("--script", help="Print a script that trains it again, from what was recorded.")
    ] = False,
    requirements: Annotated[
        bool, typer.Option("--requirements", help="Print the packages it was trained with, for pip.")
    ] = False,
    target: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="Write the card, script or requirements to this file."
        ),
    ] = None,
    at: At = None,
    repo: Repo = None,
    as_json: Json = False,
) -> None:
    """Show one version: metrics, config, parents, files.

    Of a Trainer's settings those that tell the training are shown; all of them with --config. With
    --spectrum also the norm of what a LoRA adds to each module, and in how many of its rank's directions.
    """
    output = output_for(context, as_json)
    others = {"--tensors": tensors, "--files": files, "--config": config, "--spectrum": spectrum}
    others |= {"--examples": eval_name is not None, "--html": html is not None, "--heatmap": heatmap}
    exports = {"card": card, "script": script, "requirements": requirements}
    export = exporting.chosen(exports, others, target)
    with open_repo(context, repo) as repository:
        resolved = repository.resolve(reference, at=at)
        version = repository.get(resolved.row.id, at=resolved.at_utc)
        if export is not None:
            if target is not None:
                outside(target, "--output")
            exporting.export(output, version, export, target, resolved.at_utc)
            return
        if eval_name is not None:
            from stemmata.cli.evals import print_examples

            print_examples(version, eval_name)
            return
        if heatmap or html is not None:
            from stemmata.cli.pictures import tell

            tell(output, version, version.heatmap if heatmap else None, html)
            return
        if output.json:
            document = _document(version, tensors=tensors)
            if spectrum:
                document["spectrum"] = told.to_dict() if (told := version.lora_spectra()) else None
            output.document({**document, "at": resolved.at_utc})
            return
        _tell_reference(output, resolved)
        _tell(output, repository, version, all_settings=config)
        if spectrum:
            output.show("", *_spectra(version, output.width))
        if files:
            output.show("", *_files(version.files, output.width))
        if tensors:
            output.show("", *_tensors(version, output.width))


def _tell_reference(output: Output, resolved: Resolved) -> None:
    """How the reference was read, where that is not plain."""
    if resolved.at_utc is not None:
        output.note(f"as of {text.utc(resolved.at_utc)}")
    if resolved.best is not None:
        word = "lowest" if resolved.best.direction == "min" else "highest"
        value = text.precise(resolved.best.value)
        output.note(f"best by the {word} {text.plain(resolved.best.metric)}, {value}")


def _document(version: Version, *, tensors: bool) -> dict[str, object]:
    document: dict[str, object] = {
        "version": version.to_dict(),
        "lora": version.lora(),
        "provenance": sorted(version.record.provenance),
        "redacted": version.redactions,
        "surprises": version.surprises(),
        "overfitting": hint.to_dict() if (hint := overfitting.of_version(version)) is not None else None,
        "files": [
            {"path": f.path, "size": f.size, "digest": f.digest, "executable": f.executable}
            for f in version.files
        ],
        "annotations": version.annotations,
        "measured": {
            key: {**msgspec.structs.asdict(m), "dataset": m.dataset.to_dict()}
            for key, m in version.measurements.items()
        },
        "evals": [each.to_dict() for each in version.evals()],
        "reproductions": [each.to_dict() for each in version.reproductions()],
    }
    if tensors:
        document["tensors"] = tensor_rows(version)
    return document


def tensor_rows(version: Version) -> list[dict[str, Any]]:
    """Every tensor of a version, in the order of the files, with what was learnt of it when it was saved."""
    known = version.statistics()
    found = []
    for file in version.files:
        for s in file.segments:
            if s.name is None:
                continue
            row = known.get(s.name) or known.get(f"{file.path}:{s.name}")
            shape = s.shape or []
            found.append(
                {
                    "name": s.name,
                    "dtype": s.dtype,
                    "shape": shape,
                    "bytes": s.length,
                    "file": file.path,
                    "statistics": row and row.to_dict(math.prod(shape)),
                }
            )
    return found


def _tell(output: Output, repository: Repository, version: Version, *, all_settings: bool) -> None:
    from stemmata.cli.evals import evals_rows
    from stemmata.cli.listing import ID, name_of
    from stemmata.cli.styled import Text
    from stemmata.cli.tables import pairs

    head = Text().append(f"{version.id.hex[:12]}", ID)
    head.append("  ")
    head.append_text(name_of(version, model=True))
    output.show(head)
    if version.message:
        for line in text.plain(version.message.strip(), lines=True).split("\n"):
            output.show(Text(f"    {line}"))
    shown, left_out = (dict(version.config), 0) if all_settings else telling(version)
    sections = {
        "": _facts(repository, version),
        "metrics": _metrics(version),
        "evals": evals_rows(version),
        "config": [(text.plain(k), Text(text.setting(v))) for k, v in sorted(shown.items())],
        "data": [(text.plain(k), Text(text.setting(v))) for k, v in sorted(version.data.items())],
        "labels": [(text.plain(k), Text(text.plain(v))) for k, v in sorted(version.labels.items())],
        "notes": [
            (f"{text.local(a.at)} {text.plain(a.by)}", Text(text.plain(a.notes, lines=True)))
            for a in version.annotations
            if a.notes
        ],
        "provenance": _provenance(version),
    }
    for title, rows in sections.items():
        if rows:
            output.show("", *([Text(title, "bold")] if title else []), pairs(rows, output.width))
        if title == "config" and left_out:
            more = f"  {text.count(left_out, 'more setting')} of the Trainer; list all with --config"
            output.show(Text(more, "dim"))


def _provenance(version: Version) -> list[tuple[str, Text]]:
    """What captured the run, by kind; of what was redacted the tombstone."""
    from stemmata.cli.styled import Text

    gone = {each.item: each for each in version.redactions}
    attached = {kind for a in version.annotations for kind in a.objects}
    kept = sorted((set(version.record.provenance) | attached) - set(gone))
    rows = [("kept", Text(text.plain(", ".join(kept)), "dim"))] if kept else []
    for kind, each in gone.items():
        words = f"redacted on {text.local(each.at)} by {text.plain(each.by)}"
        rows.append(
            (text.plain(kind), Text(words + (f": {text.plain(each.why)}" if each.why else ""), "red"))
        )
    return rows


def _facts(repository: Repository, version: Version) -> list[tuple[str, Text]]:
    from stemmata.cli.listing import DIM
    from stemmata.cli.reproductions import reproduced_rows
    from stemmata.cli.styled import Text

    now = datetime.now(UTC)
    saved = Text(text.local(version.created_at))
    saved.append(f"  {text.ago(version.created_at, now)}", DIM)
    saved.append(f"  by {text.plain(version.author)}" if version.author else "", DIM)
    rows: list[tuple[str, Text]] = [("saved", saved)]
    if version.run is not None:
        rows.append(("run", Text(text.plain(version.run.name))))
    where = [f"epoch {text.epoch(version.epoch)}"] if version.epoch is not None else []
    where += [f"step {version.step:,}"] if version.step is not None else []
    progress = Text(", ".join(where))
    progress.append(f"{'  ' if where else ''}saved by: {text.plain(version.event)}", DIM)
    rows.append(("progress", progress))
    rows += [("kind", _kind(version)), *_parents(repository, version)]
    content = version.record.content
    rows.append(("size", Text(f"{text.size(content.bytes)} in {text.count(content.files, 'file')}")))
    rows.append(("id", Text(version.id.hex)))
    rows += reproduced_rows(version)
    rows += [("look", Text(text.plain(str(each)), "yellow")) for each in version.surprises()]
    if (hint := overfitting.of_version(version)) is not None:
        rows.append(("look", Text(f"its run: {overfitting.words(hint)}", "yellow")))
    return rows


def _kind(version: Version) -> Text:
    from stemmata.cli.styled import Text

    line = Text(text.plain(version.kind))
    facts = version.lora()
    if facts is not None:
        line.append(f", {text.plain(facts.title)} {text.plain(str(facts))}")
    if version.base is not None:
        line.append(f", on {text.plain(version.base.name_or_path)}")
        if version.base.digest:
            line.append(f" ({version.base.digest[:12]})", "dim")
    return line


def _parents(repository: Repository, version: Version) -> list[tuple[str, Text]]:
    from stemmata.cli.styled import Text
    from stemmata.errors import NotFound
    from stemmata.ids import VersionId

    rows = []
    for parent in version.parents:
        line = Text().append(parent[:12], "yellow")
        try:
            found = repository.get(VersionId.parse(parent))
            line.append(f"  {text.plain(found.model)}@{text.plain(found.name)}")
        except (NotFound, ValueError):
            line.append(f"  {_gone(repository, parent)}", "dim")
        rows.append(("parent", line))
    return rows


def _gone(repository: Repository, parent: str) -> str:
    """Why a parent cannot be looked at: the link to it stays all the same."""
    from stemmata.catalog import queries
    from stemmata.ids import VersionId

    try:
        row = queries.version_by_id(repository.session.catalog.connection, VersionId.parse(parent))
    except ValueError:
        row = None
    if row is None:
        return "not in this repository"
    name = queries.model_name(repository.session.catalog.connection, row.model)
    return f"{text.plain(name)}@{text.plain(row.name)}, which was deleted"


def _metrics(version: Version) -> list[tuple[str, Text]]:
    from stemmata.cli.ranking import Primary
    from stemmata.cli.styled import Text

    primary = Primary(version.source.catalog.connection, version.model).metric
    rows = []
    for key in by_interest(version.metrics, primary):
        line = Text().append(text.precise(version.metrics[key]), "bold green" if key == primary else "")
        measured = version.measurements[key]
        if measured.later:
            words = f"  added later, {text.local(measured.at)} {text.plain(measured.told)}"
            line.append(words.rstrip(), "dim")
        rows.append((text.plain(key), line))
    return rows


def _spectra(version: Version, width: int) -> list[Text]:
    from stemmata.cli.deltas import spectra
    from stemmata.cli.styled import Text

    found = version.lora_spectra()
    if found is None:
        return [Text("no LoRA whose weights can be read", "dim")]
    return spectra(found, width)


def _files(files: list[TreeFile], width: int) -> list[Text]:
    from stemmata.cli.styled import Text
    from stemmata.cli.tables import Column, table

    columns = [
        Column("path", shrink=20),
        Column("size", 1, right=True),
        Column("", 3),
        Column("BLAKE3", 2, shrink=12),
    ]
    for entry in files:
        columns[0].add(text.plain(entry.path))
        columns[1].add(text.size(entry.size), "dim")
        columns[2].add("executable" if entry.executable else "", "dim")
        columns[3].add(entry.digest, "yellow")
    return [Text("files", "bold"), table(columns, width, indent=2, head=False)]


def _tensors(version: Version, width: int) -> list[Text]:
    from stemmata.cli.styled import Text
    from stemmata.cli.tables import Column, table

    rows = tensor_rows(version)
    several = len({row["file"] for row in rows}) > 1
    columns = [Column("tensor", shrink=20), Column("dtype", 1), Column("shape", 1, right=True)]
    columns += [Column("size", 3, right=True), Column("file", 6, shrink=12)]
    numbers = [Column(name, rank, right=True) for name, rank in (("mean", 4), ("std", 4), ("moved", 2))]
    columns += [*numbers, Column("", 2)]
    for row in rows:
        learnt = row["statistics"] or {}
        for column, key in zip(numbers, ("mean", "std", "relative_change"), strict=True):
            value = learnt.get(key)
            if key != "relative_change":
                column.add("" if value is None else f"{value:.3g}", "dim")
            elif key in learnt:
                column.add(text.share_moved(value) if value != 0 else "0", "dim" if value == 0 else "yellow")
            else:
                column.add("")
        bad = learnt.get("nonfinite")
        columns[-1].add(f"{bad:,} not finite" if bad else "", "bold red")
        columns[0].add(text.plain(row["name"]))
        columns[1].add(text.plain(row["dtype"] or ""), "dim")
        columns[2].add(" × ".join(map(str, row["shape"])) or "scalar")
        columns[3].add(text.size(row["bytes"]), "dim")
        columns[4].add(text.plain(row["file"]) if several else "", "dim")
    if not rows:
        return [Text("no tensors that stemmata can tell apart", "dim")]
    return [Text(f"{text.count(len(rows), 'tensor')}", "bold"), table(columns, width, indent=2)]
