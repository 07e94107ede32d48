"""Attaching: objects that become part of a version after its save. Owns the order: stored, then committed."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TypeVar

from stemmata.catalog.catalog import Catalog
from stemmata.log.ops import Op
from stemmata.objects import ObjectWriter
from stemmata.session import Session

T = TypeVar("T")


def attach(
    session: Session,
    put: Callable[[ObjectWriter], T],
    plan: Callable[[Catalog, T, list[str]], list[Op]],
) -> T:
    """Store what `put` writes, then commit what `plan` makes of it and of the packs that it lies in."""
    # Looked up nowhere: what it would share with older packs is little, and they may be collected meanwhile.
    writer = ObjectWriter(session.storage, lambda _: (), session.reader)
    try:
        kept = put(writer)
        packs = writer.finish()
    except BaseException:
        writer.abort()
        raise
    used = sorted(pack.hex for pack in writer.packs_used)
    session.commit(lambda catalog: plan(catalog, kept, used), new_packs=packs)
    for pack in packs:
        session.catalog.remember_pack(pack.name, pack.index.digests())
    return kept


def free_kind(stem: str, there: Collection[str]) -> str:
    """`stem#1`, or the next number that no kind which is `there` has."""
    number = 1
    while f"{stem}#{number}" in there:
        number += 1
    return f"{stem}#{number}"
