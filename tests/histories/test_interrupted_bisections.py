"""A bisection with a command: what its exit status means, how it ends, and how it goes on after any end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import stemmata
from stemmata.errors import CommandNotStarted
from stemmata.histories import running
from stemmata.histories.problems import BisectionBusy, BisectionUnfinished, EvaluationFailed
from stemmata.records import Run
from stemmata.repository import Repository

FIRST_BAD = 41
_BY_KEYBOARD, _BY_SERVICE = signal.SIGINT, signal.SIGTERM

TEST = """
import os, signal, sys
number = int(open(os.path.join(sys.argv[1], "n.txt")).read())
ledger, deed, at = sys.argv[2], sys.argv[3], int(sys.argv[4])
with open(ledger, "a") as file:
    file.write(f"{number}\\n")
if sum(1 for _ in open(ledger)) == at:
    if deed == "wait":
        open(ledger + ".pid", "w").write(str(os.getpid()))
        signal.pause()
    os.kill(os.getppid(), getattr(signal, deed))
sys.exit(number >= 41)
"""


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with 65 versions in a row, 0 to 64; from 41 on they are bad."""
    root = tmp_path_factory.mktemp("line")
    (root / "out").mkdir()
    with stemmata.init(root / "repo") as repo:
        parents = []
        for k in range(65):
            (root / "out" / "n.txt").write_text(str(k))
            parents = [
                repo.save(root / "out", "m", name=f"v{k}", parents=parents, provenance={}, run=Run("r", "r"))
            ]
    return root / "repo"


@pytest.fixture
def repo(versions: Path) -> Repository:
    return stemmata.open(versions)


@pytest.fixture(autouse=True)
def fresh(versions: Path) -> None:
    """No test goes on with what another one judged."""
    for file in (versions / "cache").glob("bisections/*"):
        file.unlink()


@pytest.fixture
def script(tmp_path: Path) -> Path:
    (tmp_path / "test.py").write_text(TEST)
    return tmp_path / "test.py"


def line_of(script: Path, ledger: Path, deed: str = "-", at: int = -1) -> list[str]:
    return [sys.executable, "-S", str(script), "{}", str(ledger), deed, str(at)]


