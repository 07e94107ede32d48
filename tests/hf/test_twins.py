"""The Trainer's own checkpoints spare the next version's save the decoding of the one before."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import stemmata
import tiny_models as tiny
from stemmata import unread
from stemmata.checking import check
from stemmata.codecs.decoding import ObjectDecoder
from stemmata.hf import VersionCallback, checkpoints
from stemmata.repository import Repository


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Repository]:
    monkeypatch.setenv("STEMMATA_CACHE", str(tmp_path / "cache"))
    # Tiny models are worth a note here.
    monkeypatch.setattr(unread, "LEAST", 1024)
    monkeypatch.setattr(checkpoints, "LEAST", 1024)
    with stemmata.init(tmp_path / "repo") as made:
        yield made


@pytest.mark.parametrize("spoiled", [False, True])
def test_a_version_is_coded_against_the_checkpoint_of_the_one_before(
    repo: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoiled: bool
) -> None:
    decoded: list[int] = []
    real = ObjectDecoder.decode_into

    def decoding(self: ObjectDecoder, frame, into, known=None) -> None:  # type: ignore[no-untyped-def]
        if frame.dtype.is_float and frame.raw_length > 4096:
            decoded.append(frame.raw_length)
        real(self, frame, into, known)

    monkeypatch.setattr(ObjectDecoder, "decode_into", decoding)
    if spoiled:
        # Somebody writes into the checkpoint, which keeps its size, before it is noted.
        noted = checkpoints.marks_of

        def marks(about):  # type: ignore[no-untyped-def]
            for file in (tmp_path / "out").glob("checkpoint-*/model.safetensors"):
                with file.open("r+b") as opened:
                    opened.seek(-9, 2)
                    opened.write(b"x")
            return noted(about)

        monkeypatch.setattr(checkpoints, "marks_of", marks)
    callback = VersionCallback(repo, "m", run_name="r")
    trainer = tiny.trainer(
        tiny.gpt2(), tmp_path / "out", [callback], num_train_epochs=3, save_strategy="epoch"
    )
    trainer.train()
    monkeypatch.undo()
    assert bool(decoded) == spoiled
    assert check(repo.session.storage).sound
    for number in (1, 2, 3):
        version = repo[f"m@r/epoch-{number}"]
        if not spoiled:
            twin = tmp_path / "out" / f"checkpoint-{version.step}" / "model.safetensors"
            assert version.read("model.safetensors") == twin.read_bytes()


def test_a_checkpoint_that_cannot_be_noted_stops_no_training(
    repo: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def marks(about):  # type: ignore[no-untyped-def]
        raise ValueError("as planned")

    monkeypatch.setattr(checkpoints, "marks_of", marks)
    callback = VersionCallback(repo, "m", run_name="r", on_error="raise")
    trainer = tiny.trainer(
        tiny.gpt2(), tmp_path / "out", [callback], num_train_epochs=2, save_strategy="epoch"
    )
    trainer.train()
    assert {version.name for version in repo.versions("m")} >= {"r/epoch-1", "r/epoch-2"}
