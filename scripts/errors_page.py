"""Writes docs/errors.md from the error classes: .venv/bin/python scripts/errors_page.py"""

from __future__ import annotations

import re
from pathlib import Path

from stemmata import errors
from stemmata.errors import StemmataError
from stemmata.histories import problems as histories
from stemmata.pictures import problems as pictures
from stemmata.reproducing import problems as reproducing

PAGE = Path(__file__).resolve().parent.parent / "docs" / "errors.md"
HEAD = """# Errors

Every failure is one tree under `stemmata.StemmataError`. An error says what happened, what was left
untouched and what to do next; its fields are in `error.data`, its `kind` is stable, and the command line
turns its family into the exit code. With `--json` a failed command prints
`{"error": {"kind", "message", "data"}}`.

`{…}` stands for a field. This page is made by `scripts/errors_page.py`; a test holds it against the classes.
"""
MODULES = (errors, histories, pictures, reproducing)
"""Where the classes are."""
FAMILIES = {
    1: "Failed in another way",
    2: "Not understood",
    3: "Not found",
    4: "Conflict",
    5: "Damage: stored bytes are not what was stored",
    6: "Storage",
    7: "Newer format",
    8: "Refused for safety",
}


def classes() -> list[type[StemmataError]]:
    """The concrete errors, in the order of the source."""
    every = [c for module in MODULES for c in vars(module).values()]
    found = dict.fromkeys(c for c in every if isinstance(c, type) and issubclass(c, StemmataError))
    return [c for c in found if c.what != StemmataError.what]


def page() -> str:
    """The whole page."""
    parts = [HEAD]
    for code, title in FAMILIES.items():
        members = [c for c in classes() if c.exit_code == code]
        if not members:
            continue
        parts.append(f"\n## {title} (exit code {code})\n\n")
        parts.append("| kind | class | what happened | left untouched | next step |\n")
        parts.append("| --- | --- | --- | --- | --- |\n")
        for member in members:
            texts = (shown(t) for t in (member.what, member.untouched, member.next_step))
            parts.append(f"| `{member.kind}` | `{member.__name__}` | {' | '.join(texts)} |\n")
    return "".join(parts)


def shown(template: str) -> str:
    """A template as people read it: `{name!r}` becomes {name}; `{{` becomes {."""
    text = re.sub(r"(?<!\{)\{(\w+)[^{}]*\}(?!\})", "<\\1>", template)
    text = text.replace("{{", "{").replace("}}", "}")
    text = re.sub(r"<(\w+)>", r"{\1}", text)
    return text.replace("|", "\\|") or "-"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
