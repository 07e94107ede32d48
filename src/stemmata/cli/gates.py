"""Gates as people see them: each requirement, what was found, what was wanted. Owns that table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stemmata.cli import text
from stemmata.records import load_value

if TYPE_CHECKING:
    from stemmata.cli.output import Output
    from stemmata.cli.styled import Text

Require = Annotated[
    list[str] | None,
    typer.Option(
        "--require",
        metavar="EXPR",
        help="What must hold, as in search; @alias.metric is another version's value. May be given again.",
    ),
]
Reason = Annotated[
    str, typer.Option("--why", "--reason", metavar="TEXT", help="The reason, kept in the history.")
]
Force = Annotated[
    bool,
    typer.Option(
        "--force", metavar="", help="Whatever the gate says; wants a reason, and is kept as forced."
    ),
]
_MARKS = {True: ("✓ holds", "green"), False: ("✗ fails", "red"), None: ("? fails", "yellow")}


def readable(gate: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """A gate as `--json` prints it: numbers that JSON lacks as everywhere else, not as the log has them."""
    if gate is None:
        return None

    def plain(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {k: plain(v, k) for k, v in value.items()}
        if isinstance(value, list):
            return [plain(v) for v in value]
        return _loaded(value) if key in ("found", "value") else value

    found: dict[str, Any] = plain(dict(gate))
    return found


def _loaded(value: Any) -> Any:
    try:
        return load_value(value)
    except (ValueError, TypeError):
        return value  # a log may say anything


def show_gate(output: Output, gate: object) -> None:
    """Print a gate's table; with --json it stands in the document."""
    found = gate_table(gate, output.width) if isinstance(gate, dict) and not output.json else None
    if found is not None:
        output.show(found)


def gate_table(gate: Mapping[str, Any], width: int, *, indent: int = 0) -> Text | None:
    """Each comparison of each requirement; None of a gate that asks nothing.

    The evidence is the log's: what is not as this release writes it is passed over.
    """
    from stemmata.cli.listing import DIM
    from stemmata.cli.tables import Column, table

    columns = [
        Column("requirement", shrink=16),
        Column("found", 1),
        Column("wanted", 2, shrink=8),
        Column(""),
    ]
    columns.append(Column("why", 3, shrink=16))
    for check in _dicts(gate.get("requirements")):
        compared = _dicts(check.get("comparisons"))
        several = len(compared) > 1
        if several or not compared:
            columns[0].add(_plain(check.get("expression")))
            columns[1].add("")
            columns[2].add("")
            columns[3].add(*_MARKS[check.get("passed") is True])
            columns[4].add("" if compared else _plain(check.get("reason")), DIM)
        for each in compared:
            columns[0].add(("  " if several else "") + _plain(each.get("comparison")), DIM if several else "")
            columns[1].add(_value(each))
            columns[2].add(_plain(each.get("wanted")), DIM)
            holds = each.get("holds")
            columns[3].add(*(_MARKS[holds] if holds in (True, False, None) else ("", "")))
            columns[4].add(_plain(each.get("reason") or _measured(each)), DIM)
    return table(columns, width, indent=indent) if columns[0].cells else None


def _measured(compared: Mapping[str, Any]) -> str:
    """On what the values were measured, where that is known."""
    found = []
    for term in _dicts(compared.get("terms")):
        dataset = term.get("dataset")
        if isinstance(dataset, dict):
            found.append(str(dataset.get("name") or dataset.get("fingerprint") or ""))
    return f"on {', '.join(dict.fromkeys(found))}" if any(found) else ""


def _dicts(value: object) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, Sequence) else []


def _plain(value: object) -> str:
    return text.plain(str(value)) if value is not None else ""


def _value(compared: Mapping[str, Any]) -> str:
    from stemmata.gating import shown

    loaded = _loaded(compared.get("found"))
    if not isinstance(loaded, float):
        return "-" if loaded is None else _plain(loaded)
    return shown(loaded, str(compared.get("wanted")))
