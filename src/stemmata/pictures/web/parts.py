"""Parts of charts: colours that follow the scheme, words that the page makes, what a tip tells.

An option is plain JSON. What JSON cannot say stands there as an object with one key, which the page's script
replaces: `{"$tone": "ink"}`, `{"$ramp": 0.4}`, `{"$on": 0.4}`, `{"$words": "share"}`. No name that a person
chose can become one, for a name is a string.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

Option: TypeAlias = dict[str, Any]
FONT = 12
EM = 7.3
"""About the width of a letter."""


@dataclass(frozen=True)
class Chart:
    """One drawing. `height` in CSS pixels; `label` says to a screen reader what it shows."""

    option: Option
    height: int
    label: str
    key: tuple[tuple[str, str], ...] = field(default=())
    """Colours by their tone, and what they mean: a legend beneath."""
    heading: str = ""
    half: bool = False
    """Two of them stand beside each other where there is room."""
    heights: tuple[tuple[int, int], ...] = ()
    """Other heights, each from a width on."""
    least: int = 0
    """The least width; where there is less, it scrolls."""


def tone(name: str) -> Option:
    return {"$tone": name}


def on_ramp(share: float) -> Option:
    return {"$ramp": round(share, 4)}


def words_on(share: float) -> Option:
    return {"$on": round(share, 4)}


def made(by: str) -> Option:
    """A text that the page's script makes of a number."""
    return {"$words": by}


def tip(head: str, *facts: tuple[str, str]) -> list[list[str]]:
    """What a pointer over it is told: a heading, then names and values."""
    return [[head, ""], *([name, value] for name, value in facts if value)]


def base(**more: Any) -> Option:
    """What all charts share."""
    return {
        "animation": False,
        "textStyle": {"fontFamily": "inherit", "fontSize": FONT, "color": tone("ink")},
        "tooltip": {
            "trigger": "item",
            "confine": True,
            "formatter": made("tip"),
            "backgroundColor": tone("card"),
            "borderColor": tone("line"),
            "borderWidth": 1,
            "padding": [8, 10],
            "textStyle": {"color": tone("ink"), "fontSize": FONT},
        },
        **more,
    }


def plain_axis(**more: Any) -> Option:
    """An axis that stays in the background."""
    found: Option = {
        "axisLine": {"show": False},
        "axisTick": {"show": False},
        "axisLabel": {"color": tone("muted"), "fontSize": FONT},
        "splitLine": {"show": False},
        "nameTextStyle": {"color": tone("muted"), "fontSize": FONT},
    }
    for key, value in more.items():
        found[key] = {**found[key], **value} if isinstance(value, Mapping) and key in found else value
    return found


def widest(labels: Iterable[str]) -> float:
    """In pixels, about."""
    return max((sum(2.0 if ord(c) > 0x2E80 else 1.0 for c in label) * EM for label in labels), default=0.0)
