"""Run names: what a run is called. Owns the default, the names of trials, and that no two runs of a
model share a name."""

from __future__ import annotations

import itertools
from collections.abc import Collection
from datetime import datetime
from typing import Any

from stemmata.catalog import queries
from stemmata.ids import random_letters
from stemmata.names import clean_name, name_key, slug
from stemmata.repository import Repository


def run_name(arguments: Any, chosen: str | None) -> str:
    """The run's name: as chosen, else `args.run_name`, else the time and four random letters."""
    given = asked_name(arguments, chosen)
    if given is not None:
        # A run's name begins version names: it must be one itself.
        return clean_name(slug(given))
    return f"{datetime.now().astimezone():%Y%m%d-%H%M%S}-{random_letters(4)}"


def asked_name(arguments: Any, chosen: str | None) -> str | None:
    """The name that the script gives its run, if it does."""
    given = chosen or getattr(arguments, "run_name", None)
    return str(given) if given else None


def trial_name(state: Any, arguments: Any, chosen: str | None, number: int) -> str | None:
    """The name for a run that is a trial of a search, below the name that was asked for; else that one."""
    if not state.is_hyper_param_search:
        return chosen
    trial = str(state.trial_name or f"trial-{number}")
    # Some backends name the trial in `run_name` themselves.
    asked = asked_name(arguments, chosen)
    return trial if asked in (None, trial) else f"{asked}/{trial}"


def free_name(repository: Repository, model: str, wanted: str, lost: Collection[str] = ()) -> str:
    """`wanted`, or with -2, -3, … if another run of the model has that name, or it is among the `lost` ones.

    A number that ends `wanted` is part of it: a second `exp-2` is `exp-2-2`; `exp-3` is another experiment.
    """
    taken = set(map(name_key, lost))
    if name_key(model) in {name_key(m) for m in repository.models()}:
        # Also of runs whose versions are deleted: those keep their names.
        taken |= set(map(name_key, queries.runs(repository.session.catalog.connection, name_key(model))))
    numbered = (f"{wanted}-{number}" for number in itertools.count(2))
    return next(name for name in itertools.chain([wanted], numbered) if name_key(name) not in taken)
