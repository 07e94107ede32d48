"""Missing: what could not be captured, and why. A capture that is less than whole says so itself."""

from __future__ import annotations

import msgspec

from stemmata.capture import mask

MOST = 100
"""Reasons in one object; more are counted."""


class Missing(msgspec.Struct, frozen=True):
    """`what` is not in the capture (`file big.bin`, `code`); `why` is a sentence for people."""

    what: str
    why: str


def told(found: list[Missing]) -> list[dict[str, str]]:
    """As provenance objects list them: at most `MOST`, and how many more there are. Secrets are masked: a
    reason may be what somebody else's code said, an address with its password too."""
    kept = [{"what": mask(each.what), "why": mask(each.why)} for each in found[:MOST]]
    if len(found) > MOST:
        kept.append(
            {"what": f"{len(found) - MOST} more", "why": "the list of what is missing is cut off here"}
        )
    return kept
