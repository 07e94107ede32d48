"""Digests, version ids and pack names."""

from __future__ import annotations

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from stemmata.ids import Digest, PackName, VersionId, fresh_txn


@given(st.binary(max_size=200))
def test_a_digest_is_blake3_and_reads_back_from_its_hex(data: bytes) -> None:
    digest = Digest.of(data)
    assert digest.raw == blake3(data).digest()
    assert Digest.parse(digest.hex) == digest
    assert str(digest) == digest.hex
    assert digest.hex.startswith(digest.short)
    assert len(digest.short) == 12


@pytest.mark.parametrize("kind", [Digest, VersionId, PackName])
@pytest.mark.parametrize(
    "bad", ["", "0", "g" * 64, "A" * 64, "a" * 63, "a" * 31, " " + "a" * 63, "٠" * 64, "٠" * 32]
)
def test_only_lower_case_hex_of_the_right_length_is_an_id(kind: type[Digest], bad: str) -> None:
    with pytest.raises(ValueError, match="hex"):
        kind.parse(bad)


@pytest.mark.parametrize("kind", [Digest, VersionId, PackName])
def test_a_wrong_number_of_bytes_is_refused(kind: type[Digest]) -> None:
    with pytest.raises(ValueError, match="bytes"):
        kind(b"x" * 5)


def test_a_version_id_and_a_digest_of_the_same_bytes_are_not_equal() -> None:
    assert VersionId.of(b"x") != Digest.of(b"x")
    assert isinstance(VersionId.of(b"x"), VersionId)
    assert VersionId.of(b"x") == VersionId.of(b"x")


def test_pack_names_are_fresh_and_say_where_the_pack_lies() -> None:
    one, two = PackName.fresh(), PackName.fresh()
    assert one != two
    assert PackName.parse(one.hex) == one
    assert one.key == f"packs/{one.hex[:2]}/{one.hex}.pack"


def test_transactions_are_32_hex_digits_and_fresh() -> None:
    assert len(fresh_txn()) == 32
    assert fresh_txn() != fresh_txn()
