"""A lineage drawn as a tree: one line a version, what came later below. Owns its lines; loads no versions.

A run goes straight down; what else came from a version hangs from it to the right, before the run goes on.
Long stretches in which nothing happens but further epochs are folded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from stemmata.cli import text
from stemmata.cli.listing import ALIAS, BEST, DIM, ID, NAME, TAG
from stemmata.cli.styled import Text, cell_len
from stemmata.cli.tables import Column, table

if TYPE_CHECKING:
    from stemmata.histories.lineage import Lineage, Node

_FOLDED = 3
"""Versions in a row from which they become one line."""
_VERSION, _BEST, _GONE, _BASE, _FOLD = "●", "★", "○", "◇", "┊"
_GLYPHS = {"visible": (_VERSION, "yellow"), "outside": (_BASE, "magenta")}
_STATES = {
    "deleted": " deleted",
    "forgotten": " deleted",
    "absent": " not in this repository",
    "outside": " base model",
}
_NARROW = 100


@dataclass(frozen=True, slots=True)
class _Line:
    """One line of the tree: what leads to it, and the version; of a fold the versions that are left out."""

    lead: str
    node: Node | None
    folded: tuple[Node, ...] = ()
    after: Node | None = None
    """The version above it, where the same line goes on."""


def drawn(
    found: Lineage, width: int, *, metric: str | None = None, everything: bool = False, now: datetime
) -> Text:
    """The whole tree. `everything`: nothing is folded. `metric`: the one that is shown."""
    nodes = [node for node in found.nodes if node.order >= 0]
    models = [node.model for node in nodes]
    several = len(set(models)) > 1
    main = max(dict.fromkeys(models), key=models.count) if models else ""
    chosen = metric or (found.primary[main].metric if main in found.primary else None)
    shown = list(_lines(found, everything=everything))
    tree, ids = Column("", shrink=max(24, width * 2 // 5)), Column("id", 2)
    score = Column(text.plain(chosen or ""), 1, right=True)
    age, message = Column("age", 3, right=True), Column("message", 4, shrink=12)
    digits = 8 if width < _NARROW else 12
    values = [_value(line, chosen) for line in shown]
    for line, number in zip(shown, text.numbers(values), strict=True):
        node = line.node
        tree.add(_told(found, line, several=several))
        ids.add(node.short[:digits] if node else "", ID)
        best = node is not None and node.best and (metric is None or _is_primary(found, node, metric))
        score.add(number, BEST if best else "")
        age.add(text.age(node.created_at, now) if node is not None and node.created_at else "", DIM)
        message.add(_first_line(node))
    return table([tree, ids, score, age, message], width)


def _is_primary(found: Lineage, node: Node, metric: str) -> bool:
    return node.model in found.primary and found.primary[node.model].metric == metric


def _value(line: _Line, metric: str | None) -> float | None:
    return line.node.metrics.get(metric) if line.node is not None and metric is not None else None


def _first_line(node: Node | None) -> str:
    return text.plain(node.message.strip().split("\n")[0]) if node is not None else ""


# --- the lines ------------------------------------------------------------------------------------


def _lines(found: Lineage, *, everything: bool) -> Iterator[_Line]:
    """From the roots down. Several roots hang from a line of their own: each under the other they would look
    as if one came from the other."""
    # A base that nothing hangs from is said where it is loaded.
    roots = [root for root in found.roots if root.state != "outside" or root.id in found.children]
    pending: list[tuple[Node, str, str, Node | None]] = []
    if len(roots) > 1:
        yield _Line("", None)
        pending += _hung([(root, "─") for root in roots], "", ends=True)
    else:
        pending += [(root, "", "", None) for root in roots]
    while pending:
        node, lead, below, after = pending.pop()
        if not everything and after is not None and (stretch := _stretch(found, node)):
            yield _Line(lead, None, tuple(stretch))
            node, after, lead = _goes_on(found, stretch[-1]), stretch[-1], below
        yield _Line(lead, node, (), after)
        straight = _straight(found, node)
        hanging = [
            (child, "╌" if found.upward[child.id].kind == "base" else "─")
            for child in found.children.get(node.id, ())
            if child is not straight
        ]
        if straight is not None:
            pending.append((straight, below, below, node))
        pending += _hung(hanging, below, ends=straight is None)


def _hung(
    children: Sequence[tuple[Node, str]], below: str, *, ends: bool
) -> list[tuple[Node, str, str, Node | None]]:
    """Lines that hang from one version, the last to be drawn first. `ends`: nothing goes on below them."""
    found: list[tuple[Node, str, str, Node | None]] = []
    for place, (child, bar) in enumerate(reversed(children)):
        last = ends and place == 0
        corner, rest = ("╰", "  ") if last else ("├", "│ ")
        found.append((child, f"{below}{corner}{bar}", below + rest, None))
    return found


def _straight(found: Lineage, node: Node) -> Node | None:
    """The version that goes on below `node` without a branch: its run's next, else the only one there is."""
    children = [c for c in found.children.get(node.id, ()) if found.upward[c.id].kind != "base"]
    same = [c for c in children if found.upward[c.id].kind in ("line", "resume")]
    if len(same) == 1:
        return same[0]
    return children[0] if len(found.children.get(node.id, ())) == 1 and children else None


def _goes_on(found: Lineage, node: Node) -> Node:
    return found.children[node.id][0]


