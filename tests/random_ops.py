"""Random ops over a few versions, packs and names: most are void, the others meet each other."""

from __future__ import annotations

from hypothesis import strategies as st

from ledger import add_pack, add_version, alias, pack, record, version_of
from stemmata.log import ops

COUNT = 4
IDS = [version_of(record(i, metrics={"loss": float(i)}, provenance={"env": "aa" * 32})) for i in range(COUNT)]

numbers = st.integers(1, COUNT)
versions = st.sampled_from([*IDS, "77" * 32])
names = st.sampled_from(["prod", "PROD", "best", "v0", "v1"])
models = st.sampled_from(["m", "M", "other"])
metrics = st.dictionaries(st.sampled_from("ab"), st.floats(-5, 5) | st.sampled_from(["~nan", "~inf"]))
labels = st.dictionaries(st.sampled_from("ab"), st.none() | st.sampled_from(["x", "~y"]), max_size=2)
measured = st.sampled_from(
    [None, {"measured": {"dataset": "a"}}, {"measured": {"dataset": "b"}}, {"measured": 3}]
)


def _place(version: str, packs: list[int]) -> ops.VersionPlace:
    return ops.VersionPlace(version=version, tree=["cd" * 32], packs=[pack(i) for i in packs])


def _add(nonce: int, name: str, packs: list[int], model: str) -> ops.VersionAdd:
    fields = {"metrics": {"loss": float(nonce)}, "provenance": {"env": "aa" * 32}}
    return add_version(nonce, name, packs, model, **fields)


expect = st.none() | versions
packs = st.lists(numbers, min_size=1, max_size=2)
op = st.one_of(
    st.builds(add_pack, numbers, st.lists(numbers, max_size=2)),
    st.builds(_add, st.integers(0, COUNT - 1), names, packs, models),
    st.builds(_place, versions, packs),
    st.builds(lambda v: ops.VersionDelete(version=v), versions),
    st.builds(lambda v: ops.VersionRestore(version=v), versions),
    st.builds(lambda v: ops.VersionForget(versions=v), st.lists(versions, max_size=2)),
    st.builds(
        lambda v, m, t, d: ops.VersionAnnotate(version=v, metrics=m, labels=t, details=d),
        *(versions, metrics, labels, measured),
    ),
    st.builds(lambda v: ops.VersionRedact(version=v, items=["env"]), versions),
    st.builds(alias, names, versions, expect, models),
    st.builds(
        lambda m, k, n, v: ops.RefSet(model=m, kind=k, name=n, to=v),
        *(models, st.sampled_from(["tag", "name"]), names, versions),
    ),
    st.builds(
        lambda m, k, n, v: ops.RefDelete(model=m, kind=k, name=n, expect=v),
        *(models, st.sampled_from(["alias", "tag", "name"]), names, versions),
    ),
    st.builds(
        lambda m, s: ops.ModelConfigure(model=m, settings=s),
        *(models, st.dictionaries(st.sampled_from("ab"), st.none() | st.integers(0, 3), max_size=2)),
    ),
    st.builds(lambda p: ops.PackRetire(packs=[pack(i) for i in p]), st.lists(numbers, max_size=2)),
    st.builds(lambda p: ops.PackDrop(packs=[pack(i) for i in p]), st.lists(numbers, max_size=2)),
)
# Most random ops are void; these two make sure that there is something to act upon.
SETUP = [[add_pack(1)], [_add(0, "v0", [1], "m")]]
logs = st.lists(st.lists(op, min_size=1, max_size=3), max_size=25)
