"""Redirecting: where a script's repository lies while its run is made again. Owns that every repository which
the script opens is another one than it asked for.

A command that is run again opens the repository that it always opened, by its path. With `STEMMATA_REPRODUCE`
in the environment it gets one that goes on from there and is written elsewhere: the user's own never changes.
Refuses nothing and runs nothing: `reproducing` sets the variable.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

if TYPE_CHECKING:
    from stemmata.log.ops import Op
    from stemmata.storage.base import Storage

VARIABLE = "STEMMATA_REPRODUCE"
T = TypeVar("T")
_END = "end"
"""Beside a scratch repository: the last entry that it has from below."""


class Redirect(NamedTuple):
    """`source` is the repository that the run is of. Its versions go to `scratch`, which goes on from entry
    `upto` of it; with no scratch they go to `source` itself. Other repositories go on in folders of `others`.
    `places`: pairs of a folder as it was and as it is here. `labels` are given to every version."""

    source: str
    scratch: str | None
    upto: int
    others: str
    places: list[tuple[str, str]]
    labels: dict[str, str]


def is_on() -> bool:
    return VARIABLE in os.environ


def current() -> Redirect | None:
    """What this process was told. None: nothing is redirected."""
    said = os.environ.get(VARIABLE)
    if said is None:
        return None
    told = json.loads(said)["store"]
    return Redirect(**{**told, "places": [(there, here) for there, here in told["places"]]})


def labels() -> Mapping[str, str]:
    found = current()
    return found.labels if found is not None else {}


def as_it_was(text: str) -> str:
    """A text in which the places of this run are those of the first one: a work folder does not last, and
    what is kept must lead somewhere afterwards."""
    found = current()
    for there, here in sorted(found.places, key=lambda pair: -len(pair[1])) if found is not None else ():
        text = text.replace(here, there)
    return text


def only_adds(plan: Callable[[T], Sequence[Op]]) -> Callable[[T], Sequence[Op]]:
    """A plan of a transaction that refuses, in a run that is repeated into the user's own repository, what
    moves aliases, sets tags and models, deletes or redacts: a script may do such things at its end."""
    found = current()
    if found is None or found.scratch is not None:
        return plan

    def held(catalog: T) -> Sequence[Op]:
        from stemmata.errors import OnlyAdds
        from stemmata.log import ops

        gone = (ops.VersionDelete, ops.VersionForget, ops.VersionRedact)
        refused = (*gone, ops.RefDelete, ops.ModelConfigure)
        planned = plan(catalog)
        for op in planned:
            if isinstance(op, refused) or (isinstance(op, ops.RefSet) and op.kind != "name"):
                raise OnlyAdds(op=str(type(op).__struct_config__.tag))
        return planned

    return held


def storage_for(path: str | os.PathLike[str] | None) -> Storage:
    """What stands for the repository at `path`, None for the one that is found from the working folder.

    It is the run's own, unless another repository lies there, or lay there where the run was first.
    """
    from stemmata.storage.local import LocalStorage

    found = current()
    if found is None:
        raise RuntimeError("nothing is redirected")
    other = _other(found, Path(path).absolute()) if path is not None else None
    if other is not None:
        return other
    if found.scratch is None:
        return LocalStorage(found.source)
    return scratch_over(Path(found.source), Path(found.scratch), found.upto)


def scratch_over(source: Path, scratch: Path, upto: int) -> Storage:
    """What goes on from entry `upto` of the repository in folder `source`, and is written to `scratch`."""
    from stemmata.storage.layered import LayeredStorage
    from stemmata.storage.local import LocalStorage

    return LayeredStorage(LocalStorage(scratch), LocalStorage(source), hidden_after(upto))


def hidden_after(upto: int) -> Callable[[str], bool]:
    """Of a key, whether it came after entry `upto`, as far as that matters: packs are named by entries."""
    from stemmata.log.bundles import BundleName
    from stemmata.log.reader import number_of

    def hidden(key: str) -> bool:
        if key.startswith("log/"):
            return (number_of(key) or 0) > upto
        bundle = BundleName.parse(key) if key.startswith("bundles/") else None
        return bundle is not None and bundle.last > upto

    return hidden


def end_of(source: Path) -> int:
    """The number of the last entry of the repository in that folder."""
    from stemmata.log.reader import number_of
    from stemmata.storage.local import LocalStorage

    return max((number_of(key.key) or 0 for key in LocalStorage(source).list("log/")), default=0)


def _other(found: Redirect, path: Path) -> Storage | None:
    """A repository of another id, which is there now."""
    from stemmata.errors import StemmataError
    from stemmata.log.identity import read_identity
    from stemmata.storage.local import LocalStorage

    try:
        own = read_identity(LocalStorage(found.source)).repository
    except StemmataError:
        return None
    for place in (Path(as_it_was(str(path))), path):
        try:
            identity = read_identity(LocalStorage(place)).repository
        except StemmataError:
            continue
        if identity == own:
            return None
        scratch = Path(found.others) / identity
        return scratch_over(place, scratch, _fixed_end(place, scratch))
    return None


def _fixed_end(source: Path, scratch: Path) -> int:
    """Where the scratch repository goes on: the same for all processes of the command."""
    scratch.mkdir(parents=True, exist_ok=True)
    file = scratch.with_name(f"{scratch.name}.{_END}")
    fresh = file.with_name(f"{file.name}.{os.getpid()}")
    fresh.write_text(str(end_of(source)), encoding="ascii")
    try:
        os.link(fresh, file)  # complete at once, and only the first
    except FileExistsError:
        pass
    finally:
        fresh.unlink()
    return int(file.read_text(encoding="ascii"))
