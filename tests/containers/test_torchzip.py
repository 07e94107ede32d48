"""torch's zip files: what torch.save writes comes apart at its tensors, and no pickle is ever run."""

from __future__ import annotations

import argparse
import collections
import io
import pickle
import struct
import tracemalloc
import zipfile
from typing import Any

import pytest
import torch

from cuts import Memory, by_name, check_tiles, cut, names
from stemmata.containers import torchpickle
from stemmata.containers.base import NotThisContainer
from stemmata.containers.cut import plan
from stemmata.containers.torchpickle import read_pickle

KINDS = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "U16": torch.uint16,
    "U32": torch.uint32,
    "U64": torch.uint64,
    "BOOL": torch.bool,
}


def saved(value: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    torch.save(value, file, **options)
    return file.getvalue()


def raw(tensor: torch.Tensor) -> bytes:
    return bytes(tensor.contiguous().flatten().view(torch.uint8).numpy()) if tensor.numel() else b""


def rows(found: Any) -> list[tuple[str | None, str, tuple[int, ...] | None]]:
    """The runs of numbers."""
    return [(s.name, s.dtype, s.shape) for s in found.segments if s.dtype]


def archive(pickled: bytes, bodies: dict[str, bytes], folder: str = "archive/", **more: bytes) -> bytes:
    """A zip as torch writes it, around any pickle."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as target:
        target.writestr(f"{folder}data.pkl", pickled)
        for name, body in more.items():
            target.writestr(f"{folder}{name}", body)
        for key, body in bodies.items():
            target.writestr(f"{folder}data/{key}", body)
    return file.getvalue()


def pickle_of(data: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as source:
        return source.read(next(n for n in source.namelist() if n.endswith("data.pkl")))


def test_a_real_state_dict_is_cut_at_its_tensors() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.BatchNorm1d(5))
    state = model.state_dict()
    data = saved(state)
    for name in ("pytorch_model.bin", "anything"):
        found = cut(data, name)
        assert found.container == "torch"
        assert by_name(found, data) == {
            key: ("I64" if value.dtype == torch.int64 else "F32", tuple(value.shape), raw(value))
            for key, value in state.items()
        }


@pytest.mark.parametrize("word", KINDS)
def test_every_type_is_known(word: str) -> None:
    tensor = torch.arange(6).reshape(2, 3).to(KINDS[word])
    data = saved({"x": tensor, "scalar": tensor[0, 1].clone(), "none": tensor[:, :0].clone()})
    assert by_name(cut(data), data) == {
        "x": (word, (2, 3), raw(tensor)),
        "scalar": (word, (), raw(tensor[0, 1:2])),
        "none": (word, (2, 0), b""),
    }


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_protocol_is_followed(protocol: int) -> None:
    data = saved({"x": torch.ones(3), "y": {"z": torch.ones(2)}}, pickle_protocol=protocol)
    assert set(by_name(cut(data), data)) == {"x", "y.z"}


def test_parameters_and_tensors_of_other_classes() -> None:
    state = {"p": torch.nn.Parameter(torch.ones(2, 3)), "own": torch.ones(4).as_subclass(torch.nn.Buffer)}
    assert rows(cut(saved(state))) == [("p", "F32", (2, 3)), ("own", "F32", (4,))]


def test_tied_weights_are_kept_under_the_first_name() -> None:
    wte = torch.ones(5, 2)
    assert rows(cut(saved({"wte": wte, "head": wte}))) == [("wte", "F32", (5, 2))]
    assert rows(cut(saved({"wte": wte, "head": wte.view(5, 2)}))) == [("wte", "F32", (5, 2))]


def test_parts_of_one_storage_are_tensors_of_their_own() -> None:
    flat = torch.arange(20.0)
    found = cut(saved({"b": flat[12:18].view(2, 3), "a": flat[:8]}))
    assert rows(found) == [("a", "F32", (8,)), (None, "F32", (4,)), ("b", "F32", (2, 3)), (None, "F32", (2,))]


@pytest.mark.parametrize(
    "views",
    [
        lambda flat: {"a": flat[:8], "b": flat[6:]},
        lambda flat: {"a": flat.view(4, 5), "b": flat},
        lambda flat: {"a": flat.view(4, 5).t()},
        lambda flat: {"a": flat[::2]},
        lambda flat: {"a": flat[:1].expand(3)},
    ],
    ids=["overlap", "two shapes", "transposed", "strided", "expanded"],
)
def test_what_no_tensor_has_alone_stays_in_one(views: Any) -> None:
    assert rows(cut(saved(views(torch.arange(20.0))))) == [(None, "F32", (20,))]


def test_two_types_on_one_storage_are_bytes() -> None:
    tensor = torch.ones(4, dtype=torch.uint16)
    pickled = pickle_of(saved({"a": tensor, "b": torch.ones(2, dtype=torch.uint32)}))
    data = archive(pickled.replace(b"\x01\x00\x00\x001q", b"\x01\x00\x00\x000q"), {"0": raw(tensor)})
    assert rows(cut(data)) == []


def test_an_optimizer_is_numbers_without_names() -> None:
    model = torch.nn.Linear(4, 5)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(2, 4)).sum().backward()
    optimizer.step()
    found = cut(saved(optimizer.state_dict()), "optimizer.pt")
    shapes = [(None, "F32", shape) for shape in [(), (5, 4), (5, 4), (), (5,), (5,)]]
    assert (found.container, rows(found)) == ("torch", shapes)


def test_a_pickled_module_has_the_names_of_its_state_dict() -> None:
    """As detectors are saved whole, beside what else a training keeps."""
    inner = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.BatchNorm1d(5))
    model = torch.nn.Sequential(inner, torch.nn.Linear(5, 2, bias=False))
    names = [(name, tuple(value.shape)) for name, value in model.state_dict().items()]
    found = rows(cut(saved(model), "model.pt"))
    assert sorted((name, shape) for name, _, shape in found if name) == sorted(names)
    assert len(found) == len(names)
    kept = rows(cut(saved({"epoch": 3, "model": model, "ema": None}), "last.pt"))
    assert {name for name, *_ in kept} == {f"model.{name}" for name, _ in names}
    # One that is there twice has the names of the first way to it; an object of another kind those it has.
    twice = rows(cut(saved([{"a": model, "b": model}])))
    assert {name for name, *_ in twice} == {None}
    held = argparse.Namespace(weight=torch.ones(3), count=1)
    assert rows(cut(saved({"held": held}))) == [("held.weight", "F32", (3,))]


def test_names_follow_dictionaries_alone_and_are_given_once() -> None:
    one, two = torch.ones(1), torch.ones(2)
    shared = {"w": one}
    value = {"a": shared, "b": shared, "c": [two], "a.w": torch.ones(3), "d": torch.ones(4), 5: torch.ones(5)}
    assert rows(cut(saved(value))) == [
        ("a.w", "F32", (1,)),
        (None, "F32", (2,)),
        (None, "F32", (3,)),
        ("d", "F32", (4,)),
        (None, "F32", (5,)),
    ]


@pytest.mark.parametrize("name", ["x" * 5000, "half \ud800", ""])
def test_names_that_no_tree_holds_are_left_out(name: str) -> None:
    assert rows(cut(saved({name: torch.ones(2), "b": torch.ones(1)}))) == [
        (None, "F32", (2,)),
        ("b", "F32", (1,)),
    ]


def test_what_holds_no_storage_is_cut_as_any_file() -> None:
    found = cut(saved({"lr": 1e-3}), "scheduler.pt")
    assert (found.container, len(found.segments)) == ("", 1)


def test_the_older_format_is_cut_as_any_file() -> None:
    data = saved({"x": torch.ones(3)}, _use_new_zipfile_serialization=False)
    assert cut(data).container == ""


def test_big_endian_numbers_are_bytes() -> None:
    tensor = torch.ones(3)
    pickled = pickle_of(saved({"x": tensor}))
    for order, expected in ((b"little", [("x", "F32", (3,))]), (b"big", []), (b"", [])):
        data = archive(pickled, {"0": raw(tensor)}, byteorder=order)
        found = cut(data)
        assert (found.container, rows(found)) == ("torch", expected)
        # The member is still a run of its own.
        assert any(s.offset == data.index(raw(tensor)) and s.length == 12 for s in found.segments)


def test_a_storage_of_another_length_is_bytes() -> None:
    pickled = pickle_of(saved({"x": torch.ones(3)}))
    for length in (8, 11, 13, 16):
        assert rows(cut(archive(pickled, {"0": bytes(length)}))) == []
    assert rows(cut(archive(pickled, {"7": bytes(12)}))) == []


def test_only_one_folder_with_one_pickle_is_torch() -> None:
    pickled = pickle_of(saved({"x": torch.ones(3)}))
    assert cut(archive(pickled, {"0": bytes(12)}, folder="")).container == ""
    assert cut(archive(pickled, {"0": bytes(12)}, folder="a/b/")).container == ""
    assert cut(archive(pickled, {"0": bytes(12)}, **{"data/data.pkl": b""})).container == "torch"


def test_compressed_archives_are_cut_as_any_file() -> None:
    stored = saved({"x": torch.ones(3)})
    file = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(stored)) as source,
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for name in source.namelist():
            target.writestr(name, source.read(name))
    assert cut(file.getvalue()).container == ""


def test_only_headers_are_read() -> None:
    data = saved({"x": torch.ones(100_000), "y": torch.ones(100_000)})
    reader = Memory(data)
    check_tiles(plan(reader, len(data), "x.pt"), len(data))
    assert sum(length for _, length in reader.reads) < 5000


# --- hostile pickles ----------------------------------------------------------------------------


class Evil:
    def __reduce__(self) -> Any:
        return (exec, ("raise SystemExit('it was run')",))


def test_code_in_a_pickle_is_not_run() -> None:
    data = archive(pickle.dumps({"w": Evil()}), {"0": bytes(12)})
    assert cut(data).container == "torch"
    with pytest.raises(SystemExit):
        pickle.loads(pickle_of(data))


def test_tensors_beside_code_are_still_told() -> None:
    data = saved({"w": torch.ones(3), "e": Evil(), "v": torch.ones(2)})
    assert rows(cut(data)) == [("w", "F32", (3,)), ("v", "F32", (2,))]


def short(text: str) -> bytes:
    return b"X" + struct.pack("<I", len(text)) + text.encode()


def persistent(key: str = "0", count: bytes = b"K\x03") -> bytes:
    return b"(" + short("storage") + b"ctorch\nFloatStorage\n" + short(key) + short("cpu") + count + b"tQ"


def rebuilt(shape: bytes = b"K\x03\x85", stride: bytes = b"K\x01\x85", offset: bytes = b"K\x00") -> bytes:
    call = b"ctorch._utils\n_rebuild_tensor_v2\n("
    return call + persistent() + offset + shape + stride + b"\x89NtR"


def test_the_pickles_below_would_be_followed_if_they_were_sound() -> None:
    data = archive(b"\x80\x02}(" + short("x") + rebuilt() + b"u.", {"0": bytes(12)})
    assert rows(cut(data)) == [("x", "F32", (3,))]


HUGE = b"\x8a\x09" + bytes(8) + b"\x01"
FOLLOWED = {
    "a negative length": rebuilt(shape=b"J\xfd\xff\xff\xff\x85"),
    "an absurd length": rebuilt(shape=HUGE + b"\x85"),
    "absurd lengths": rebuilt(
        shape=b"(" + b"J\xff\xff\xff\x7f" * 60 + b"t", stride=b"(" + b"K\x01" * 60 + b"t"
    ),
    "too many dimensions": rebuilt(shape=b"(" + b"K\x01" * 99 + b"t", stride=b"(" + b"K\x01" * 99 + b"t"),
    "shapes that differ": rebuilt(stride=b"K\x01K\x01\x86"),
    "a shape that is none": rebuilt(shape=short("abc")),
    "an absurd offset": rebuilt(offset=HUGE),
    "beyond the storage": rebuilt(offset=b"K\x01"),
    "a truth for a number": rebuilt(shape=b"\x88\x85"),
}


@pytest.mark.parametrize("fault", FOLLOWED)
def test_a_tensor_that_cannot_be_is_none(fault: str) -> None:
    data = archive(b"\x80\x02}(" + short("x") + FOLLOWED[fault] + b"u.", {"0": bytes(12)})
    assert rows(cut(data)) == [(None, "F32", (3,))]


UNREADABLE = {
    "empty": b"",
    "cut off": b"\x80\x02}(",
    "nothing on the stack": b"\x80\x020.",
    "no mark": b"\x80\x02K\x01t.",
    "nothing to remember": b"\x80\x02q\x00.",
    "nothing remembered": b"\x80\x02h\x00.",
    "an unknown opcode": b"\x80\x02\xff.",
    "a text that is none": b"\x80\x02X\x02\x00\x00\x00\xff\xff.",
    "a text of absurd length": b"\x80\x02X\xff\xff\xff\x7f.",
    "a number of absurd length": b"\x80\x02\x8b\xff\xff\xff\x7f.",
    "digits without end": b"I" + b"9" * 10_000 + b"\n.",
    "an escape that is none": b"S'\\q\\x'\n.",
}


@pytest.mark.parametrize("fault", UNREADABLE)
def test_a_pickle_that_cannot_be_followed_leaves_bytes(fault: str) -> None:
    with pytest.raises(NotThisContainer):
        read_pickle(UNREADABLE[fault])
    found = cut(archive(UNREADABLE[fault], {"0": bytes(12)}))
    assert (found.container, set(names(found)), rows(found)) == ("torch", {None}, [])


def test_steps_and_bytes_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    pickled = pickle_of(saved({"x": torch.ones(3)}))
    monkeypatch.setattr(torchpickle, "MAX_STEPS", 20)
    with pytest.raises(NotThisContainer, match="steps"):
        read_pickle(pickled)
    monkeypatch.undo()
    with pytest.raises(NotThisContainer, match="too long"):
        read_pickle(bytes(torchpickle.MAX_PICKLE + 1))


def long(number: int) -> bytes:
    return short("x" * number)


VIEW = rebuilt() + b"q\x01"
BOMBS = {
    "dictionaries within dictionaries, each named twice": (
        b"}q\x00" + (b"}(" + short("a") + b"h\x00" + short("b") + b"h\x00uq\x00") * 500
    ),
    "tuples within tuples": b")" + b"\x85" * 10_000,
    "a long text joined to itself again and again": long(100_000) + b"q\x00" + b"h\x00h\x00\x93" * 2_000,
    "one long way to a tensor, very often": (
        b"}(" + long(1000) + b"}(" + short("y") + b"q\x02" + VIEW + b"h\x02h\x01" * 20_000 + b"uu"
    ),
    "very many tensors at the end of a long way": (
        b"}(" + long(1000) + b"}(" + b"".join(short(f"{i}") + rebuilt() for i in range(300)) + b"uu"
    ),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_pickle_that_unfolds_to_very_much_costs_little(bomb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torchpickle, "MAX_NAMES", 100_000)
    tracemalloc.start()
    try:
        told = read_pickle(b"\x80\x02" + BOMBS[bomb] + b".")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 16 << 20
    assert sum(len(view.name or "") for view in told.views) <= 100_000


def test_objects_that_have_others_very_often_are_looked_into_once() -> None:
    """Unfolded, what these few bytes tell would be more than any memory."""
    data = b"\x80\x02}(" + short("w") + persistent() + rebuilt() + b"uq\x000"
    state = b"}(" + (short("_modules") + b"h\x00" + short("_buffers") + b"h\x00") * 500 + b"u"
    data += (b"cbuiltins\nobject\n)\x81" + state + b"bq\x000") * 12 + b"h\x00."
    assert len(read_pickle(data).views) == 1


def test_dictionaries_of_every_make() -> None:
    ordered = collections.OrderedDict(a=torch.ones(1))
    assert rows(cut(saved({"o": ordered}))) == [("o.a", "F32", (1,))]
    # Written in one step, as older protocols do.
    data = archive(b"(" + short("x") + rebuilt() + b"d.", {"0": bytes(12)})
    assert rows(cut(data)) == [("x", "F32", (3,))]
