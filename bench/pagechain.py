"""Chains of versions on the page of benchmarks: what reading along one takes, and what its limit costs."""

from __future__ import annotations

from figures import CHAIN, GONE, OURS, mb, ours_of, tools_of
from keeping import Results
from manifests import BRANCHES

_COST = """*{name}* takes {less} MB in {part}, and {more} MB in {whole}, where the limit is met sooner. """
_WORTH_TELLING = 1.05
"""By how much a version must take more for its limit to be told as a cost."""


def the_chain(results: Results) -> str:
    """The first and the last version of the chain, as a sentence; empty if it was not walked."""
    history = next((h for h in results.histories if h.name == CHAIN and OURS in h.walks), None)
    if history is None:
        return ""
    ours = ours_of(tools_of(results, history))
    assert ours is not None
    first, last = ours.walked.rows[0], ours.walked.rows[-1]
    told = f"On {history.name} bringing {first.name} back took stemmata {first.restore:.2f} s"
    told += f", {last.name} {last.restore:.2f} s"
    gone = next((one for one in tools_of(results, history) if one.key == GONE), None)
    if gone is not None:
        saves = gone.walked.rows
        told += (
            f"; saving {saves[1].name} took the row *{gone.title}* {saves[1].save:.2f} s, "
            f"{saves[-1].name} {saves[-1].save:.2f} s"
        )
    return f"{told}."


def the_cost(results: Results) -> str:
    """The version that takes most more where the limit is met sooner, as a sentence; empty if there is none.

    A version of a part stands there on a shorter chain than in the whole, whose first version is one more.
    """
    named = {history.name: history for history in results.histories}
    found: list[tuple[float, str]] = []
    for part, (whole, _) in BRANCHES.items():
        if part not in named or whole not in named:
            continue
        ours = [ours_of(tools_of(results, named[name])) for name in (part, whole)]
        if None in ours:
            continue
        alone, beside = ({row.name: row.kept for row in one.walked.rows} for one in ours if one is not None)
        for version in named[part].versions[1:]:
            name = str(version["name"])
            less, more = alone[name], beside[name]
            words = {"name": name, "less": mb(less), "more": mb(more), "part": part, "whole": whole}
            found.append((more / less, _COST.format(**words)))
    times, told = max(found, default=(0.0, ""))
    return told if times > _WORTH_TELLING else ""
