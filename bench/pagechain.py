"""Chains of versions on the page of benchmarks: what reading along one takes, and what its limit costs."""

from __future__ import annotations

from figures import CHAIN, GONE, LINES, OURS, mb, ours_of, tools_of
from keeping import Results
from manifests import BRANCHES
from pagekinds import FIRST, kinds_of

_COST = """*{name}* takes {less} MB in {part}, and {more} MB in {whole}, where the limit is met sooner. """
_LINE = """{kind}: {first} took {one} MB, the others {range} MB, and the last, {last}, {end} MB"""
_UNKNOWN = "What the limit costs after many more versions no history here shows."
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


def the_lines(results: Results) -> str:
    """What each version of the long lines takes, as a sentence of each line."""
    history = next((h for h in results.histories if h.name == LINES and OURS in h.walks), None)
    if history is None:
        return _UNKNOWN
    ours = ours_of(tools_of(results, history))
    assert ours is not None
    told = []
    for kind, places in kinds_of(history).items():
        first, *others = [ours.walked.rows[at] for at in places]
        if kind == FIRST or not others:
            continue
        sizes = [row.kept for row in others]
        ends = dict.fromkeys(mb(size) for size in (min(sizes), max(sizes)))
        words = {"kind": f"{kind[0].upper()}{kind[1:]}", "first": first.name, "one": mb(first.kept)}
        words |= {"range": " to ".join(ends), "last": others[-1].name, "end": mb(others[-1].kept)}
        told.append(_LINE.format(**words))
    return f"On {history.name}, whose rate does not fall, stemmata kept this. {'. '.join(told)}."
