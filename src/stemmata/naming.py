"""Naming: aliases, tags and further version names as ops. Owns what each may take over.

Every plan is computed at the log's end, so that a name taken meanwhile is seen.
"""

from __future__ import annotations

from collections.abc import Mapping

from stemmata.catalog import queries
from stemmata.catalog.catalog import Catalog
from stemmata.errors import NameTaken, VersionNotFound
from stemmata.ids import VersionId
from stemmata.log.ops import Op, RefSet
from stemmata.names import PROTECT, name_key
from stemmata.session import Session


def alias_op(
    catalog: Catalog,
    model: str,
    name: str,
    to: VersionId,
    why: str,
    *,
    evidence: Mapping[str, object] | None = None,
) -> RefSet:
    """`ref.set` of an alias from its value at the log's end. Raises NameTaken for a tag's name."""
    current = queries.ref(catalog.connection, name_key(model), name_key(name))
    if current is not None and current.kind != "alias":
        raise NameTaken(model=model, name=name, holder=holder_of(catalog, current))
    return RefSet(
        model=model,
        kind="alias",
        name=name,
        to=to.hex,
        expect=current.target.hex if current else None,
        why=why,
        evidence=dict(evidence) if evidence else None,
    )


def name_version(session: Session, model: str, name: str, version: VersionId, *, kind: str = "name") -> None:
    """Give `version` an immutable further name, or a tag; fine if it has just that already.

    Raises NameTaken, AliasProtected, VersionNotFound.
    """

    def plan(catalog: Catalog) -> list[Op]:
        taken = queries.ref(catalog.connection, name_key(model), name_key(name))
        if taken is not None and (taken.kind, taken.target) == (kind, version):
            return []
        if taken is not None:
            raise NameTaken(model=model, name=name, holder=holder_of(catalog, taken))
        refuse_protected(catalog, model, name)
        row = queries.version_by_id(catalog.connection, version)
        if row is not None:
            session.row(version)  # a deleted one is told as such
        if row is None or row.model != name_key(model):
            raise VersionNotFound(
                reference=version.short,
                reason=f"it is not a version of {model!r}",
                hint=f"stemmata log {model} lists its versions",
            )
        return [RefSet(model=model, kind=kind, name=name, to=version.hex, expect=None, why="")]

    session.commit(plan)


def refuse_protected(catalog: Catalog, model: str, name: str) -> None:
    """Raise AliasProtected if a version's name or a tag would stand where a protected alias is, or was."""
    if PROTECT + name_key(name) not in queries.settings(catalog.connection, name_key(model)):
        return
    from stemmata.protecting import refuse_unless_free  # it needs what judges gates: a tenth of a small save

    hint = f"choose another name, or: stemmata promote REF {name}"
    refuse_unless_free(catalog, model, name, "a version's name or a tag there would pass by its gate", hint)


def holder_of(catalog: Catalog, taken: queries.RefRow) -> str:
    """What has a name, in words: a deleted version keeps its own."""
    row = queries.version_by_id(catalog.connection, taken.target)
    gone = ", which was deleted" if row is not None and row.state != "visible" else ""
    return f"{taken.kind} of {taken.target.short}{gone}"
