"""A lineage as a picture. Owns what of a version is told there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from stemmata.metricnames import by_interest, is_aside
from stemmata.pictures import words
from stemmata.pictures.lineage import Kin, LineageGraph, Link

if TYPE_CHECKING:
    from stemmata.histories.lineage import Lineage, Node


def graph(found: Lineage, tones: Mapping[str, int] | None = None) -> LineageGraph:
    """Every node of it in its lane; `tones`: colours by run, as another picture has them."""
    models = {node.model for node in found.nodes if node.model}
    several = len(models) > 1
    kin = [_kin(node, found, several=several) for node in found.nodes]
    links = [Link(edge.source, edge.target, edge.kind) for edge in found.edges]
    return LineageGraph.make(found.of, kin, links, tones)


def _kin(node: Node, found: Lineage, *, several: bool) -> Kin:
    name = f"{node.model}@{node.name}" if several and node.model else node.name
    run = node.run or ""
    if several and node.model:
        run = f"{node.model}@{run}" if run else node.model
    primary = found.primary.get(node.model)
    return Kin(
        id=node.id,
        name=name,
        run=run or ("" if node.state == "visible" else node.name),
        state=node.state,
        marks=(*node.aliases, *(f"#{tag}" for tag in node.tags)),
        best=node.best,
        focus=node.id == found.focus,
        facts=tuple(_facts(node, primary.metric if primary else None)),
    )


def _facts(node: Node, primary: str | None) -> Iterator[tuple[str, str]]:
    yield "id", node.short
    yield "run", node.run or ""
    yield "epoch", "" if node.epoch is None else f"{node.epoch:g}"
    yield "step", "" if node.step is None else f"{node.step:,}"
    yield "made", node.created_at[:16].replace("T", " ")
    yield from _metrics(node.metrics, primary)
    yield "size", words.size(node.bytes) if node.bytes else ""
    yield "message", words.clipped(node.message, 80)


def _metrics(metrics: Mapping[str, float], primary: str | None) -> Iterator[tuple[str, str]]:
    for key in by_interest((m for m in metrics if not is_aside(m)), primary)[:3]:
        yield key, words.number(metrics[key])