def _stretch(found: Lineage, node: Node) -> list[Node]:
    """The versions from `node` on of which there is nothing to tell but that they are there; none if few."""
    stretch: list[Node] = []
    while _is_dull(found, node):
        stretch.append(node)
        node = _goes_on(found, node)
    return stretch if len(stretch) >= _FOLDED else []


def _is_dull(found: Lineage, node: Node) -> bool:
    """In the middle of a run, without a name of its own: the same run goes on, and nothing else happens."""
    children = found.children.get(node.id, ())
    if len(children) != 1 or node.best or node.aliases or node.tags or node.merged or node.id == found.focus:
        return False
    return found.upward[children[0].id].kind == "line" and found.upward[node.id].kind == "line"


# --- what a line says -----------------------------------------------------------------------------


def _told(found: Lineage, line: _Line, *, several: bool) -> Text:
    told = Text().append(line.lead, DIM)
    if line.folded:
        return told.append(f"{_FOLD} ", DIM).append_text(_folded(line.folded))
    if line.node is None:
        return told.append(text.plain(found.of) or "all models", NAME).append(f"  {_size(found)}", DIM)
    node = line.node
    glyph, style = _GLYPHS.get(node.state, (_GONE, DIM))
    told.append(f"{_BEST} " if node.best else f"{glyph} ", BEST if node.best else style)
    edge = found.upward.get(node.id)
    above = found.by_id[edge.source] if edge is not None else None
    told.append_text(_name(node, above, several=several))
    for style, left, right, names in ((ALIAS, "[", "]", node.aliases), (TAG, "#", "", node.tags)):
        for name in names:
            told.append(" ").append(f"{left}{text.plain(name)}{right}", style)
    if node.id == found.focus:
        told.append(" ◀", "bold cyan")
    for parent in node.merged:
        other = found.by_id.get(parent)
        words = text.plain(_label(other, several=several)) if other is not None else parent[:12]
        told.append(f" ⇠ {words}", "cyan")
    if node.repeats and (above is None or above.run_id != node.run_id):
        told.append(f" repeats {text.plain(_repeated(found, node.repeats, several=several))}", "cyan")
    base = found.by_id.get(node.base or "")
    if base is not None and edge is not None and edge.kind != "base" and _other_base(found, node):
        told.append(f" on {text.plain(_label(base, several=several))}", DIM)
    return told.append(_STATES.get(node.state, ""), DIM)


def _name(node: Node, above: Node | None, *, several: bool) -> Text:
    """Its name; what it has in common with what it hangs from is quiet or left out."""
    told = Text()
    if node.model and several and (above is None or above.model != node.model):
        told.append(f"{text.plain(node.model)}@", DIM)
    style = NAME if node.state in ("visible", "outside") else DIM
    run = f"{node.run}/" if node.run else ""
    if run and node.name.startswith(run) and above is not None and above.run_id == node.run_id:
        return told.append(text.plain(run), DIM).append(text.plain(node.name[len(run) :]), style)
    return told.append(text.plain(node.name), style)


def _other_base(found: Lineage, node: Node) -> bool:
    """Whether it is loaded on another model than the version that it hangs from."""
    above = found.by_id[found.upward[node.id].source]
    return node.base not in (above.base, *node.parents)


def _repeated(found: Lineage, begin: str, *, several: bool) -> str:
    """The version whose run is repeated: by its name where it is shown."""
    node = next((n for n in found.nodes if n.short and n.id.startswith(begin)), None)
    return _label(node, several=several) if node is not None else begin


def _label(node: Node, *, several: bool) -> str:
    return f"{node.model}@{node.name}" if several and node.model else node.name


def _folded(nodes: Sequence[Node]) -> Text:
    last = nodes[-1]
    run = f"{last.run}/" if last.run else ""
    name = last.name[len(run) :] if run and last.name.startswith(run) else last.name
    gone = sum(node.state != "visible" for node in nodes)
    words = f"{len(nodes)} more, to {text.plain(name)}"
    if gone:
        words += ", deleted" if gone == len(nodes) else f", {gone} of them deleted"
    return Text(words, DIM)


def _size(found: Lineage) -> str:
    of_model = {found.of} & {node.model for node in found.nodes if node.state != "outside"}
    counted = [n for n in found.nodes if n.state == "visible" and (not of_model or n.model in of_model)]
    runs = {node.run_id for node in counted if node.run_id}
    words = text.count(len(counted), "version")
    return f"{words}, {text.count(len(runs), 'run')}" if runs else words


def legend(found: Lineage, width: int, *, everything: bool) -> list[str]:
    """What the marks of this tree mean, in lines of at most `width` columns."""
    lines = list(_lines(found, everything=everything))
    nodes = [line.node for line in lines if line.node is not None]
    words = []
    if any(node.best for node in nodes):
        words_of = {"min": "lowest", "max": "highest"}
        measures = {f"{words_of[p.direction]} {p.metric}" for p in found.primary.values()}
        words.append(f"{_BEST} best" + (f", {text.plain(measures.pop())}" if len(measures) == 1 else ""))
    if any(node.state == "outside" for node in nodes):
        words.append(f"{_BASE} base model outside")
    if any(node.state in ("deleted", "forgotten", "absent") for node in nodes):
        words.append(f"{_GONE} gone")
    if any(node.merged for node in nodes):
        words.append("⇠ merged from")
    if any(line.folded for line in lines):
        words.append(f"{_FOLD} folded, --all shows them")
    rows: list[str] = []
    for each in words:
        if rows and cell_len(f"{rows[-1]}   {each}") <= width:
            rows[-1] += f"   {each}"
        else:
            rows.append(each)
    return rows
