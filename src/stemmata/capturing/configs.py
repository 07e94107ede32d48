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
_ENTRIES = dict.fromkeys(("use_auth_token", "auth_token", "hub_token", "hf_token"), 8)
_ENTRIES |= dict.fromkeys(("token", "access_token", "api_key"), 16)
"""Names of entries, and from how many characters on what they hold may be a token: a word is none."""
_KEY = re.compile(r"(?=.*[0-9])(?=.*[A-Za-z])[\w.-]+", re.ASCII)
_LEAST = 20
"""Characters of a token of a known shape: `hf_tokenizer` is a name."""


def is_config(path: str) -> bool:
    """Whether a file is a configuration, by its name."""
    return fnmatchcase(path.rpartition("/")[2], "*config*.json")


def without_tokens(data: bytes) -> tuple[bytes, dict[str, str]]:
    """A configuration's bytes without entries that hold a token, and the names of these by what they hold;
    as it was if there are none. What is left is written as transformers writes it.

    A token under a name that is not one of a token's, or in a list, is told and stays: what it is part of may
    have to be whole.
    """
    if len(data) > MAX_BYTES:
        return data, {}
    held: dict[str, str] = {}
    try:
        left = _left(json.loads(data), held, "")
    except (ValueError, RecursionError):
        return data, {}
    if not held:
        return data, {}
    return (json.dumps(left, indent=2, ensure_ascii=False) + "\n").encode("utf-8", "replace"), held


def _left(found: Any, held: dict[str, str], name: str) -> Any:
    """What is left of a value that stands under `name`; of tokens in it `held` gets the names."""
    if isinstance(found, str) and _is_secret(name, found.strip()):
        held[found] = name
    if isinstance(found, list):
        return [_left(each, held, name) for each in found]
    if not isinstance(found, dict):
        return found
    left = {key: _left(value, held, key) for key, value in found.items()}
    return {k: v for k, v in left.items() if not (k in _ENTRIES and isinstance(v, str) and v in held)}


def _is_secret(name: str, value: str) -> bool:
    shaped = len(value) >= _LEAST and is_token(value) and not value.islower()
    named = name in _ENTRIES and len(value) >= _ENTRIES[name] and _KEY.fullmatch(value) is not None
    return shaped or named
