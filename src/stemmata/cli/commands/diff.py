"""`stemmata diff`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from stemmata.cli import text
from stemmata.cli.config import has_arguments, telling
from stemmata.cli.help import HelpCommand, examples
from stemmata.cli.options import At, Heatmap, Html, Json, Repo, instant, open_repo, output_for
from stemmata.cli.registry import command_app
from stemmata.errors import InvalidArgument
from stemmata.metricnames import by_interest

if TYPE_CHECKING:
    from stemmata.cli.output import Output
    from stemmata.cli.ranking import Primary
    from stemmata.cli.styled import Text
    from stemmata.compare.diff import Diff, LoraDiff
    from stemmata.compare.records import Changes, MetricChange
    from stemmata.compare.statistics import Movement, WeightsDiff
    from stemmata.compare.tensors import FilesDiff, Tensor, TensorsDiff

app = command_app()
_Row = tuple[str, "Text"]
_FACTS = {"rslora": "rsLoRA", "dora": "DoRA", "rank_pattern": "other ranks", "others": "saved along"}
_UNSAID = ("from_weights", "disagreements", "other_bytes")


@app.command(
    cls=HelpCommand,
    epilog=examples(
        "stemmata diff sentiment@r4/epoch-3 sentiment@r8/epoch-3",
        "stemmata diff sentiment@production sentiment@best",
        "stemmata diff sentiment@production 'sentiment@production@{1}'",
        "stemmata diff sentiment@production sentiment@best --heatmap",
        "stemmata diff sentiment@production sentiment@best --html diff.html",
        "stemmata diff sentiment@production sentiment@best --eval sst2",
        json="a, b (id, name); about, config, data, provenance (added, removed, changed, same); metrics (by "
        "name: a, b, difference); files (added, removed, changed, same); tensors (added, removed, changed, "
        "refitted, same); lora (a, b, changed); at (UTC or null). With --eval: eval, a, b (as in show), "
        "matched_by, key, score, binary, direction, better, worse, right, wrong, unchanged, unscored, "
        "only_a, only_b, without_key, twice, mean, differing_data; fixed, broken (lists of line_a, "
        "line_b, a, b)",
    ),
)
def diff(
    context: typer.Context,
    first: Annotated[str, typer.Argument(metavar="A", help="The version to start from.")],
    second: Annotated[str, typer.Argument(metavar="B", help="The version that it leads to.")],
    weights: Annotated[
        bool, typer.Option("--weights/--no-weights", help="Whether to tell how far each tensor moved.")
    ] = True,
    eval_name: Annotated[
        str | None,
        typer.Option(
            "--eval", metavar="NAME", help="Compare the examples of this eval alone: fixed, broken."
        ),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(
            "--key",
            metavar="FIELD",
            help="With --eval: match by this field; 'line': by place. Default: what both have.",
        ),
    ] = None,
    score_field: Annotated[
        str | None,
        typer.Option(
            "--score-field",
            metavar="FIELD",
            help="With --eval: how good an answer was. Default: correct, score, …",
        ),
    ] = None,
    limit: Annotated[
        int, typer.Option("--limit", "-n", metavar="N", min=0, help="With --eval: show N of each kind.")
    ] = 5,
    heatmap: Heatmap = False,
    html: Html = None,
    at: At = None,
    repo: Repo = None,
    as_json: Json = False,
) -> None:
    """Show what differs between two versions.

    Config, metrics, data, files, which tensors changed, and LoRA's rank, alpha and targets as the
    weights tell them. Two LoRAs are compared by what they add to the base's weights, whatever the factors.
    Differences come first, what is equal is counted.

    With --eval it is what became of each example: matched by id, else by input, else by line.
    """
    output = output_for(context, as_json)
    moment = instant(at)
    with open_repo(context, repo) as repository:
        a, b = repository.get(first, at=moment), repository.get(second, at=moment)
        if eval_name is not None:
            from stemmata.cli.evals import tell_difference

            compared = repository.diff_evals(a, b, eval_name, key=key, score=score_field, show=limit)
            if output.json:
                output.document({**compared.to_dict(), "at": moment})
            else:
                tell_difference(output, compared, (f"{a.model}@{a.name}", f"{b.model}@{b.name}"))
            return
        if key is not None or score_field is not None:
            raise InvalidArgument(argument="--eval", reason="--key and --score-field go with it")
        with output.progress("reading weights") as told:
            found = repository.diff(a, b, weights=weights, progress=told)
        if heatmap or html is not None:
            from stemmata.cli.pictures import tell

            tell(output, found, found.heatmap if heatmap else None, html)
            return
        if output.json:
            output.document({**found.to_dict(), "at": moment})
            return
        if moment is not None:
            output.note(f"as of {text.utc(moment)}")
        from stemmata.cli.ranking import Primary

        removed, added = found.config.removed, found.config.added
        if has_arguments(a) != has_arguments(b):
            # A hundred defaults of a Trainer that the other side never had tell nothing of either.
            shown_a, shown_b = telling(a)[0], telling(b)[0]
            removed = {k: v for k, v in removed.items() if k in shown_a}
            added = {k: v for k, v in added.items() if k in shown_b}
        config = replace(found.config, removed=removed, added=added)
        unsaid = len(found.config.removed) + len(found.config.added) - len(removed) - len(added)
        _tell(output, replace(found, config=config), Primary(repository.session, b.model))
        if unsaid:
            output.note(
                f"{text.count(unsaid, 'setting')} of the Trainer, on one side only, not shown; see --json"
            )


def _tell(output: Output, found: Diff, primary: Primary) -> None:
    from stemmata.cli.listing import DIM, ID, NAME
    from stemmata.cli.styled import Text
    from stemmata.cli.tables import pairs

    for letter, name, version in (("a", found.label_a, found.a), ("b", found.label_b, found.b)):
        line = Text().append(f"{letter}  ", DIM)
        line.append(text.plain(name), NAME)
        line.append(f"  {version.short}", ID)
        output.show(line)
    if found.a == found.b:
        output.show("", "They are the same version.")
        return
    from stemmata.cli.deltas import moved, summary

    lora = [*_lora(found.lora), *summary(found.lora.deltas)]
    same_metrics = sum(m.same for m in found.metrics)
    sections: list[tuple[str, list[_Row], int]] = [
        ("metrics", _metrics(found.metrics, primary), same_metrics),
        (_title(found.lora), lora, 0),
        ("config", _changes(found.config), found.config.same),
        ("data", _changes(found.data), found.data.same),
        ("about", _changes(found.about), found.about.same),
        ("environment", _provenance(found.provenance), found.provenance.same),
        ("files", _files(found.files), len(found.files.same)),
        ("tensors", _tensors(found.tensors, found.weights), len(found.tensors.same)),
    ]
    for title, rows, same in sections:
        if rows:
            head = Text().append(title, "bold")
            head.append(f"  {same} equal" if same else "", DIM)
            output.show("", head, pairs(rows, output.width))
        if rows is lora and (table := moved(found.lora.deltas, output.width)):
            output.show("", *table)
    equal = [title for title, rows, same in sections if same and not rows]
    if equal:
        output.show("", Text(f"equal: {', '.join(equal)}", DIM))
    if found.same_bytes:
        output.show("", Text("Both hold the very same files.", "green"))


def _move(before: str, after: str) -> Text:
    """`before → after`, one under the other where they are long."""
    from stemmata.cli.styled import Text

    line = Text().append(before, "red")
    line.append("\n→ " if len(before) + len(after) > 60 else " → ", "dim")
    line.append(after, "green")
    return line


def _metrics(metrics: Sequence[MetricChange], primary: Primary) -> list[_Row]:
    from stemmata.cli.styled import Text

    rows = []
    different = [m for m in metrics if not m.same]
    order = {key: place for place, key in enumerate(by_interest((m.key for m in different), primary.metric))}
    for metric in sorted(different, key=lambda m: order[m.key]):
        before, after = text.apart(metric.a, metric.b)
        line = Text(before)
        line.append(" → ", "dim")
        line.append(after)
        if metric.difference:
            way = primary.direction(metric.key)
            better = (metric.difference < 0) == (way == "min")
            style = "" if way is None else "green" if better else "red"
            words = "" if way is None else " better" if better else " worse"
            arrow = "▼" if metric.difference < 0 else "▲"
            line.append(f"  {arrow} {text.number(abs(metric.difference))}", style)
            if metric.a:
                line.append(f" ({_share(abs(metric.difference / metric.a))})", style)
            line.append(words, style)
        rows.append((text.plain(metric.key), line))
    return rows


def _share(share: float) -> str:
    return f"{share:.1%}" if share >= 0.0005 else "<0.1%"


def _changes(changes: Changes) -> list[_Row]:
    from stemmata.cli.styled import Text

    rows = [(text.plain(c.key), _move(text.setting(c.a), text.setting(c.b))) for c in changes.changed]
    rows += [(text.plain(k), Text(f"- {text.setting(v)}", "red")) for k, v in changes.removed.items()]
    rows += [(text.plain(k), Text(f"+ {text.setting(v)}", "green")) for k, v in changes.added.items()]
    return sorted(rows, key=lambda row: row[0])


def _provenance(changes: Changes) -> list[_Row]:
    """Which kinds differ; their digests tell people nothing."""
    from stemmata.cli.styled import Text

    rows = []
    for change in changes.changed:
        # Of what was redacted only that is said.
        words = [str(v) for v in (change.a, change.b) if str(v).startswith("redacted")]
        rows.append((text.plain(change.key), Text(words[0] if words else "differs")))
    rows += [(text.plain(kind), Text("only in a", "red")) for kind in changes.removed]
    rows += [(text.plain(kind), Text("only in b", "green")) for kind in changes.added]
    return rows


def _title(lora: LoraDiff) -> str:
    """The method that both have; LoRA where neither is anything else."""
    titles = {side.title for side in (lora.a, lora.b) if side is not None}
    return titles.pop() if len(titles) == 1 else "adapter" if titles else "LoRA"


def _lora(lora: LoraDiff) -> list[_Row]:
    from stemmata.cli.styled import Text

    rows: list[_Row] = []
    if lora.a is None or lora.b is None:
        if lora:
            rows.append(("", _move(*(text.plain(str(x)) if x else "none" for x in (lora.a, lora.b)))))
    else:
        for change in lora.changed:
            if change.key not in _UNSAID:
                shown = [f"{x:g}" if isinstance(x, float) else text.setting(x) for x in (change.a, change.b)]
                rows.append((_FACTS.get(change.key, change.key.replace("_", " ")), _move(*shown)))
        if not rows:
            rows.append(("same", Text(text.plain(str(lora.b)))))
    for letter, side in (("a", lora.a), ("b", lora.b)):
        if side is not None and side.disagreements:
            words = "adapter_config.json disagrees: " + "; ".join(side.disagreements)
            rows.append((letter, Text(text.plain(words), "yellow")))
    return rows


def _files(files: FilesDiff) -> list[_Row]:
    from stemmata.cli.styled import Text

    rows: list[_Row] = []
    for change in files.changed:
        line = Text().append("~ ", "yellow")
        sizes = f"{text.size(change.a.size)} → {text.size(change.b.size)}"
        line.append(sizes if change.a.size != change.b.size else text.size(change.b.size))
        if change.a.digest == change.b.digest:
            line.append("  only the executable bit", "dim")
        rows.append((text.plain(change.path), line))
    rows += [(text.plain(f.path), Text(f"- {text.size(f.size)}", "red")) for f in files.removed]
    rows += [(text.plain(f.path), Text(f"+ {text.size(f.size)}", "green")) for f in files.added]
    return sorted(rows, key=lambda row: row[0])


def _tensors(tensors: TensorsDiff, weights: WeightsDiff | None) -> list[_Row]:
    """One line for tensors whose names differ only in their numbers, such as those of all layers."""
    from stemmata.cli.styled import Text
    from stemmata.compare.statistics import together

    moved = weights.moved if weights is not None else {}

    groups: dict[tuple[str, str, str], list[str]] = {}
    for mark, style, what in (
        ("~", "yellow", [(c.name, _shape(c.b)) for c in tensors.changed]),
        ("≠", "magenta", [(c.name, _refit(c.a, c.b)) for c in tensors.refitted]),
        ("-", "red", [(t.name, _shape(t)) for t in tensors.removed]),
        ("+", "green", [(t.name, _shape(t)) for t in tensors.added]),
    ):
        for name, shown in what:
            key = (f"{mark} {shown}", style, text.unnumbered(name))
            groups.setdefault(key, []).append(name)
    rows = []
    for (shown, style, _), names in groups.items():
        line = Text().append(shown, style)
        if len(names) > 1:
            line.append(f"  in {len(names)} tensors", "dim")
        far = together(moved[name] for name in names if name in moved)
        if far is not None:
            line.append(f"  {_far(far)}", "yellow" if far.change else "dim")
            if far.unchanged:
                line.append(f"  {text.count(far.unchanged, 'element')} as before", "dim")
        rows.append((text.plain(text.fold(names)), line))
    return rows


def _far(movement: Movement) -> str:
    if not movement.change:
        return "not moved, but for what is not finite"
    if math.isnan(movement.relative):
        return "moved, by numbers too large to square"
    return f"moved {text.share_moved(movement.relative)}"


def _shape(tensor: Tensor) -> str:
    return f"{tensor.dtype} {'×'.join(map(str, tensor.shape)) or 'scalar'}"


def _refit(a: Tensor, b: Tensor) -> str:
    return f"{_shape(a)} → {_shape(b)}"
