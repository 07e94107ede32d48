"""The threads that code frames: how many, and that a forked child is not left waiting for them."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stemmata.cgroups import processors
from stemmata.codecs import workers
from stemmata.codecs.dtypes import dtype_of
from stemmata.codecs.faults import DamagedFault
from stemmata.codecs.frames import Reference
from stemmata.codecs.objectcode import Base, encode_object, plan_alone, sample_of
from stemmata.codecs.streams import Bytes
from stemmata.errors import InvalidArgument
from stemmata.ids import Digest, PackName

F32 = dtype_of("F32")

SOURCE = Path(__file__).parents[2] / "src"


def run(code: str, **variables: str) -> str:
    env = {**os.environ, "PYTHONPATH": str(SOURCE), **variables}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_variable_sets_the_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEMMATA_THREADS", "3")
    assert workers.thread_count() == 3
    monkeypatch.setenv("STEMMATA_THREADS", " ")
    assert workers.thread_count() == processors()
    monkeypatch.delenv("STEMMATA_THREADS")
    assert workers.thread_count() == processors()


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5", "99999", "9" * 5000, "²"])
def test_a_senseless_number_of_threads_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEMMATA_THREADS", text)
    with pytest.raises(InvalidArgument, match="STEMMATA_THREADS"):
        workers.thread_count()


def test_one_thread_needs_no_pool() -> None:
    out = run("from stemmata.codecs.workers import frame_pool; print(frame_pool())", STEMMATA_THREADS="1")
    assert out.strip() == "None"


def test_i4_a_failure_waits_for_those_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """A frame that is still being decoded would write into memory that somebody else has by then."""
    monkeypatch.setenv("STEMMATA_THREADS", "2")
    begun, never, written = threading.Event(), threading.Event(), list[int]()

    def work(item: int) -> None:
        if item == 0:
            assert begun.wait(60)
            raise ValueError("damaged")
        begun.set()
        never.wait(0.2)
        written.append(item)

    with ThreadPoolExecutor(2) as threads:
        with pytest.raises(ValueError, match="damaged"):
            workers.each(work, range(8), threads)
        seen = list(written)
    assert seen == written
    assert 1 in written


def test_i4_an_interrupt_while_handing_over_waits_for_what_was_handed_over() -> None:
    begun, ended = threading.Event(), list[int]()

    class Interrupted(ThreadPoolExecutor):
        def submit(self, *args: Any, **kwargs: Any) -> Future[Any]:
            super().submit(*args, **kwargs)
            assert begun.wait(60)
            raise KeyboardInterrupt

    def work(item: int) -> None:
        begun.set()
        time.sleep(0.2)
        ended.append(item)

    with Interrupted(1) as threads:
        with pytest.raises(KeyboardInterrupt):
            workers.each(work, range(8), threads)
        assert ended == [0]
    assert ended == [0]


def test_a_pool_that_is_shut_down_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEMMATA_THREADS", "1")
    begun, go_on = threading.Event(), threading.Event()

    class Told(ThreadPoolExecutor):
        def submit(self, *args: Any, **kwargs: Any) -> Future[Any]:
            future = super().submit(*args, **kwargs)
            begun.set()
            return future

    with Told(1) as threads, ThreadPoolExecutor(1) as caller:
        ThreadPoolExecutor.submit(threads, go_on.wait, 60)
        outcome = caller.submit(workers.each, abs, range(2), threads)
        assert begun.wait(60)
        threads.shutdown(wait=False, cancel_futures=True)
        go_on.set()
        with pytest.raises(CancelledError):
            outcome.result(60)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_codes_and_hashes_on() -> None:
    """Neither the pool's threads nor BLAKE3's follow a fork; waiting for them would never end."""
    out = run(
        """
import os, signal
from stemmata.codecs.dtypes import dtype_of
from stemmata.codecs.hashing import digest_of
from stemmata.codecs.decoding import decode_object
from stemmata.codecs.objectcode import encode_object
from stemmata.codecs.workers import frame_pool

content = bytes(range(256)) * 32768
def code():
    digest = digest_of(content)
    encoded = bytes(encode_object(content, dtype_of("F32"), frame_pool()))
    assert content == decode_object(
        encoded, raw_length=len(content), digest=digest, where="x", threads=frame_pool())

code()
child = os.fork()
if not child:
    signal.alarm(60)  # ends a child that waits for ever
    code()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
print("both")
""",
        STEMMATA_THREADS="2",
        PYTHONWARNINGS="ignore::DeprecationWarning",
    )
    assert out.strip() == "both"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux gives a thread a priority of its own")
def test_what_stays_behind_has_pools_of_its_own_with_a_lower_priority() -> None:
    code = """
import os, threading
from stemmata.codecs import workers

def nice(thread):
    return os.getpriority(os.PRIO_PROCESS, thread)

def added():
    return nice(threading.get_native_id()) - nice(os.getpid())

def in_object():
    return added(), workers.frame_pool().submit(added).result()

def through_pools():
    coded = workers.object_pool().submit(in_object).result()
    with workers.Threads(1, thread_name_prefix="mine") as mine:
        return added(), *coded, mine.submit(added).result()

def behind():
    workers.stay_behind()
    found.append(through_pools())

found = []
thread = threading.Thread(target=behind)
thread.start()
thread.join()
print(found[0], through_pools())
"""
    assert run(code, STEMMATA_THREADS="4") == "(5, 5, 5, 5) (0, 0, 0, 0)\n"


@pytest.mark.parametrize(("given", "behind"), [("1", 0), ("2", 0), ("5", 2), ("16", 8)])
def test_what_stays_behind_takes_half_of_the_threads(given: str, behind: int) -> None:
    code = """
import threading
from stemmata.codecs import workers

def size(pool):
    return pool._max_workers if pool is not None else 0

def behind():
    workers.stay_behind()
    found.append((size(workers.frame_pool()), size(workers.object_pool()) > 0))

found = []
thread = threading.Thread(target=behind)
thread.start()
thread.join()
print(found[0], size(workers.frame_pool()))
"""
    whole = int(given) if given != "1" else 0
    assert run(code, STEMMATA_THREADS=given) == f"{(behind, behind > 0)} {whole}\n"


def test_what_a_later_frame_failed_of_is_told_though_an_earlier_one_ends_after_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first of a base's frames to be found damaged need not be the first in it."""
    monkeypatch.setenv("STEMMATA_THREADS", "3")
    data = np.random.default_rng(0).normal(size=3 * F32.max_frame_bytes // 4).astype("<f4")
    last, found = 2 * F32.max_frame_bytes // 4, threading.Event()

    class Damaged(Base):
        def frame(self, element: int, count: int) -> Bytes:
            if element == last:
                found.set()
                raise DamagedFault("as planned")
            assert found.wait(30)
            time.sleep(0.05)
            return super().frame(element, count)

    base = Damaged(Reference(PackName(bytes(16)), Digest(bytes(32))), F32, memoryview(data).cast("B"))
    plan = plan_alone(sample_of(data.view(np.uint8), F32)[1], F32, data.nbytes)
    with ThreadPoolExecutor(3) as threads, pytest.raises(DamagedFault, match="as planned"):
        encode_object(data.data, F32, threads, base, plan)
