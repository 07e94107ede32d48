"""What the groups of a process allow it, in both versions, and elsewhere."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from stemmata import cgroups


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of 128 processors."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(128)))
    (tmp_path / "proc/self").mkdir(parents=True)
    return tmp_path


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text + "\n")


def count(machine: Path) -> int:
    return cgroups.processors(machine / "proc", machine / "cgroup")


def test_without_groups_it_is_those_it_may_run_on_up_to_what_pays(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert count(machine) == cgroups._MOST
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {3, 5, 7})
    assert count(machine) == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert count(machine) == 1


@pytest.mark.parametrize(
    ("quota", "expected"),
    [
        ("400000 100000", 4),
        ("150000 100000", 2),
        ("50000 100000", 1),
        ("max 100000", 32),
        ("1 0", 32),
    ],
)
def test_a_group_of_version_2_leaves_its_quota(machine: Path, quota: str, expected: int) -> None:
    write(machine / "proc/self/cgroup", "0::/slurm/job_1/step_0")
    write(machine / "cgroup/slurm/job_1/cpu.max", quota)
    write(machine / "cgroup/slurm/job_1/step_0/cpu.max", "max 100000")
    assert count(machine) == expected


@pytest.mark.parametrize(("quota", "expected"), [("250000", 3), ("-1", 32), ("x", 32)])
@pytest.mark.parametrize("mount", ["cpu,cpuacct", "cpu"])
def test_a_group_of_version_1_leaves_its_quota(machine: Path, mount: str, quota: str, expected: int) -> None:
    write(machine / "proc/self/cgroup", "5:memory:/a\n4:cpu,cpuacct:/a/../b")
    write(machine / "cgroup" / mount / "a/b/cpu.cfs_quota_us", quota)
    write(machine / "cgroup" / mount / "a/b/cpu.cfs_period_us", "100000")
    assert count(machine) == expected


def test_where_a_container_sees_its_root_alone(machine: Path) -> None:
    write(machine / "proc/self/cgroup", "0::/../../init.scope")
    write(machine / "cgroup/cpu.max", "200000 100000")
    assert count(machine) == 2
