"""Ops: what an entry of the log can say. Owns the fields of FORMAT.md, section 3.1.

Ids and digests are hex here, as in the JSON; `fold` checks them. A field with a default may be absent
from the JSON; every other field is required, and an unknown one makes the entry void.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import msgspec

FORMAT = 1
"""The newest format that this release reads and writes."""


class Origin(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """Where an op that came by push was first committed."""

    repository: str
    txn: str
    at: str
    by: str


class _Op(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    omit_defaults=True,
    tag_field="op",
    gc=False,
):
    origin: Origin | msgspec.UnsetType = msgspec.UNSET


class FormatUpgrade(_Op, frozen=True, tag="format.upgrade"):
    """Later entries may use format `to`."""

    to: int


class PackAdd(_Op, frozen=True, tag="pack.add"):
    """A pack is live. `digest` is BLAKE3 of its whole file of `size` bytes."""

    pack: str
    size: int
    digest: str
    bases: list[str] = []


class VersionAdd(_Op, frozen=True, tag="version.add"):
    """A version is visible. `record` is its JSON, verbatim; BLAKE3 of it is the version's id."""

    model: str
    name: str
    record: msgspec.Raw
    tree: list[str]
    packs: list[str]


class VersionPlace(_Op, frozen=True, tag="version.place"):
    """A version's tree and packs are these from now on."""

    version: str
    tree: list[str]
    packs: list[str]


class VersionDelete(_Op, frozen=True, tag="version.delete"):
    """A version is hidden, and can be restored."""

    version: str
    why: str = ""


class VersionRestore(_Op, frozen=True, tag="version.restore"):
    """A deleted version is visible again."""

    version: str


class VersionForget(_Op, frozen=True, tag="version.forget"):
    """Deleted versions can no longer be restored and need no packs."""

    versions: list[str]
    why: str = ""


class VersionAnnotate(_Op, frozen=True, tag="version.annotate"):
    """Something is added to what a version shows; a null label removes one.

    `objects` attaches stored objects by kind (per-example outputs of an evaluation, say); `packs` are
    those that they lie in. `details` is JSON for programs (a verdict, a dataset's name).
    """

    version: str
    metrics: Mapping[str, float | str] | None = None
    labels: Mapping[str, str | None] | None = None
    notes: str | None = None
    details: dict[str, object] | None = None
    objects: Mapping[str, str] | None = None
    packs: list[str] = []
    event: str = ""
    why: str = ""


class VersionRedact(_Op, frozen=True, tag="version.redact"):
    """These provenance objects of a version count as erased."""

    version: str
    items: list[str]
    why: str = ""


class RefSet(_Op, frozen=True, tag="ref.set"):
    """A name points at a version. `kind` is alias, tag or name."""

    model: str
    kind: str
    name: str
    to: str
    expect: str | None = None
    """An alias's value before, or None if it is new."""
    why: str = ""
    evidence: dict[str, object] | None = None


class RefDelete(_Op, frozen=True, tag="ref.delete"):
    """An alias or tag at `expect` is gone; its history stays."""

    model: str
    kind: str
    name: str
    expect: str
    why: str = ""


class ModelConfigure(_Op, frozen=True, tag="model.configure"):
    """Each setting is replaced; None removes it."""

    model: str
    settings: dict[str, object]


class PackRetire(_Op, frozen=True, tag="pack.retire"):
    """Packs that nothing needs; also names that the log has never seen."""

    packs: list[str]
    why: str = ""


class PackDrop(_Op, frozen=True, tag="pack.drop"):
    """Retired packs whose bytes may be deleted from now on."""

    packs: list[str]


Op: TypeAlias = (
    FormatUpgrade
    | PackAdd
    | VersionAdd
    | VersionPlace
    | VersionDelete
    | VersionRestore
    | VersionForget
    | VersionAnnotate
    | VersionRedact
    | RefSet
    | RefDelete
    | ModelConfigure
    | PackRetire
    | PackDrop
)

KINDS: frozenset[str] = frozenset(
    {
        "format.upgrade",
        "pack.add",
        "version.add",
        "version.place",
        "version.delete",
        "version.restore",
        "version.forget",
        "version.annotate",
        "version.redact",
        "ref.set",
        "ref.delete",
        "model.configure",
        "pack.retire",
        "pack.drop",
    }
)
"""The table of FORMAT.md. An op beyond it was written by a newer release."""
