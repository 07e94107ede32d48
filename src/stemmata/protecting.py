"""Protecting: aliases that move through a gate alone. Owns a model's policies, one for each alias.

A policy is a setting of the model, `protect:<alias>`: every change of it is an entry of the log, with author
and time. It is held by writers, as they hold a policy of what is kept; readers only show it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from stemmata.arguments import text_of
from stemmata.capture import mask
from stemmata.catalog import queries
from stemmata.catalog.catalog import Catalog
from stemmata.errors import AliasProtected, InvalidArgument, ModelNotFound, NotFound
from stemmata.gating import Requirement, requirements_of
from stemmata.log.ops import ModelConfigure, Op
from stemmata.names import PROTECT, clean_name, name_key
from stemmata.session import Session


@dataclass(frozen=True, slots=True)
class Policy:
    """What a protected alias asks of every version; without requirements it moves by force alone."""

    require: tuple[str, ...]
    why: str = ""

    @property
    def requirements(self) -> list[Requirement]:
        return [Requirement(text, policy=True) for text in self.require]


@dataclass(frozen=True, slots=True)
class Protection:
    """One change of an alias's policy; `policy` None: it was taken away. `at` is RFC 3339 in UTC."""

    model: str
    name: str
    policy: Policy | None
    at: str
    by: str
    why: str


def policy_of(connection: sqlite3.Connection, model: str, name: str) -> Policy | None:
    """The policy of a model's (by key) alias; None if it is not protected."""
    return _policy(queries.settings(connection, model).get(PROTECT + name_key(name)))


def _policy(value: object) -> Policy | None:
    if value is None:
        return None
    if not isinstance(value, dict):
        return Policy(())
    if value.get("off") is True:
        return None
    # What another program wrote there protects all the same.
    listed = value.get("require")
    require = tuple(str(text) for text in listed) if isinstance(listed, list) else ()
    return Policy(require, _why(value))


def _why(value: object) -> str:
    return str(value.get("why") or "") if isinstance(value, dict) else ""


def protect(session: Session, model: str, name: str, require: Sequence[str], *, why: str = "") -> Policy:
    """From now on the alias moves only to versions of which `require` holds, whatever it asked before.

    Raises InvalidExpression, InvalidArgument, InvalidName, ModelNotFound.
    """
    model, name = clean_name(model), clean_name(name)
    texts = [r.text for r in requirements_of(require)]
    policy = Policy(tuple(texts), mask(text_of(why)))
    value = {"require": texts} | ({"why": policy.why} if policy.why else {})

    def plan(catalog: Catalog) -> list[Op]:
        known = queries.models(catalog.connection)
        if not any(each.key == name_key(model) for each in known):
            # A slip of the pen would make a model, and leave the alias that was meant as free as before.
            names = ", ".join(each.name for each in known[:8]) or "none yet"
            raise ModelNotFound(model=model, hint=f"models here: {names}")
        there = queries.ref(catalog.connection, name_key(model), name_key(name))
        if there is not None and there.kind != "alias":
            what = "a tag" if there.kind == "tag" else "a version's name"
            raise InvalidArgument(argument="alias", reason=f"{model}@{name} is {what}, which never moves")
        return [ModelConfigure(model=model, settings={PROTECT + name_key(name): value})]

    session.commit(plan)
    return policy


def unprotect(session: Session, model: str, name: str, *, why: str = "") -> None:
    """The alias moves freely again. Raises NotFound if it is not protected."""
    model, name = clean_name(model), clean_name(name)

    def plan(catalog: Catalog) -> list[Op]:
        if policy_of(catalog.connection, name_key(model), name) is None:
            raise NotFound(reason=f"{model}@{name} is not protected")
        off = {"off": True, "why": mask(text_of(why))}
        return [ModelConfigure(model=model, settings={PROTECT + name_key(name): off})]

    session.commit(plan)


def protections(session: Session, model: str, name: str) -> list[Protection]:
    """Every change of the policy of a model's (by key) alias, oldest first."""
    connection = session.catalog.connection
    shown = queries.model_name(connection, model)
    return [
        Protection(shown, name, _policy(move.value), move.at, move.by, _why(move.value))
        for move in queries.setting_moves(connection, model, PROTECT + name_key(name))
    ]


def refuse_unless_free(catalog: Catalog, model: str, name: str, reason: str, hint: str) -> None:
    """Raise AliasProtected if the alias is protected."""
    if policy_of(catalog.connection, name_key(model), name) is not None:
        raise AliasProtected(model=model, name=name, reason=reason, hint=hint)
