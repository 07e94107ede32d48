"""A difference of two versions for people. Owns the order of its sections and what is folded away."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from stemmata.cli import text
from stemmata.cli.changes import changed_rows, counted, move, unified
from stemmata.cli.listing import DIM, ID, NAME
from stemmata.cli.styled import Text
from stemmata.cli.tables import Column, pairs, table
from stemmata.metricnames import by_interest, is_aside

if TYPE_CHECKING:
    from stemmata.cli.output import Output
    from stemmata.compare.diff import Diff, LoraDiff
    from stemmata.compare.readings import Reading
    from stemmata.compare.records import MetricChange
    from stemmata.compare.tensors import FilesDiff
    from stemmata.compare.texts import TextChange

_Row = tuple[str, Text]
_FEW_LINES = 12
"""Lines of a text that are shown without being asked for."""


class Section(NamedTuple):
    """One part: what differs, as text laid out already, and how much is equal."""

    title: str
    lines: list[Text]
    same: int


def tell(output: Output, found: Diff, primary: str | None, *, full: bool = False) -> None:
    """Print it: sections with differences first, then the names of those where all is equal."""
    heads(output, found)
    if found.a == found.b:
        output.show("", "They are the same version.")
        return
    sections = list(_sections(found, primary, output.width, full=full))
    for section in sections:
        if section.lines:
            head = Text().append(section.title, "bold")
            head.append(f"  {section.same:,} equal" if section.same else "", DIM)
            output.show("", head, *section.lines)
    equal = [section.title for section in sections if section.same and not section.lines]
    if equal:
        output.show("", Text(f"equal: {', '.join(equal)}", DIM))
    if found.same_bytes:
        output.show("", Text("Both hold the very same files.", "green"))


def heads(output: Output, found: Diff) -> None:
    """The two versions, and how one comes from the other."""
    for letter, name, version in (("a", found.label_a, found.a), ("b", found.label_b, found.b)):
        line = Text().append(f"{letter}  ", DIM)
        line.append(text.plain(name), NAME)
        line.append(f"  {version.short}", ID)
        output.show(line)
    if words := found.descent:
        output.show(Text(f"   {words}", DIM))
    for note in found.notes:
        output.show(Text(f"   {text.plain(note)}", "yellow"))


def _sections(found: Diff, primary: str | None, width: int, *, full: bool) -> Iterator[Section]:
    from stemmata.cli.provenances import code_lines, environment_lines, tokenizer_lines
    from stemmata.cli.tensorchanges import tensor_lines

    at = f" at {found.point}" if found.point is not None else ""
    same = sum(m.same for m in found.metrics)
    yield Section(f"metrics{at}", list(_metrics(found, primary, width)), same)
    yield Section(_title(found.lora), _adapters(found.lora, width), 0)
    for title, changes in (("config", found.config), ("data", found.data), ("about", found.about)):
        rows = changed_rows(changes)
        yield Section(title, [pairs(rows, width)] if rows else [], changes.same)
    environment = found.environment
    yield Section(
        "environment",
        environment_lines(environment, width, full=full),
        environment.same or len(environment.alike),
    )
    yield Section("code", code_lines(found.code, width, full=full), len(found.code.alike))
    yield Section("tokenizer", tokenizer_lines(found.tokenizer, width, full=full), int(found.tokenizer.same))
    yield Section("files", list(_files(found.files, found.texts, width, full=full)), len(found.files.same))
    yield Section(
        "tensors", tensor_lines(found.tensors, found.weights, width, full=full), len(found.tensors.same)
    )


# --- metrics --------------------------------------------------------------------------------------


def _metrics(found: Diff, primary: str | None, width: int) -> Iterator[Text]:
    from stemmata.compare.records import by_data

    different = [m for m in found.metrics if not m.same]
    if different:
        order = {key: place for place, key in enumerate(by_interest((m.key for m in different), primary))}
        yield _metric_table(sorted(different, key=lambda m: order[m.key]), width)
    if different and not any(m.a is not None and m.b is not None for m in found.metrics):
        yield Text("  no metric is on both sides", DIM)
    for words in by_data((m.key, m.differing_data) for m in found.metrics):
        yield Text(f"  {text.plain(words)}", "yellow")
    for letter, reading in zip("ab", found.readings or (), strict=False):
        yield reading_line(letter, reading)


def reading_line(letter: str, reading: Reading) -> Text:
    """Where a side's metrics at a step or an epoch stand, or why there are none."""
    line = Text(f"  {letter}  ", DIM)
    if reading.problem:
        return line.append(text.plain(reading.problem), "yellow")
    where = [f"step {reading.step:,}"] if reading.step is not None else []
    where += [f"epoch {text.epoch(reading.epoch)}"] if reading.epoch is not None else []
    words = f"{', '.join(where)}: " if where else ""
    return line.append(text.plain(f"{words}{' and '.join(reading.sources)}"), DIM)


