"""Many processes, one repository (I6)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

import stemmata
from chained import model, opened, trained, written
from makers import model_folder
from warm import WarmPython

WORKER = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from makers import model_folder
import stemmata
from stemmata.records import Run

me, saves = int(sys.argv[1]), int(sys.argv[2])
repo = stemmata.open({repo!r})
run = Run(id=f"run-{{me}}", name=f"worker-{{me}}")
print("ready", flush=True)
sys.stdin.readline()
for i in range(saves):
    folder = model_folder(Path({work!r}) / f"out-{{me}}", me * 1000 + i)
    version = repo.save(folder, "m", name=f"worker-{{me}}/epoch-{{i}}", run=run, provenance={{}})
    repo.alias("m", "newest", version, why=f"{{me}}-{{i}}")
    repo.annotate(version, metrics={{"score": me * 1000 + i}})
"""


def start(storing: WarmPython, code: str, arguments: Sequence[Sequence[str]]) -> None:
    """Run a process for each, all at once; they wait for each other before the first save."""
    running = [storing.piped(code, *given) for given in arguments]
    for process in running:
        assert process.stdout.readline() == "ready\n"
    for process in running:
        process.stdin.write("go\n")
        process.stdin.close()
    for process in running:
        assert process.wait() == 0
        process.stdout.close()


@pytest.mark.parametrize(("workers", "saves"), [(2, 6), (8, 3)])
def test_i6_processes_saving_at_once_lose_and_double_nothing(
    tmp_path: Path, storing: WarmPython, workers: int, saves: int
) -> None:
    stemmata.open(tmp_path / "repo", create=True).close()
    code = WORKER.format(
        tests=str(Path(__file__).parents[1]), repo=str(tmp_path / "repo"), work=str(tmp_path / "work")
    )
    start(storing, code, [[str(i), str(saves)] for i in range(workers)])
    repo = stemmata.open(tmp_path / "repo")
    versions = list(repo.versions("m"))
    names = sorted(v.name for v in versions)
    assert names == sorted(f"worker-{w}/epoch-{i}" for w in range(workers) for i in range(saves))
    for version in versions:
        worker, epoch = (int(part) for part in version.name.removeprefix("worker-").split("/epoch-"))
        seed = worker * 1000 + epoch
        assert version.metrics == {"score": float(seed)}
        expected = model_folder(tmp_path / "expected", seed)
        assert version.read("model.safetensors") == (expected / "model.safetensors").read_bytes()
    moves = repo.history("m", "newest")
    assert sorted(m.why for m in moves) == sorted(f"{w}-{i}" for w in range(workers) for i in range(saves))
    assert [m.before for m in moves[1:]] == [m.after for m in moves[:-1]]
    assert repo.check().problems == []


LEANING = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from chained import model, trained, written
import stemmata

me = int(sys.argv[1])
repo = stemmata.open({repo!r})
print("ready", flush=True)
sys.stdin.readline()
for i in range(5):
    newest = [version.id.hex for version in repo.versions("m")][:1]
    written(Path({work!r}) / str(me), trained(model(), 10 * me + i))
    repo.save(Path({work!r}) / str(me), "m", name=f"{{me}}-{{i}}", parents=newest, provenance={{}})
"""


def test_i6_processes_that_lean_on_each_others_packs(tmp_path: Path, storing: WarmPython) -> None:
    with stemmata.open(tmp_path / "repo", create=True) as repo:
        written(tmp_path / "out", model())
        repo.save(tmp_path / "out", "m", name="first", provenance={})
    (tmp_path / "work").mkdir()
    code = LEANING.format(
        tests=str(Path(__file__).parents[1]), repo=str(tmp_path / "repo"), work=str(tmp_path / "work")
    )
    start(storing, code, [[str(me)] for me in range(2)])
    with stemmata.open(tmp_path / "repo") as repo:
        mine: dict[str, set[str]] = {"0": set(), "1": set()}
        for me in mine:
            for i in range(5):
                version = repo[f"m@{me}-{i}"]
                expected = written(tmp_path / "expected", trained(model(), 10 * int(me) + i))
                assert version.read("model.safetensors") == expected
                lines = opened(repo, version).values()
                assert all(len(line) > 1 for line in lines)
                mine[me] |= {line[0][0].pack.hex for line in lines}
        assert not mine["0"] & mine["1"]
        assert repo.check().problems == []
