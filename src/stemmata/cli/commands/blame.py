"""`stemmata blame`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from stemmata.cli import text
from stemmata.cli.help import HelpCommand, examples
from stemmata.cli.options import Json, Ref, Repo, open_repo, output_for
from stemmata.cli.registry import command_app
from stemmata.errors import InvalidArgument

if TYPE_CHECKING:
    from stemmata.cli.output import Output
    from stemmata.cli.styled import Text
    from stemmata.histories.blamed import Blame, Blamed
    from stemmata.histories.line import Place

app = command_app()


@app.command(
    cls=HelpCommand,
    epilog=examples(
        "stemmata blame sentiment@production",
        "stemmata blame sentiment@production layer.11",
        "stemmata blame sentiment@production '*.bias' --at-least 1%",
        "stemmata blame sentiment@production --most",
        json="version (id, model, name, state, created_at, back), most, at_least, layers and tensors (lists "
        "of name, elements, how: moved, refitted, came or earlier; version: to blame, back: how many "
        "versions ago; movement: change, before, after, largest, cosine, unchanged, relative, or null; "
        "known_by, was, broke, tensors, tensors_moved), looked_at, unmeasured, unreadable (lists of "
        "versions), bytes_read",
    ),
)
def blame(
    context: typer.Context,
    reference: Ref,
    pattern: Annotated[
        str | None,
        typer.Argument(
            metavar="TENSOR|LAYER", help="Only these: a glob over names, or whole parts: layer.3, q_proj."
        ),
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(
            "--by",
            metavar="layer|tensor",
            help="What a line is of. Default: layer, or tensor if some are named.",
        ),
    ] = None,
    most: Annotated[
        bool, typer.Option("--most", help="The version that moved it the furthest, not the last one.")
    ] = False,
    at_least: Annotated[
        str, typer.Option("--at-least", metavar="SHARE", help="Smaller changes do not count: 0.01 or 1%.")
    ] = "0",
    weights: Annotated[
        bool, typer.Option("--weights", help="Read the weights where a version has no statistics.")
    ] = False,
    everything: Annotated[bool, typer.Option("--all", "-a", help="Fold no layers into one line.")] = False,
    repo: Repo = None,
    as_json: Json = False,
) -> None:
    """Show which version last moved each layer or tensor, and how far.

    It goes back through first parents. How far is the norm of the change against the norm before, as it was
    kept when the version was saved: no weights are read. Layers that the same version moved are one line.
    """
    output = output_for(context, as_json)
    if by not in (None, "layer", "tensor"):
        raise InvalidArgument(argument="--by", reason=f"{by!r} is neither 'layer' nor 'tensor'")
    share = _share(at_least)
    with open_repo(context, repo) as repository:
        with output.progress("reading weights") as told:
            found = repository.blame(
                reference, pattern, most=most, at_least=share, weights=weights, progress=told
            )
        if output.json:
            output.document(found.to_dict())
            return
        per_tensor = by == "tensor" or (by is None and pattern is not None)
        _tell(output, found, "tensor" if per_tensor else "layer", everything=everything)
        _note(output, found, weights=weights)


def _share(given: str) -> float:
    try:
        share = float(given.removesuffix("%")) / (100 if given.endswith("%") else 1)
    except ValueError:
        share = -1.0
    if not share >= 0:
        raise InvalidArgument(argument="--at-least", reason=f"{given!r} is no share such as 0.01 or 1%")
    return share


def _tell(output: Output, found: Blame, per: str, *, everything: bool) -> None:
    from stemmata.cli.listing import DIM, ID, NAME
    from stemmata.cli.styled import Text
    from stemmata.cli.tables import Column, table

    head = Text().append(text.plain(f"{found.version.model}@"), DIM)
    output.show(head.append(text.plain(found.version.name), NAME).append(f"  {found.version.id.short}", ID))
    rows = found.tensors if per == "tensor" else found.layers
    if not rows:
        output.note("it has no tensors that stemmata can tell apart")
        return
    now = datetime.now(UTC)
    title = "moved furthest by" if found.most else "last moved by"
    columns = [Column(per, shrink=20), Column(title, shrink=18), Column("how far", right=True)]
    columns += [Column("back", 1, right=True), Column("age", 3, right=True), Column("", 2, shrink=12)]
    for name, each in _folded(found, rows, everything=everything):
        place = each.move.place
        columns[0].add(text.plain(name), NAME)
        columns[1].add(_by(found, each))
        columns[2].add(_far(each))
        columns[3].add(str(place.back), DIM)
        columns[4].add(text.age(place.created_at, now), DIM)
        columns[5].add(_aside(each))
    output.show("", table(columns, output.width))


def _folded(found: Blame, rows: Sequence[Blamed], *, everything: bool) -> list[tuple[str, Blamed]]:
    """What one version did to layers whose names differ in their numbers alone, as one line."""
    if everything:
        return [(each.name, each) for each in rows]
    groups: dict[tuple[str, int, str], list[Blamed]] = {}
    for each in rows:
        key = (text.unnumbered(each.name), each.move.place.back, each.move.how)
        groups.setdefault(key, []).append(each)
    folded = []
    for those in groups.values():
        name = text.fold([each.name for each in those])
        folded.append((name, found.together(name, [tensor for each in those for tensor in each.tensors])))
    return folded


def _by(found: Blame, each: Blamed) -> Text:
    """The version to blame; `came with` and `before` where nothing moved it."""
    from stemmata.cli.listing import DIM, NAME
    from stemmata.cli.styled import Text

    place = each.move.place
    line = Text().append({"came": "came with ", "earlier": "before "}.get(each.move.how, ""), DIM)
    if place.model != found.version.model:
        line.append(text.plain(f"{place.model}@"), DIM)
    line.append(text.plain(place.name), DIM if each.move.how in ("came", "earlier") else NAME)
    if place.state != "visible":
        line.append(" deleted", DIM)
    return line


def _far(each: Blamed) -> Text:
    from stemmata.cli.styled import Text

    if each.move.how in ("came", "earlier"):
        return Text("–", "dim")
    movement = each.move.movement
    if each.move.broke:
        return Text("not finite", "red")
    if movement is None:
        return Text("?", "dim")
    return Text(text.share_moved(movement.relative) if movement.change else "0", "yellow")


def _aside(each: Blamed) -> Text:
    from stemmata.cli.styled import Text

    move, words = each.move, []
    if len(each.tensors) > 1:
        few = each.moved < len(each.tensors)
        words.append(f"{f'{each.moved} of ' if few else ''}{text.count(len(each.tensors), 'tensor')}")
    if move.was:
        words.append(f"it was {text.plain(move.was)}")
    elif move.how == "refitted":
        words.append("another dtype or shape")
    return Text(", ".join(words), "dim")


def _note(output: Output, found: Blame, *, weights: bool) -> None:
    """What could not be told, and what tells it."""
    if found.unmeasured:
        words = (
            f"?: {_names(found.unmeasured)} {'has' if len(found.unmeasured) == 1 else 'have'} no statistics"
        )
        more = "" if weights else "; --weights reads the weights"
        output.note(f"\n{words} of it, so that it is not known how far{more}")
    if found.unreadable:
        words = _names(found.unreadable)
        verb = "are"
        output.note(
            f"\nbefore: the list of tensors of {words} {verb} gone or damaged; no further back is known"
        )
    elif any(each.move.how == "earlier" for each in found.tensors):
        output.note("\nbefore: what it came from is not in this repository")


def _names(places: Sequence[Place]) -> str:
    shown = ", ".join(text.plain(each.name) for each in places[:3])
    return f"{shown} and {len(places) - 3} more" if len(places) > 3 else shown
