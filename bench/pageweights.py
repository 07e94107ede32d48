"""What versions are made of on the page of benchmarks: embeddings and the rest, and what leans on what.

Owns the tables of contents.py's and leanings.py's findings. Results that lack them have none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

from contents import EMBEDDINGS, MOVED, REST
from figures import OURS, mb
from keeping import History
from pagekinds import kinds_of
from pagetables import table

_MUCH = 0.05
"""Of a version's own bytes: a base that less leans on is not named."""
WEIGHTS = f"""Embeddings and the rest of the weights: how large they are, how much of each changed against the
version under *from*, and what stemmata keeps of each, all per version (means). Of a kind those versions
count that have tensors of their parent's names, if any do: the first of a line of adapters has none. *Rows
moved*: rows of the tables of embeddings that moved by more than {MOVED:g} of their Euclidean norm, as those
of tokens do that the training saw; weight decay alone moves a row by less. In bf16 a row has moved as soon
as one of its values passes a step of rounding: there this tells little."""
LEANING = """Which version leans on which in stemmata's store; of the weights alone. *Stored already*: what
an older version has bit for bit. *Leans on*: the versions that the rest is a difference from, the largest
share first; below 5% not shown. *Older versions read*: how many are needed to bring this one back, those
that are not shown too. *Times its bytes decoded*: the bytes that are decoded then, over its own."""


def share(changed: float | None) -> str:
    """In percent; what is not all is not told as all."""
    if changed is None:
        return "-"
    told = f"{changed:.2%}"
    return "> 99.99%" if changed < 1 and told == "100.00%" else told


def the_weights(history: History) -> list[str]:
    """By kind, of a version each."""
    if not any(version.get("contents") for version in history.versions):
        return []
    stored = _stored(history)
    rows = []
    for kind, places in kinds_of(history).items():
        versions = [history.versions[at] for at in places if history.versions[at].get("contents")]
        compared = [v for v in versions if "changed" in v["contents"].get(REST, {})]
        shown = compared or versions
        if not shown:
            continue
        row = [kind, str(len(shown)), *(_mean(_of(shown, part, "bytes"), mb) for part in (EMBEDDINGS, REST))]
        for part, field in ((EMBEDDINGS, "changed"), (EMBEDDINGS, "moved"), (REST, "changed")):
            row.append(_mean(_of(shown, part, field), share))
        if stored:
            for part in (EMBEDDINGS, REST):
                there = [v["name"] for v in shown if part in v["contents"]]
                row.append(_mean([stored[n]["kept"].get(part, 0) for n in there if n in stored], mb))
        rows.append(row)
    heads = ["kind", "versions", "MB of embeddings", "MB of the rest"]
    heads += ["embeddings: values changed", "rows moved", "rest: values changed"]
    heads += ["MB kept of embeddings", "MB kept of the rest"] if stored else []
    return [WEIGHTS, "", *table(heads, rows, range(1, len(heads))), ""]


def rest_kept(history: History, places: Sequence[int]) -> float | None:
    """Of the weights of these versions that are no embeddings: the bytes that stemmata keeps over their own.
    None where that is not known of all of them."""
    stored, kept, whole = _stored(history), 0.0, 0.0
    for version in (history.versions[at] for at in places):
        found = (version.get("contents") or {}).get(REST)
        if found is None or version["name"] not in stored:
            return None
        kept += stored[version["name"]]["kept"].get(REST, 0)
        whole += found["bytes"]
    return kept / whole if whole else None


def the_leaning(history: History) -> list[str]:
    """By version."""
    stored = _stored(history)
    rows = []
    for name, found in stored.items():
        own = sum(found["bases"].values())
        much = sorted(found["bases"].items(), key=lambda each: -each[1])
        bases = [base or "nothing" for base, size in much if size >= _MUCH * own]
        kept = [mb(found["kept"].get(part, 0)) for part in (EMBEDDINGS, REST)]
        cells = [mb(found["same"]), ", ".join(bases) or "-", str(len(found["reads"]))]
        rows.append([name, *cells, f"{found['decodes']:.1f}", *kept])
    if not rows:
        return []
    heads = ["version", "MB stored already", "leans on", "older versions read", "times its bytes decoded"]
    heads += ["MB kept of embeddings", "MB kept of the rest"]
    return [LEANING, "", *table(heads, rows, (1, *range(3, len(heads)))), ""]


def _stored(history: History) -> Mapping[str, dict[str, Any]]:
    return next((walk.stored for walk in history.walks.get(OURS, []) if walk.stored), {})


def _of(versions: Sequence[dict], part: str, field: str) -> list[float]:
    found = (version["contents"].get(part, {}).get(field) for version in versions)
    return [float(one) for one in found if one is not None]


def _mean(values: Sequence[float], show: Any) -> str:
    return show(mean(values)) if values else "-"