def _metric_table(metrics: Sequence[MetricChange], width: int) -> Text:
    columns = [Column("", shrink=12), Column("", right=True), Column(""), Column("", right=True)]
    columns += [Column("", 1), Column("", 3), Column("", 2)]
    for metric in metrics:
        before, after = text.apart(metric.a, metric.b)
        aside = DIM if is_aside(metric.key) and metric.key != "" else ""
        columns[0].add(text.plain(metric.key), DIM)
        columns[1].add("" if metric.a is None else before, aside)
        columns[2].add("→" if metric.a is not None and metric.b is not None else "", DIM)
        columns[3].add("" if metric.b is None else after, aside)
        style = aside if metric.better is None else "green" if metric.better else "red"
        gap = metric.difference
        arrow = ("▼" if gap < 0 else "▲") if gap else ""
        columns[4].add(f"{arrow} {text.number(abs(gap))}" if gap else "", style)
        columns[5].add(f"({_share(abs(gap / metric.a))})" if gap and metric.a else "", style)
        words = "" if metric.better is None else "better" if metric.better else "worse"
        if metric.a is None or metric.b is None:
            words = "only in b" if metric.a is None else "only in a"
        columns[6].add(words, style or DIM)
    return table(columns, width, indent=2, head=False)


def _share(share: float) -> str:
    return f"{share:.1%}" if share >= 0.0005 else "<0.1%"


# --- LoRA and files -------------------------------------------------------------------------------


def _title(lora: LoraDiff) -> str:
    """The method that both have; LoRA where neither is anything else."""
    titles = {side.title for side in (lora.a, lora.b) if side is not None}
    return titles.pop() if len(titles) == 1 else "adapter" if titles else "LoRA"


def _adapters(lora: LoraDiff, width: int) -> list[Text]:
    if lora.a is None and lora.b is None:
        return []
    from stemmata.cli.deltas import moved, summary

    rows = [*_lora(lora), *summary(lora.deltas)]
    most = moved(lora.deltas, width) if rows else []
    return [*([pairs(rows, width)] if rows else []), *([Text(), *most] if most else [])]


def _lora(lora: LoraDiff) -> list[_Row]:
    from stemmata.compare.lora import FACTS, UNSAID

    rows: list[_Row] = []
    if lora.a is None or lora.b is None:
        if lora:
            rows.append(("", move(*(text.plain(str(x)) if x else "none" for x in (lora.a, lora.b)))))
    else:
        for change in lora.changed:
            if change.key not in UNSAID:
                shown = [f"{x:g}" if isinstance(x, float) else text.setting(x) for x in (change.a, change.b)]
                rows.append((FACTS.get(change.key, change.key.replace("_", " ")), move(*shown)))
        if not rows:
            rows.append(("same", Text(text.plain(str(lora.b)))))
    for letter, side in (("a", lora.a), ("b", lora.b)):
        if side is not None and side.disagreements:
            words = "adapter_config.json disagrees: " + "; ".join(side.disagreements)
            rows.append((letter, Text(text.plain(words), "yellow")))
    return rows


def _files(files: FilesDiff, texts: Sequence[TextChange], width: int, *, full: bool) -> Iterator[Text]:
    by_path = {change.name: change for change in texts}
    rows: list[tuple[str, Text]] = []
    for change in files.changed:
        line = Text().append("~ ", "yellow")
        sizes = f"{text.size(change.a.size)} → {text.size(change.b.size)}"
        line.append(sizes if change.a.size != change.b.size else text.size(change.b.size))
        if change.a.digest == change.b.digest:
            line.append("  only the executable bit", DIM)
        if change.path in by_path:
            line.append("  ").append_text(counted(by_path[change.path]))
        rows.append((change.path, line))
    rows += [(f.path, Text(f"- {text.size(f.size)}", "red")) for f in files.removed]
    rows += [(f.path, Text(f"+ {text.size(f.size)}", "green")) for f in files.added]
    rows.sort(key=lambda row: row[0])
    if rows:
        yield pairs([(text.plain(path), line) for path, line in rows], width)
    for path, _ in rows:
        if path in by_path and by_path[path].lines:
            yield Text(f"  {text.plain(path)}", DIM)
            yield from unified(by_path[path], width, limit=None if full else _FEW_LINES)
