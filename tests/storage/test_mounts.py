"""What a folder lies on: network drives, and those of them whose locks are local."""

from __future__ import annotations

from pathlib import Path

import pytest

from stemmata.catalog.catalog import FILE, catalog_files
from stemmata.log.identity import create_identity, read_identity
from stemmata.storage import mounts
from stemmata.storage.local import LocalStorage
from stemmata.storage.mounts import has_shared_locks, is_network, mount_above

MOUNTS = [
    "proc /proc proc rw 0 0",
    "/dev/sda1 / ext4 rw 0 0",
    "host:/export /home nfs4 rw 0 0",
    "/dev/sdb1 /home/local xfs rw 0 0",
    r"//host/share /mnt/my\040drive cifs rw 0 0",
    "malformed",
]


@pytest.mark.parametrize(
    ("where", "on_network"),
    [
        ("/var/lib/x", False),
        ("/home/a/.stemmata/cache", True),
        ("/home", True),
        ("/homestead", False),
        ("/home/local/x", False),
        ("/mnt/my drive/x", True),
    ],
)
def test_a_network_drive_is_known_by_its_mount(where: str, on_network: bool) -> None:
    assert is_network(mount_above(where, MOUNTS)) is on_network
    assert is_network(mount_above(where, [])) is False


@pytest.mark.parametrize(
    ("line", "shared"),
    [
        ("a:/x {} nfs4 rw,vers=4.2,local_lock=none 0 0", True),
        ("a:/x {} nfs rw,vers=3,nolock,local_lock=all 0 0", False),
        ("//a/x {} cifs rw,nobrl 0 0", False),
        ("a@b:/x {} fuse.sshfs rw 0 0", False),
        ("a@o2ib:/x {} lustre rw,localflock 0 0", False),
        ("/dev/sda1 {} ext4 rw 0 0", True),
    ],
)
def test_a_drive_whose_locks_are_local_gets_no_catalog_that_others_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, shared: bool
) -> None:
    monkeypatch.setenv("STEMMATA_CACHE", str(tmp_path / "own"))
    drive = tmp_path / "a drive"
    said = line.format(str(drive).replace(" ", r"\040"))
    monkeypatch.setattr(mounts, "mounts", lambda: [said])
    assert has_shared_locks(drive / "r" / "cache") is shared
    storage = LocalStorage(drive / "r")
    create_identity(storage)
    identity = read_identity(storage)
    own = tmp_path / "own" / identity.repository / FILE
    inside = drive / "r" / "cache" / FILE
    assert catalog_files(storage, identity) == ([inside, own] if shared else [own])
