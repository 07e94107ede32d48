"""Planning: which keys of the log are put right, and with which bytes. Owns what counts as proof.

The hash of an entry is known from the `prev` of the one behind it; of the last one from a sealed bundle, from
what this machine remembers, or from the catalog; else the seal in its own remains tells the one text that
fits. Number 0 is `stemmata.json`: the first entry holds its hash. A sound entry is not touched because
another one, sound too, does not follow it: that is two histories, and which of them is meant no hash tells;
only where a sealed bundle and the entry behind agree against a single one is that one the stranger.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from stemmata.errors import Damage, KeyMissing, NewerFormat, StorageFailed
from stemmata.ids import Digest
from stemmata.log.bundles import BundleName, entries_of, find_bundles
from stemmata.log.entries import link_of
from stemmata.log.identity import KEY as IDENTITY
from stemmata.log.identity import MAX_BYTES, read_identity
from stemmata.log.reader import fetch
from stemmata.log.survey import Found, judge
from stemmata.recovering.mending import seal_in
from stemmata.recovering.origins import Copy, Itself, Origin
from stemmata.storage.base import Storage
from stemmata.storage.memory import MemoryStorage


@dataclass(frozen=True, slots=True)
class Right:
    """The bytes of a key, as proven: their hash, what they follow, and who has them."""

    hash: Digest
    link: Digest | None
    origin: Origin


@dataclass(slots=True)
class Plan:
    """What is there, what is put right, what is lost; all by entry number, 0 for `stemmata.json`."""

    found: dict[int, Found]
    last: int
    right: dict[int, Right] = field(default_factory=dict)
    breaks: list[int] = field(default_factory=list)
    """Sound entries that do not follow the sound one before them."""
    older: int = 0
    """An entry beyond the last that was seen here once and cannot be had; 0: none."""
    whole: int = -1
    """Entries up to this one are sound, or will be, and each follows the one before; -1: not even 0 is."""

    def hash(self, n: int) -> Digest | None:
        """The hash of entry `n` as it will be; None if it is lost."""
        return self.right[n].hash if n in self.right else self.found[n].hash

    def link(self, n: int) -> Digest | None:
        """What entry `n` will follow."""
        return self.right[n].link if n in self.right else self.found[n].link

    @property
    def complete(self) -> bool:
        """Is everything there, or will be?"""
        return not self.lost() and not self.breaks

    def lost(self) -> list[int]:
        return [n for n, found in sorted(self.found.items()) if found.hash is None and n not in self.right]


def make_plan(
    storage: Storage,
    found: dict[int, Found],
    proofs: Mapping[int, Digest],
    origins: Sequence[Origin],
    itself: Itself,
    end: int,
) -> Plan:
    """Decide for each entry, from the last to the first: each that is right proves the one before it.

    `found` has every number from 0 to the last; `proofs` the hashes that are known otherwise. What lies
    beyond entry `end`, where the log ends here, is taken from another copy alone: its packs may be there too.
    """
    plan = Plan(found, max(found))
    copies = [origin for origin in origins if isinstance(origin, Copy)]
    for n in range(plan.last, -1, -1):
        demanded = plan.link(n + 1) if n < plan.last else None
        wanted = demanded or proofs.get(n)
        there = found[n].hash
        if there is not None and (demanded is None or there == demanded):
            continue
        if there is not None and not _is_stranger(plan, n, demanded, proofs):
            _break(plan, n + 1)
            continue
        right = _find(storage, plan, n, wanted, origins if n <= end else copies, itself)
        if right is not None:
            plan.right[n] = right
        elif there is not None:
            _break(plan, n + 1)
    if any(n not in plan.right for n in range(end + 1, plan.last + 1)) or end + 1 in plan.breaks:
        _forget_beyond(plan, end)
    plan.whole = _whole(plan)
    return plan


def _forget_beyond(plan: Plan, end: int) -> None:
    """Not all that was seen beyond the end can be had: a part of it would make a hole."""
    plan.older = plan.last
    for n in range(end + 1, plan.last + 1):
        plan.found.pop(n)
        plan.right.pop(n, None)
    plan.breaks = [n for n in plan.breaks if n <= end]
    plan.last = end


def _is_stranger(plan: Plan, n: int, demanded: Digest | None, proofs: Mapping[int, Digest]) -> bool:
    """Is what lies there, though sound, not what was written there?"""
    if n == 0:
        # One identity against a chain of entries; one entry alone might as well be the stranger.
        return not plan.breaks and plan.last > 1
    return proofs.get(n) == demanded


def _break(plan: Plan, n: int) -> None:
    """Entry `n` is of another history than the one before: nothing is taken from there."""
    plan.breaks.append(n)
    while plan.right.pop(n, None) is not None:
        n += 1


def _find(
    storage: Storage, plan: Plan, n: int, wanted: Digest | None, origins: Sequence[Origin], itself: Itself
) -> Right | None:
    """The first bytes that are proven to be entry `n`."""
    itself.wanted = wanted
    line = None if wanted is not None else _own_seal(storage, n)
    if wanted is None and line is None:
        return None
    for origin in origins:
        for data in origin.entries(n) if n else origin.identities():
            if Digest.of(data) != wanted if wanted is not None else not data.endswith(line or b"?"):
                continue
            try:
                sound = judge(n, data) if n else judge_identity(data)
            except NewerFormat:
                continue
            if sound.hash is None:
                continue
            if wanted is None and n and _disagrees(plan, n, sound.link):
                continue
            return Right(sound.hash, sound.link, origin)
    return None


def _disagrees(plan: Plan, n: int, link: Digest | None) -> bool:
    before = plan.found[n - 1].hash
    return before is not None and link is not None and link != before


def _own_seal(storage: Storage, n: int) -> bytes | None:
    """The seal in what is left of entry `n`."""
    try:
        data = fetch(storage, n) if n else storage.get(IDENTITY, 0, MAX_BYTES + 1)
    except (StorageFailed, KeyMissing):
        return None
    return seal_in(data) if data else None


def bytes_of(origin: Origin, n: int, right: Right, itself: Itself) -> bytes | None:
    """The proven bytes again, from where they were found; None if they are gone from there."""
    itself.wanted = right.hash
    for data in origin.entries(n) if n else origin.identities():
        if Digest.of(data) == right.hash:
            return data
    return None


def judge_identity(data: bytes) -> Found:
    """Judge bytes as `stemmata.json`. Raises NewerFormat."""
    alone = MemoryStorage()
    alone.put_new(IDENTITY, data)
    try:
        return Found(hash=read_identity(alone).genesis.hash)
    except Damage as error:
        return Found(str(error.data["reason"]))


def _whole(plan: Plan) -> int:
    before = plan.hash(0)
    n = 0
    if before is None:
        return -1
    while n < plan.last:
        here, link = plan.hash(n + 1), plan.link(n + 1)
        if here is None or (link is not None and link != before):
            break
        n, before = n + 1, here
    return n


# --- what sealed bundles prove ------------------------------------------------------------------------


def proofs_of_bundles(storage: Storage, found: Mapping[int, Found]) -> dict[int, Digest]:
    """The hashes of the entries of sealed bundles that belong to this log, where one of those is wanting."""
    proofs: dict[int, Digest] = {}
    disputed: set[int] = set()
    for name in find_bundles(storage):
        numbers = range(name.first, min(name.last, max(found)) + 1)
        if all(is_well(found, n) for n in numbers):
            continue
        chain = _chain_of(storage, name)
        if chain is None or not _belongs(name, chain, found):
            continue
        for n, (digest, _) in enumerate(chain, name.first):
            if proofs.setdefault(n, digest) != digest:
                disputed.add(n)
    return {n: digest for n, digest in proofs.items() if n not in disputed}


def is_well(found: Mapping[int, Found], n: int) -> bool:
    here, after = found[n], found.get(n + 1)
    if here.hash is None:
        return False
    return after is None or after.link is None or after.link == here.hash


def _chain_of(storage: Storage, name: BundleName) -> list[tuple[Digest, Digest | None]] | None:
    """(hash, link) of each entry of a bundle whose seal and chain are whole."""
    chain: list[tuple[Digest, Digest | None]] = []
    try:
        for data in entries_of(storage, name):
            link = link_of(data)
            if chain and link is not None and link != chain[-1][0]:
                return None
            chain.append((Digest.of(data), link))
    except (Damage, KeyMissing, StorageFailed):
        return None
    return chain


def _belongs(
    name: BundleName, chain: Sequence[tuple[Digest, Digest | None]], found: Mapping[int, Found]
) -> bool:
    """Does the bundle hold what this log holds? Where they differ, the log must contradict itself there;
    where nothing of the log is left to compare, the bundle's own seal must do."""
    agreed = differed = False
    for n, digest in _around(name, chain):
        there = found.get(n)
        if there is None or there.hash is None:
            continue
        after = found.get(n + 1)
        if there.hash == digest:
            agreed = True
        elif after is None or after.link != digest:
            return False
        else:
            differed = True
    behind = found.get(name.last + 1)
    if behind is None or behind.link is None:
        return agreed or not differed
    return behind.link == chain[-1][0]


def _around(name: BundleName, chain: Sequence[tuple[Digest, Digest | None]]) -> Iterator[tuple[int, Digest]]:
    """(number, hash) of the entries, and of the one that the first follows."""
    if chain[0][1] is not None:
        yield name.first - 1, chain[0][1]
    for offset, (digest, _) in enumerate(chain):
        yield name.first + offset, digest
