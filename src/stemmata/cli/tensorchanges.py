"""Which tensors differ, for people: block by block, layers that changed alike in a line. Owns the folding."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING

from stemmata.cli import text
from stemmata.cli.styled import Text
from stemmata.cli.tables import Column, pairs, table
from stemmata.compare.architectures import blocks_of

if TYPE_CHECKING:
    from stemmata.compare.statistics import AsStored, Movement, WeightsDiff
    from stemmata.compare.tensors import Tensor, TensorsDiff

_MOST = 40
"""Lines that are shown without being asked for."""
_NAME = 16
"""Columns that a name keeps where the table is narrow."""
_NOTABLE = 0.01
"""Share of elements as before from which it is said."""


@dataclass(slots=True)
class _Kind:
    """Tensors of one family of blocks that differ in the same way: one line."""

    shown: str
    style: str
    became: str = ""
    """The type and shape now, where these differ."""
    names: list[str] = field(default_factory=list)
    elements: int = 0


_Cells = tuple[Text, Text, Text, Text, Text]
"""Name; type and shape; how many; how far moved, or what it became; what else is to be said."""


def tensor_lines(
    tensors: TensorsDiff, weights: WeightsDiff | None, width: int, *, full: bool = False
) -> list[Text]:
    """A head for each family of blocks with how far it moved, below it a line for each kind of tensor; then
    the blocks in which nothing differs."""
    blocks = blocks_of(tensors.names())
    families = _families(tensors, blocks)
    if not families:
        return []
    rows: list[_Cells] = []
    left = 0
    for family, kinds in families.items():
        if len(rows) >= _MOST and not full:
            left += sum(len(kind.names) for kind in kinds)
        else:
            rows += _family(family, kinds, blocks, weights)
    found = [_table(rows, width)]
    if left:
        found.append(Text(f"  and {text.count(left, 'tensor')} more; --full shows all", "dim"))
    still = _still(tensors, blocks)
    if still:
        found.append(pairs([("as before", Text(text.plain(", ".join(still)), "dim"))], width))
    if weights is not None:
        found += _notes(weights, width)
    return found


def _families(tensors: TensorsDiff, blocks: Mapping[str, str]) -> dict[str, list[_Kind]]:
    kinds: dict[str, dict[tuple[str, str], _Kind]] = {}
    for style, what in (
        ("yellow", [(c.name, c.b, f"~ {_shape(c.b)}", "") for c in tensors.changed]),
        ("magenta", [(c.name, c.b, f"≠ {_shape(c.a)}", f"→ {_shape(c.b)}") for c in tensors.refitted]),
        ("red", [(t.label, t, f"- {_shape(t)}", "") for t in tensors.removed]),
        ("green", [(t.label, t, f"+ {_shape(t)}", "") for t in tensors.added]),
    ):
        for name, tensor, shown, became in what:
            family = text.unnumbered(blocks[name])
            key = (text.unnumbered(name), shown + became)
            kind = kinds.setdefault(family, {}).setdefault(key, _Kind(shown, style, became))
            kind.names.append(name)
            kind.elements += prod(tensor.shape)
    return {family: list(kinds[family].values()) for family in sorted(kinds)}


def _table(rows: Sequence[_Cells], width: int) -> Text:
    """Of a name that does not fit, its end is kept: it says what the tensor is."""
    columns = [Column("", shrink=_NAME), Column(""), Column("", 1), Column(""), Column("", 2)]
    wide = [max((row[place].cell_len for row in rows), default=0) for place in range(5)]
    room = max(_NAME, width - wide[1] - wide[2] - wide[3] - 8)
    for name, *others in rows:
        columns[0].add(_ending(name, room))
        for column, cell in zip(columns[1:], others, strict=True):
            column.add(cell)
    return table(columns, width, indent=2, head=False)


def _ending(name: Text, room: int) -> Text:
    if name.cell_len <= room:
        return name
    indent = len(name.plain) - len(name.plain.lstrip(" "))
    return Text(" " * indent + "…").append_text(name[len(name) - room + indent + 1 :])


def _family(
    family: str, kinds: Sequence[_Kind], block_of: Mapping[str, str], weights: WeightsDiff | None
) -> Iterator[_Cells]:
    moved = weights.moved if weights is not None else {}
    as_stored = weights.as_stored if weights is not None else {}
    names = [name for kind in kinds for name in kind.names]
    blocks = list(dict.fromkeys(block_of[name] for name in names))
    alone = len(names) == 1 and names[0] in blocks
    if not alone:
        head = Text(text.plain(text.fold(blocks)), "bold")
        yield head, Text(), Text(), _range(names, block_of, moved), Text()
    for kind in kinds:
        own = list(dict.fromkeys(block_of[name] for name in kind.names))
        tails = [name.removeprefix(block_of[name]).removeprefix(".") or name for name in kind.names]
        label = Text("" if alone else "  ").append(text.plain(text.fold(tails)))
        if len(own) < len(blocks):
            label.append(f" of {_numbers(own, family)}", "dim")
        far = _together(kind.names, moved)
        stored = [as_stored[name] for name in kind.names if name in as_stored]
        count = Text(f"×{len(kind.names):,}" if len(kind.names) > 1 else "", "dim")
        # Their numbers are no weights: how far these moved nobody can tell from them.
        told = Text("as stored", "magenta") if stored else _far(far, kind)
        kept = _kept(far.unchanged if far is not None else _unchanged(stored), kind.elements)
        if kind.became:
            kept = told.append("  ").append_text(kept) if told and kept else told or kept
            told = Text(kind.became, kind.style)
        yield label, Text(kind.shown, kind.style), count, told, kept


def _numbers(blocks: Sequence[str], family: str) -> str:
    """The numbers of blocks: `{0-3}`; a single one's last part."""
    at = family.find("*")
    return text.plain(text.fold(blocks)[at:] if at >= 0 else text.fold(blocks))


