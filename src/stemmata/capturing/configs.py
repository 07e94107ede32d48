"""Configs: tokens in the configuration files that libraries write beside weights.

`from_pretrained(use_auth_token="…")` ends in tokenizer_config.json, in clear. Owns which entries those are;
refuses to touch special tokens, templates and whatever is no JSON object.
"""

from __future__ import annotations

import json
import re
from fnmatch import fnmatchcase
from typing import Any

from stemmata.capture import is_token

MAX_BYTES = 16 << 20
_ENTRIES = frozenset(
    ("token", "use_auth_token", "auth_token", "hub_token", "hf_token", "access_token", "api_key")
)
_SPECIAL = re.compile(r"\s*(?:[<\[{|].*[>\]}|]|\*+)?\s*")


def is_config(path: str) -> bool:
    """Whether a file is a configuration, by its name."""
    return fnmatchcase(path.rpartition("/")[2], "*config*.json")


def without_tokens(data: bytes) -> tuple[bytes, dict[str, str]]:
    """A configuration's bytes without the entries that hold a token, and these by their names; as it was
    if there are none. What is left is written as transformers writes it."""
    if len(data) > MAX_BYTES:
        return data, {}
    dropped: dict[str, str] = {}
    try:
        found = json.loads(data)
        _drop(found, dropped)
    except (ValueError, RecursionError):
        return data, {}
    if not dropped:
        return data, {}
    return (json.dumps(found, indent=2, ensure_ascii=False) + "\n").encode("utf-8", "replace"), dropped


def _drop(found: Any, dropped: dict[str, str]) -> None:
    if isinstance(found, dict):
        secret = {name: v for name, v in found.items() if isinstance(v, str) and _is_secret(name, v)}
        for name in secret:
            del found[name]
        dropped.update(secret)
    for each in found.values() if isinstance(found, dict) else found if isinstance(found, list) else ():
        _drop(each, dropped)


def _is_secret(name: str, value: str) -> bool:
    return is_token(value.strip()) or (name in _ENTRIES and not _SPECIAL.fullmatch(value))
