"""Small packs: when there are so many that they are put together. Asked after every save: loads nothing."""

from __future__ import annotations

import os

from stemmata.catalog.catalog import Catalog
from stemmata.errors import InvalidArgument

VARIABLE = "STEMMATA_MERGE"
"""`off`: saves merge nothing."""
SINGLE = 2 << 20
"""Bytes below which a pack is one of the first tier."""
GROWN = 16 << 20
"""And of the second; larger ones are left alone."""
SINGLES, GROWNS = 16, 4
"""So many of a tier are put together."""
MOST = SINGLES * GROWNS
"""Packs that one save puts together, however many there are."""
USERS = SINGLES * GROWNS
"""Versions that name a pack which is left alone, whatever its size: it was put together twice, and each of
them would be placed anew."""


def most_bytes() -> int:
    """Bytes that one save puts together: what a merge of both tiers comes to. Of the smallest objects that is
    less than a pack may hold."""
    return SINGLES * SINGLE + GROWNS * GROWN


def are_many(catalog: Catalog) -> bool:
    """Is it worth a closer look? Raises InvalidArgument for a STEMMATA_MERGE that means nothing."""
    if not is_wanted():
        return False
    sql = "SELECT COUNT(*) FROM packs WHERE state = 'live' AND size < ?"
    return bool(catalog.connection.execute(sql, (SINGLE,)).fetchone()[0] >= SINGLES)


def is_wanted() -> bool:
    """What STEMMATA_MERGE says. Raises InvalidArgument."""
    given = os.environ.get(VARIABLE, "").strip().lower()
    if given in ("", "on", "1", "true", "yes"):
        return True
    if given in ("off", "0", "false", "no"):
        return False
    raise InvalidArgument(argument=VARIABLE, reason=f"{given!r} is neither 'on' nor 'off'")