def _together(names: Iterable[str], moved: Mapping[str, Movement]) -> Movement | None:
    from stemmata.compare.statistics import together

    return together(moved[name] for name in names if name in moved)


def _range(names: Sequence[str], block_of: Mapping[str, str], moved: Mapping[str, Movement]) -> Text:
    """How far the blocks moved, the least and the most of them."""
    by_block: dict[str, list[str]] = {}
    for name in names:
        by_block.setdefault(block_of[name], []).append(name)
    found = [far.relative for own in by_block.values() if (far := _together(own, moved)) is not None]
    known = sorted(x for x in found if not math.isnan(x))
    if not known or not known[-1]:
        return Text()
    least, most = text.share_moved(known[0] or 0.0), text.share_moved(known[-1])
    if known[0] == 0:
        least = "0 %"
    if least == most:
        return Text(f"moved {most}", "bold yellow")
    if least.endswith(" %") and most.endswith(" %"):
        return Text(f"moved {least.removesuffix(' %')}–{most}", "bold yellow")
    return Text(f"moved {least} to {most}", "bold yellow")


def _far(movement: Movement | None, kind: _Kind) -> Text:
    if movement is None:
        return Text()
    if not movement.change and movement.unchanged == kind.elements:
        # Of another type they are listed whatever became of their numbers.
        return Text("the same numbers" if kind.became else "not moved: zeros of another sign", "dim")
    if not movement.change:
        return Text("not moved, but for what is not finite", "dim")
    if math.isnan(movement.relative):
        return Text("moved, by numbers too large to square", "yellow")
    return Text(f"moved {text.share_moved(movement.relative)}", "yellow")


def _unchanged(stored: Sequence[AsStored]) -> int:
    return sum(each.unchanged or 0 for each in stored)


def _kept(unchanged: int, elements: int) -> Text:
    share = unchanged / elements if elements else 0.0
    return Text(f"{share:.0%} of elements as before" if share >= _NOTABLE else "", "dim")


def _still(tensors: TensorsDiff, block_of: Mapping[str, str]) -> list[str]:
    """Blocks of which every tensor is the same, folded."""
    still = {t.label for t in tensors.same}
    touched = {block for name, block in block_of.items() if name not in still}
    groups: dict[str, list[str]] = {}
    for name in dict.fromkeys(block_of[t.label] for t in tensors.same):
        if name not in touched:
            groups.setdefault(text.unnumbered(name), []).append(name)
    return [text.fold(groups[family]) for family in sorted(groups)]


def _notes(weights: WeightsDiff, width: int) -> Iterator[Text]:
    rows: list[tuple[str, Text]] = []
    if weights.as_stored:
        forms = ", ".join(dict.fromkeys(each.form for each in weights.as_stored.values()))
        words = f"{forms}: quantised, packed or of another type of numbers, so only the bytes are compared"
        rows.append(("as stored", Text(text.plain(words), "magenta")))
    if weights.read:
        rows.append(
            ("read", Text(f"{text.size(weights.read)} of weights, for what no save had noted", "dim"))
        )
    if rows:
        yield pairs(rows, width)


def _shape(tensor: Tensor) -> str:
    return f"{tensor.dtype} {'×'.join(map(str, tensor.shape)) or 'scalar'}"
