"""`training_args.bin` is read without running anything in it, and without its secrets (trap 14, I10)."""

from __future__ import annotations

import io
import os
import pickle
import pickletools
import zipfile
from pathlib import Path

import msgspec
import pytest

from stemmata.training_args import sanitise_arguments, sanitised

HF = "hf_" + "AbCdEfGhIjKlMnOpQrStUvWx"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    torch = pytest.importorskip("torch")
    from transformers import TrainingArguments

    folder = tmp_path_factory.mktemp("arguments")
    arguments = TrainingArguments(
        output_dir=str(folder / "out"),
        learning_rate=3e-4,
        num_train_epochs=7,
        hub_token=HF,
        use_cpu=True,
        report_to=[],
        logging_strategy="epoch",
    )
    torch.save(arguments, folder / "training_args.bin")
    return (folder / "training_args.bin").read_bytes()


def test_the_file_holds_the_token_in_clear_and_the_safe_loader_refuses_it(saved: bytes) -> None:
    import torch

    assert HF.encode() in saved
    with pytest.raises(pickle.UnpicklingError):
        torch.load(io.BytesIO(saved), weights_only=True)


def test_i10_real_training_arguments_come_back_without_the_token(saved: bytes) -> None:
    found = sanitised(saved)
    assert found is not None
    assert found["learning_rate"] == 3e-4
    assert found["num_train_epochs"] == 7
    assert found["logging_strategy"] == "epoch"
    assert found["hub_token"] == "***"
    assert HF not in str(found)
    assert not [key for key in found if key.startswith("_")]


def test_live_arguments_say_the_same(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from transformers import TrainingArguments

    arguments = TrainingArguments(
        output_dir=str(tmp_path), hub_token=HF, use_cpu=True, report_to=[], warmup_steps=3
    )
    found = sanitise_arguments(arguments)
    assert found["warmup_steps"] == 3
    assert found["hub_token"] == "***"
    assert HF not in str(found)


class Evil:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (os.system, (f"touch {self.path}",))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("in_zip", [False, True])
def test_a_pickle_that_runs_a_command_does_not_run_it(tmp_path: Path, protocol: int, in_zip: bool) -> None:
    marker = tmp_path / "ran"
    data = pickle.dumps({"learning_rate": 1, "evil": Evil(str(marker))}, protocol=protocol)
    pickle.loads(data)
    assert marker.exists(), "the naive way runs it"
    marker.unlink()
    if in_zip:
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            archive.writestr("archive/data.pkl", data)
        data = packed.getvalue()
    found = sanitised(data)
    assert not marker.exists()
    assert found is not None
    assert found["learning_rate"] == 1


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_values_survive_every_protocol(protocol: int) -> None:
    value = {
        "i": 5,
        "big": 2**80,
        "f": 0.5,
        "t": True,
        "n": None,
        "s": "ä",
        "l": [1, "x", (2, 3)],
        "set": {4},
        "d": {"x": {"y": 1}},
        "b": b"abc",
    }
    found = sanitised(pickle.dumps(value, protocol=protocol))
    assert found is not None
    for key in ("i", "big", "f", "t", "n", "s", "d"):
        assert found[key] == value[key], key
    assert found["l"] == [1, "x", [2, 3]]
    assert found["set"] == ([4] if protocol >= 4 else found["set"])


def test_numbers_that_json_lacks_survive() -> None:
    assert sanitised(pickle.dumps({"x": float("nan"), "y": float("-inf")})) == {"x": "~nan", "y": "~-inf"}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"PK\x03\x04 cut",
        b"\x80\x04",
        b"\x80\x04]q\x00.",
        b"not a pickle at all",
        pickle.dumps([1, 2]),
        b"\x80\x02h\x05.",
        b"\x80\x04(K\x01",
        b"0.",
        b"t.",
    ],
)
def test_what_is_no_arguments_reads_as_none(data: bytes) -> None:
    assert sanitised(data) is None


def test_every_cut_of_a_real_file_is_harmless(saved: bytes) -> None:
    whole = sanitised(saved)
    for cut in range(0, len(saved), max(1, len(saved) // 40)):
        assert sanitised(saved[:cut]) in (None, whole)


def test_references_that_would_unfold_without_end_are_cut_short() -> None:
    laughs: list[object] = ["ha"]
    for _ in range(60):
        laughs = [laughs, laughs]
    found = sanitised(pickle.dumps({"x": laughs, "y": 1}))
    assert found is not None
    assert len(str(found)) < 1_000_000


@pytest.mark.parametrize("times", [40, 5000], ids=["twice over and over", "deep"])
def test_a_class_whose_name_has_no_end_is_no_class(times: int) -> None:
    doubled = b"2\x86" if times == 40 else b"\x85"  # DUP, TUPLE2; TUPLE1
    assert sanitised(b"\x80\x04)" + doubled * times + b"\x8c\x01x\x93.") is None


def test_a_zip_whose_stream_is_damaged_is_unreadable() -> None:
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", pickle.dumps({"seed": 7, "text": "word " * 1000}))
    assert sanitised(whole.getvalue()) == {"seed": 7, "text": "word " * 1000}
    start = 30 + len("a/data.pkl")
    for at in range(start, start + 20):
        data = bytearray(whole.getvalue())
        data[at] ^= 0xFF
        assert sanitised(bytes(data)) in (None, {"seed": 7, "text": "word " * 1000})


def test_what_json_has_no_room_for_is_stored_as_text() -> None:
    name = os.fsdecode(b"caf\xe9")
    found = sanitised(pickle.dumps({"output_dir": name, name: 1, "big": 10**30, "huge": 1 << 100_000}))
    assert found is not None
    assert (found["output_dir"], found["caf?"], found["big"]) == ("caf?", 1, 10**30)
    assert str(found["huge"]).startswith("0x1000")
    assert msgspec.json.decode(msgspec.json.encode(found)) == found


def test_a_text_that_is_named_many_times_is_cut_short() -> None:
    text = "word " * 100_000
    found = sanitised(pickle.dumps({"words": [text] * 5000, "seed": 7}))
    assert found is not None
    assert len(msgspec.json.encode(found)) < 8 << 20


def test_an_argument_list_that_holds_itself_ends() -> None:
    loop: dict[str, object] = {"lr": 1}
    loop["self"] = loop
    found = sanitised(pickle.dumps(loop))
    assert found is not None
    assert found["lr"] == 1


def test_memory_is_not_taken_on_a_pickles_word() -> None:
    # BYTEARRAY8 makes the library's own reader allocate what it is told before looking.
    assert sanitised(b"\x80\x05\x96" + (1 << 40).to_bytes(8, "little") + b"x.") is None


def test_no_opcode_is_unknown_by_oversight() -> None:
    from stemmata.training_args import _CONSTANTS, _LITERALS, _STEPS

    known = {*_CONSTANTS, *_STEPS, *_LITERALS, "STOP"}
    left = {opcode.name for opcode in pickletools.opcodes} - known
    assert left == {"BYTEARRAY8", "NEXT_BUFFER", "READONLY_BUFFER", "EXT1", "EXT2", "EXT4"}