def cli(versions: Path, command: list[str], *options: str, good: str = "m@v0") -> subprocess.Popen[str]:
    words = [sys.executable, "-m", "stemmata", "bisect", good, "@v64", "-R", str(versions), "--json"]
    return subprocess.Popen(
        [*words, *options, "--", *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def judged(ledger: Path) -> list[int]:
    return [int(line) for line in ledger.read_text().split()] if ledger.exists() else []


def alive(pid: int) -> bool:
    """Whether it runs; one that has ended and that nobody has asked for does not."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] not in "ZX"


# --- interruptions --------------------------------------------------------------------------------


@pytest.mark.parametrize("at", [1, 4, 6])
def test_after_a_kill_the_same_command_line_goes_on(
    versions: Path, script: Path, tmp_path: Path, at: int
) -> None:
    """The process that bisects is killed with SIGKILL while a version is judged."""
    ledger = tmp_path / "ledger"
    command = line_of(script, ledger, "SIGKILL", at)
    first = cli(versions, command)
    _, err = first.communicate()
    assert first.returncode == -signal.SIGKILL, err
    assert len(judged(ledger)) == at
    second = cli(versions, command)
    out, err = second.communicate()
    assert second.returncode == 0, err
    document = json.loads(out)
    assert document["first_bad"]["name"] == f"v{FIRST_BAD}"
    # The one that was being judged is judged again, no other.
    assert (document["evaluations"], document["reused"]) == (6 - (at - 1), at - 1)
    assert judged(ledger) == [*judged(ledger)[:at], *judged(ledger)[at - 1 : at], *judged(ledger)[at + 1 :]]
    assert len(set(judged(ledger))) == 6


@pytest.mark.parametrize(("number", "status"), [(_BY_KEYBOARD, 130), (_BY_SERVICE, 143)])
def test_who_interrupts_it_ends_the_command_too_and_loses_nothing(
    versions: Path, script: Path, tmp_path: Path, number: int, status: int
) -> None:
    ledger = tmp_path / "ledger"
    process = cli(versions, line_of(script, ledger, "wait", 3))
    mark = Path(f"{ledger}.pid")
    while not (mark.exists() and mark.read_text()):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(number)
    process.communicate()
    assert process.returncode == status
    assert not alive(int(mark.read_text()))
    kept = stemmata.open(versions).bisection("m")
    assert kept is not None
    assert [each.version for each in kept.judged] == [
        stemmata.open(versions)[f"m@v{k}"].id.hex for k in judged(ledger)[:2]
    ]
    assert not kept.done


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.floats(0, 1))
def test_wherever_the_file_of_verdicts_is_cut_off_it_is_found_all_the_same(
    versions: Path, repo: Repository, cut: float
) -> None:
    for file in (versions / "cache").glob("bisections/*"):
        file.unlink()
    asked: list[str] = []

    def test(version: stemmata.Version) -> bool:
        asked.append(version.name)
        return int(version.name[1:]) < FIRST_BAD

    def found() -> tuple[str, int, int]:
        told = repo.bisect("m@v0", "m@v64", test, keep_as="by hand")
        assert told.first_bad is not None
        return told.first_bad.name, told.evaluations, told.reused

    assert found() == ("v41", 6, 0)
    assert found() == ("v41", 0, 6)
    (file,) = (versions / "cache").glob("bisections/*")
    whole = file.read_bytes()
    file.write_bytes(whole[: int(cut * len(whole))])
    name, evaluations, reused = found()
    assert (name, evaluations + reused) == ("v41", 6)
    assert len(asked) == 6 + evaluations
    assert found() == ("v41", 0, 6)


@pytest.mark.parametrize(
    "spoiled",
    [b"", b"\n\n", b"{}\n", b'{"format": 2}\n', b"[1]\n", b"\xff\xfe\n", b'{"format": 1, "good": 3}\n'],
)
def test_a_file_that_says_nothing_is_as_none(versions: Path, repo: Repository, spoiled: bytes) -> None:
    repo.bisect("m@v0", "m@v64", lambda v: int(v.name[1:]) < 5, keep_as="x")
    (file,) = (versions / "cache").glob("bisections/*")
    file.write_bytes(spoiled)
    assert repo.bisection("m") is None
    found = repo.bisect("m@v0", "m@v64", lambda v: int(v.name[1:]) < 5, keep_as="x")
    assert (found.suspects[0].name, found.reused) == ("v5", 0)


def test_another_question_does_not_take_the_verdicts_of_an_unfinished_one(
    versions: Path, repo: Repository
) -> None:
    def stops(version: stemmata.Version) -> bool:
        if version.name == "v48":
            raise RuntimeError("out of memory")
        return True

    with pytest.raises(RuntimeError):
        repo.bisect("m@v0", "m@v64", stops, keep_as="one")
    for other in ({"keep_as": "two"}, {"by": "time", "keep_as": "one"}):
        with pytest.raises(BisectionUnfinished) as told:
            repo.bisect("m@v0", "m@v64", stops, **other)  # type: ignore[arg-type]
        assert "m@v0 m@v64" in str(told.value)
        assert "--restart" in str(told.value)
    with pytest.raises(BisectionUnfinished, match=r"it is about m@v0 .* m@v64"):
        repo.bisect("m@v0", "m@v63", stops, keep_as="one")
    found = repo.bisect("m@v0", "m@v64", lambda _: True, keep_as="one")
    assert found.reused == 1
    # One that is finished stands in nobody's way.
    found = repo.bisect("m@v0", "m@v63", lambda _: True, keep_as="one")
    assert found.reused == 0
    with pytest.raises(RuntimeError):
        repo.bisect("m@v0", "m@v64", stops, keep_as="one")
    found = repo.bisect("m@v0", "m@v63", lambda _: False, keep_as="two", restart=True)
    assert (found.suspects[0].name, found.reused) == ("v1", 0)


def test_one_process_at_a_time_bisects_a_model(versions: Path, repo: Repository) -> None:
    def again(_: stemmata.Version) -> bool:
        with pytest.raises(BisectionBusy, match="another process is bisecting m"):
            stemmata.open(versions).bisect("m@v0", "m@v64", again, keep_as="two")
        return True

    repo.bisect("m@v0", "m@v64", again, keep_as="one")


def test_no_secret_of_a_command_is_kept(versions: Path, repo: Repository) -> None:
    repo.bisect("m@v62", "m@v64", ["true", "--hub_token", "hf_" + "a" * 34, "--api_key=sesame", "{}"])
    (file,) = (versions / "cache").glob("bisections/*")
    assert b"hf_aaa" not in file.read_bytes()
    assert b"sesame" not in file.read_bytes()
    again = repo.bisect("m@v62", "m@v64", ["true", "--hub_token", "hf_" + "b" * 34, "--api_key=open", "{}"])
    assert again.reused == 1


# --- what a command finds, and what its status means ----------------------------------------------


def sh(words: str) -> list[str]:
    return ["sh", "-c", words]


@pytest.mark.parametrize(
    ("words", "first_bad", "verdicts"),
    [
        ("test $(cat {}/n.txt) -lt 41", "v41", {"good", "bad"}),
        ("test $(cat {}/n.txt) -lt 41 || exit 124", "v41", {"good", "bad"}),
        ("test $(cat {}/n.txt) -lt 41 || exit 127", "v41", {"good", "bad"}),
        ("test $(cat $STEMMATA_PATH/n.txt) -lt 41 || exit 126", "v41", {"good", "bad"}),
        ("test $(cat {}/n.txt) -lt 41 -o $(cat {}/n.txt) -ge 44 || exit 125", "v64", {"good", "skip"}),
        ('test "$STEMMATA_REFERENCE" != m@v48', "v48", {"good", "bad"}),
    ],
)
def test_an_exit_status_means_what_it_means_to_git(
    repo: Repository, words: str, first_bad: str, verdicts: set[str]
) -> None:
    found = repo.bisect("m@v0", "m@v64", sh(words))
    assert found.suspects[0].name == first_bad
    assert {point.verdict for point in found.judged} <= verdicts


def test_a_command_finds_the_version_in_its_environment(repo: Repository, tmp_path: Path) -> None:
    log = tmp_path / "log"
    told = "$STEMMATA_VERSION $STEMMATA_REFERENCE $STEMMATA_REPO"
    words = f'echo "{told} [$STEMMATA_PATH]" >> {log}; cat; false'
    found = repo.bisect("m@v62", "m@v64", sh(words), checkout=False)
    # Nothing is typed at it: `cat` ends at once.
    assert found.suspects[0].name == "v63"
    version = repo["m@v63"]
    assert log.read_text() == f"{version.id.hex} m@v63 {Path(repo.where).absolute()} []\n"


@pytest.mark.parametrize(("words", "status"), [("exit 128", 128), ("exit 255", 255), ("kill -9 $$", 137)])
def test_a_status_beyond_127_ends_the_search_and_keeps_what_was_judged(
    repo: Repository, words: str, status: int
) -> None:
    command = sh(f"test $STEMMATA_REFERENCE = m@v32 && exit 0; {words}")
    with pytest.raises(EvaluationFailed) as told:
        repo.bisect("m@v0", "m@v64", command)
    assert told.value.data["status"] == status
    assert told.value.data["version"] == "m@v48"
    kept = repo.bisection("m")
    assert kept is not None
    assert [each.verdict for each in kept.judged] == ["good"]


def test_a_command_that_cannot_be_run_is_no_verdict(repo: Repository) -> None:
    with pytest.raises(CommandNotStarted):
        repo.bisect("m@v0", "m@v64", ["/nowhere/eval"])
    with pytest.raises(EvaluationFailed, match="not found"):
        repo.bisect("m@v0", "m@v64", sh("/nowhere/eval {}"))
    kept = repo.bisection("m")
    assert kept is not None
    assert kept.judged == ()


def test_the_verdict_of_a_command_is_good_only_if_what_is_required_holds(
    repo: Repository, versions: Path
) -> None:
    """It measures, and adds what it found to the version."""
    annotate = f"{sys.executable} -m stemmata annotate $STEMMATA_REFERENCE -R {versions}"
    command = sh(f"{annotate} --metric f1=$(cat {{}}/n.txt) > /dev/null")
    found = repo.bisect("m@v60", "m@v64", command, require="f1 < 62")
    assert (found.suspects[0].name, found.evaluations) == ("v62", 2)
    assert repo["m@v62"].metrics["f1"] == 62
    # What was measured stays: nothing is run again.
    again = repo.bisect("m@v60", "m@v64", sh("exit 128"), require="f1 < 62", restart=True)
    assert (again.suspects[0].name, again.evaluations) == ("v62", 0)


def test_a_command_that_fails_says_nothing_of_what_is_required(repo: Repository) -> None:
    found = repo.bisect("m@v0", "m@v3", sh("exit 3"), require="nosuch < 62")
    assert len(found.suspects) == 3
    assert found.suspects[0].reason == "exit status 3"


# --- time ---------------------------------------------------------------------------------------


STUBBORN = """
trap "" TERM
sh -c 'trap "" TERM; echo $$ >> {0}; while :; do sleep 1; done' &
sh -c 'trap "" TERM; echo $$ >> {0}; while :; do sleep 1; done' &
echo $$ >> {0}
while :; do sleep 1; done
"""


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path, int], None]:
    """The time-out comes once all processes are there, however slow this machine is."""

    def call(mark: Path, lines: int) -> None:
        class Patient(subprocess.Popen[bytes]):
            def wait(self, timeout: float | None = None) -> int:
                if timeout != 123.0:
                    return super().wait(timeout)
                while not mark.exists() or mark.read_text().count("\n") < lines:
                    time.sleep(0.01)
                raise subprocess.TimeoutExpired(self.args, timeout)

        monkeypatch.setattr(running.subprocess, "Popen", Patient)

    return call


def test_a_command_that_hangs_is_ended_with_all_its_children(
    tmp_path: Path, patient: Callable[[Path, int], None]
) -> None:
    """Neither it nor they listen to SIGTERM."""
    mark = tmp_path / "pids"
    patient(mark, 3)
    outcome = running.run(sh(STUBBORN.replace("{0}", str(mark))), os.environ, timeout=123.0, grace=0.1)
    assert outcome.status is None
    pids = [int(line) for line in mark.read_text().split()]
    assert len(pids) == 3
    assert [pid for pid in pids if alive(pid)] == []


def test_a_command_may_end_by_itself_when_it_is_asked(
    tmp_path: Path, patient: Callable[[Path, int], None]
) -> None:
    mark, gone = tmp_path / "pids", tmp_path / "gone"
    patient(mark, 1)
    words = f"trap 'echo bye > {gone}; exit 0' TERM; echo $$ >> {mark}; while :; do sleep 0.01; done"
    outcome = running.run(sh(words), os.environ, timeout=123.0, grace=60.0)
    assert outcome.status is None
    assert gone.read_text() == "bye\n"


@pytest.mark.parametrize(("timeout_is", "suspects"), [("skip", 3), ("bad", 1)])
def test_what_takes_too_long_is_skipped_or_bad(repo: Repository, timeout_is: str, suspects: int) -> None:
    command = ["sleep", "1000"]
    found = repo.bisect("m@v0", "m@v3", command, timeout=0.05, timeout_is=timeout_is)  # type: ignore[arg-type]
    assert len(found.suspects) == suspects
    assert found.suspects[0].reason == "it took longer than 0.05 seconds"
