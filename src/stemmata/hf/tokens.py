"""Tokens: what a library's own save writes of them into a folder of one's own. Owns taking them out.

transformers 5 takes an unknown keyword of `from_pretrained` for a special token of the model: a token of the
Hub goes into the configuration and, as a word, into the vocabulary.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path

from stemmata.capturing.configs import is_config, without_tokens

_log = logging.getLogger("stemmata")
_told: set[tuple[str, str]] = set()


def drop_tokens(folder: Path) -> None:
    """Write the JSON in `folder` anew without the tokens that its configurations hold; say it once."""
    paths = sorted(folder.rglob("*.json"))
    values: dict[str, None] = {}
    for path in paths:
        data, dropped = without_tokens(path.read_bytes()) if is_config(path.name) else (b"", {})
        if not dropped:
            continue
        path.write_bytes(data)  # what it holds further inside is replaced below
        values.update(dict.fromkeys(dropped))
        for name in dropped.values():
            if (path.name, name) not in _told:
                _told.add((path.name, name))
                _log.warning("%s: left out %r, which held a token in clear", path.name, name)
    if values:
        for path in paths:
            _replace(path, list(values))


def _replace(path: Path, values: list[str]) -> None:
    """Put another word in the place of each value: without it, the words after it would get other numbers."""
    before = after = path.read_bytes()
    for number, value in enumerate(values):
        for form in {json.dumps(value), json.dumps(value, ensure_ascii=False)}:
            after = after.replace(form.encode(), b'"<left out %d>"' % number)
    if after != before:
        path.write_bytes(after)
