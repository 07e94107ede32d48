"""Evals as people see them: what a version was measured on, and what became of each example."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from stemmata.cli import text
from stemmata.cli.styled import Text
from stemmata.cli.tables import pairs

if TYPE_CHECKING:
    from stemmata.cli.output import Output
    from stemmata.evals import Eval, EvalDiff
    from stemmata.evals.comparing import Changed
    from stemmata.version import Version

_LONGEST = 300
_ASIDE = 4
"""Fields of an example beside those that matter, at most."""


def evals_rows(version: Version) -> list[tuple[str, Text]]:
    """A line for each eval of a version."""
    rows = []
    gone = {each.item for each in version.redactions}
    for each in version.evals():
        line = Text(", ".join(f"{text.plain(k)} {text.precise(v)}" for k, v in sorted(each.metrics.items())))
        if each.kinds:
            line.append(f"{'  ' if line else ''}{text.count(each.count, 'example')}")
            line.append("  redacted" if gone.intersection(each.kinds) else "", "red")
        said = f"  {text.local(each.at)} by {text.plain(each.by)}"
        said += f", on {text.plain(str(each.dataset))}" if each.dataset else ""
        line.append(said, "dim")
        rows.append((text.plain(each.name), line))
    return rows


def print_examples(version: Version, name: str) -> None:
    """Write an eval's examples to stdout as they were given."""
    for line in version.example_lines(name):
        sys.stdout.buffer.write(line)
    sys.stdout.buffer.flush()


def tell_difference(output: Output, found: EvalDiff, labels: tuple[str, str]) -> None:
    """What became of the examples: how many, then some of them."""
    sides = ((found.eval_a, found.mean_a), (found.eval_b, found.mean_b))
    for letter, label, (each, mean) in zip("ab", labels, sides, strict=True):
        line = Text().append(f"{letter}  ", "dim").append(text.plain(label), "bold")
        line.append(_said(each, found.score, mean), "dim")
        output.show(line)
    words = ("fixed", "broken") if found.binary else ("improved", "worsened")
    head = Text().append(f"{found.better:,} {words[0]}", "bold green").append(", ")
    head.append(f"{found.worse:,} {words[1]}", "bold red")
    same = (
        f"{found.right:,} right and {found.wrong:,} wrong in both"
        if found.binary
        else f"{found.unchanged:,} equal"
    )
    head.append(f"; {same}", "dim")
    output.show("", head)
    for word, changed, style in ((words[0], found.fixed, "green"), (words[1], found.broken, "red")):
        for place, each_changed in enumerate(changed):
            output.show("", *([] if place else [Text(word, style)]), pairs(_rows(each_changed), output.width))
    output.note(f"matched by {text.plain(found.key)}, scored by {text.plain(found.score)}")
    for words_beside in _asides(found):
        output.note(text.plain(words_beside))


def _said(each: Eval, field: str, mean: float | None) -> str:
    said = f"  {text.count(each.count, 'example')}"
    said += f", mean {text.plain(field)} {text.precise(mean)}" if mean is not None else ""
    return said + (f", on {text.plain(str(each.dataset))}" if each.dataset else "")


def _asides(found: EvalDiff) -> list[str]:
    """What keeps the counts from being of all examples."""
    words = []
    if found.differing_data:
        words.append(f"they may not be the same examples: {found.differing_data}")
    if found.matched_by == "line":
        words.append("no id and no input that both have: the n-th is held against the n-th")
    for count, said in (
        (found.only_a, "only in a"),
        (found.only_b, "only in b"),
        (found.unscored, "without a score on a side"),
        (found.unkeyed_a + found.unkeyed_b, f"without {found.key}"),
    ):
        if count:
            words.append(f"{text.count(count, 'example')} {said}")
    if found.twice_a or found.twice_b:
        named = ", ".join(found.twice_named)
        words.append(
            f"more than once, and so not compared: {found.twice_a:,} of a, {found.twice_b:,} of b ({named})"
        )
    return words


def _rows(change: Changed) -> list[tuple[str, Text]]:
    """What both say alike, then what they say differently."""
    keys = list(dict.fromkeys([*change.b, *change.a]))
    alike = [k for k in keys if k in change.a and k in change.b and change.a[k] == change.b[k]]
    rows = [(text.plain(k), Text(_value(change.b[k]))) for k in alike[:_ASIDE]]
    for key in [k for k in keys if k not in alike][: 2 * _ASIDE]:
        before, after = _value(change.a.get(key)), _value(change.b.get(key))
        line = Text().append(before, "red")
        line.append("\n→ " if len(before) + len(after) > 60 else " → ", "dim")
        rows.append((text.plain(key), line.append(after, "green")))
    return rows


def _value(value: Any) -> str:
    shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    cut = shown if len(shown) <= _LONGEST else shown[:_LONGEST] + "…"
    return text.plain(cut.encode("utf-8", "replace").decode("utf-8"))
