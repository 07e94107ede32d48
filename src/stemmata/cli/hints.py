"""What to say of names that nothing has: a typing error must not look like an empty result."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from stemmata.catalog import queries
from stemmata.catalog.expression import FIELDS
from stemmata.cli import text
from stemmata.names import name_key

if TYPE_CHECKING:
    from stemmata.repository import Repository

_LOOKED_AT = 50
"""Versions whose keys are candidates for what was meant."""


def unknown_keys(repository: Repository, model: str | None, keys: Iterable[str]) -> list[str]:
    """One sentence for each of `keys` that no version has, with what may have been meant."""
    found = []
    for key in dict.fromkeys(keys):
        space, dot, name = key.partition(".") if key.startswith("metrics.") else ("", "", key)
        asked = key if re.fullmatch(r"[^\W\d][\w./@+-]*", key) else f"{space}{dot}`{name}`"
        if asked in FIELDS:
            continue
        if len(repository.search(model, f"{asked} is not none", limit=1)):
            continue
        close = difflib.get_close_matches(key, _known(repository, model), n=3, cutoff=0.6)
        meant = f"; did you mean {' or '.join(close)}?" if close else ""
        found.append(text.plain(f"no version has {key!r}{meant}"))
    return found


def _known(repository: Repository, model: str | None) -> list[str]:
    keys: dict[str, None] = dict.fromkeys(FIELDS)
    for version in repository.versions(model).limit(_LOOKED_AT):
        keys.update(dict.fromkeys([*version.metrics, *version.config]))
        keys.update({f"label.{key}": None for key in version.labels})
        keys.update({f"data.{key}": None for key in version.data})
    return list(keys)


def runs(repository: Repository, model: str | None) -> list[str]:
    """The names of a model's runs, or of all models'."""
    connection = repository.session.catalog.connection
    models = [name_key(model)] if model is not None else [m.key for m in queries.models(connection)]
    return list(dict.fromkeys(run for each in models for run in queries.runs(connection, each)))
