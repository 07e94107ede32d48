"""Where the processes of a training meet: one that is late, or left alone, ends as it would by itself."""

from __future__ import annotations

import gc
import logging
from types import SimpleNamespace

import pytest
import torch.distributed

from stemmata.hf.distributed import Meeting


def gone_before(rank: int, monkeypatch: pytest.MonkeyPatch) -> Meeting:
    """A meeting whose store has ended with the process that held it."""
    host = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    store = torch.distributed.TCPStore("127.0.0.1", host.port, is_master=False, wait_for_workers=False)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed.distributed_c10d, "_get_default_store", lambda: store)
    made = Meeting(SimpleNamespace(process_index=rank, world_size=2))
    del host
    gc.collect()
    return made


@pytest.mark.parametrize("rank", [0, 1])
def test_who_meets_nobody_any_more_gets_no_error_of_the_store(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, rank: int
) -> None:
    meeting = gone_before(rank, monkeypatch)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):  # what is written first may go into the connection still
            meeting.arrive()
            meeting.leave()
        meeting.abandon()
        assert meeting.all_here() == [0, 1]
    assert caplog.records == []
