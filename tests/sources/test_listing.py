"""What a save takes: anything in a folder, nothing outside it, and nothing silently left out."""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path

import pytest

from stemmata.containers.chunks import CHUNK
from stemmata.errors import LinkEscapes, SourceChanged, SourceMissing, UnsupportedFile
from stemmata.sources import listing, scan
from stemmata.trees import MAX_TREE_BYTES
from users import open_folder, ordinary_user


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "out"
    made.mkdir()
    return made


def fill(folder: Path, *paths: str) -> None:
    for path in paths:
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.endswith("/"):
            target.mkdir(exist_ok=True)
        else:
            target.write_bytes(path.encode())


def taken(folder: Path, **options: object) -> list[str]:
    return [f.path for f in scan(folder, **options).files]  # type: ignore[arg-type]


def test_files_are_listed_in_the_byte_order_of_their_paths(folder: Path) -> None:
    fill(folder, "z", "a/b", "a.x", "é", "\U00010000", "\uffff", "情感/模型.bin", "sp ace")
    found = taken(folder)
    assert found == sorted(found, key=str.encode)
    assert set(found) == {"z", "a/b", "a.x", "é", "\U00010000", "\uffff", "情感/模型.bin", "sp ace"}


def test_empty_files_and_empty_folders_are_kept(folder: Path) -> None:
    fill(folder, "a/", "b/c/", "d/x")
    (folder / "nothing").write_bytes(b"")
    source = scan(folder)
    assert source.empty_folders == ("a", "b/c")
    assert [(f.path, f.size) for f in source.files] == [("d/x", 3), ("nothing", 0)]
    assert source.total_bytes == 3


def test_an_empty_source_is_an_empty_listing(folder: Path) -> None:
    source = scan(folder)
    assert (source.files, source.empty_folders, source.left_out) == ((), (), ())


def test_a_single_file_is_a_source(folder: Path) -> None:
    fill(folder, "model.safetensors", "other")
    source = scan(folder / "model.safetensors")
    assert [f.path for f in source.files] == ["model.safetensors"]
    assert source.root == folder


def test_a_source_may_be_named_by_a_link(folder: Path, tmp_path: Path) -> None:
    fill(folder, "x")
    os.symlink(folder, tmp_path / "link")
    os.symlink(folder / "x", tmp_path / "file")
    assert taken(tmp_path / "link") == ["x"]
    assert taken(tmp_path / "file") == ["file"]


def test_a_relative_source_stays_where_it_was(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(folder, "x")
    monkeypatch.chdir(folder)
    source = scan(".")
    monkeypatch.chdir("/")
    source.verify_unchanged()
    assert [f.path for f in source.files] == ["x"]


@pytest.mark.parametrize("path", ["nowhere", "x/below", "dangling", "a\0b"])
def test_what_is_not_there_is_named(folder: Path, path: str) -> None:
    fill(folder, "x")
    os.symlink("gone", folder / "dangling")
    with pytest.raises(SourceMissing):
        scan(folder / path)


def test_the_executable_bit_is_seen(folder: Path) -> None:
    fill(folder, "run.sh", "data")
    os.chmod(folder / "run.sh", 0o755)
    assert {f.path: f.executable for f in scan(folder).files} == {"run.sh": True, "data": False}


# --- left out -----------------------------------------------------------------------------------

USUAL = [
    "config.json",
    "checkpoint-500/model.safetensors",
    "checkpoint-500/optimizer.pt",
    "runs/Nov01/events",
    "__pycache__/x.pyc",
    "src/__pycache__/x.pyc",
    ".cache/huggingface/x",
    ".git/HEAD",
    ".ipynb_checkpoints/a.ipynb",
    ".stemmata/stemmata.json",
    "src/run.py",
    "training_args.bin",
]
LEAVE_OUT = {"training_args.bin": "it may hold tokens"}.get


def test_checkpoints_logs_and_caches_are_left_out_and_named(folder: Path) -> None:
    fill(folder, *USUAL)
    source = scan(folder, leave_out=LEAVE_OUT)
    assert [f.path for f in source.files] == ["config.json", "src/run.py"]
    assert [path for path, _ in source.left_out] == [
        ".cache",
        ".git",
        ".ipynb_checkpoints",
        ".stemmata",
        "__pycache__",
        "checkpoint-500",
        "runs",
        "src/__pycache__",
        "training_args.bin",
    ]
    assert all(reason for _, reason in source.left_out)
    assert ("training_args.bin", "it may hold tokens") in source.left_out


def test_what_only_looks_like_a_default_is_taken(folder: Path) -> None:
    paths = ["checkpoint-1", "runs", "data/checkpoint-1/x", "data/runs/y", "my-runs/z", ".cached/a"]
    fill(folder, *(p for p in paths if "/" in p))
    fill(folder, "checkpoint-1", "runs")
    assert sorted(taken(folder)) == sorted(paths)


def test_a_repository_of_any_name_is_left_out(folder: Path) -> None:
    fill(folder, "models/stemmata.json", "models/packs/aa/x", "x")
    source = scan(folder)
    assert [f.path for f in source.files] == ["x"]
    assert source.left_out == (("models", "a stemmata repository"),)


@pytest.mark.parametrize("pattern", ["checkpoint-500", "checkpoint-*", "checkpoint-500/", "checkpoint-5*/*"])
def test_an_included_folder_is_taken_whole(folder: Path, pattern: str) -> None:
    fill(folder, *USUAL)
    found = taken(folder, include=[pattern])
    assert [p for p in found if p.startswith("checkpoint")] == USUAL[1:3]


def test_a_file_of_a_folder_that_is_left_out_can_be_included_alone(folder: Path) -> None:
    fill(folder, *USUAL, "checkpoint-500/empty/")
    source = scan(folder, include=["checkpoint-*/optimizer.pt"], leave_out=LEAVE_OUT)
    assert [f.path for f in source.files] == ["checkpoint-500/optimizer.pt", "config.json", "src/run.py"]
    assert source.empty_folders == ()
    left = dict(source.left_out)
    assert left["checkpoint-500"].endswith("(in part)")


def test_a_file_left_out_by_the_caller_can_be_included(folder: Path) -> None:
    fill(folder, "training_args.bin", "sub/training_args.bin")
    assert taken(folder, leave_out=LEAVE_OUT) == []
    assert len(taken(folder, leave_out=LEAVE_OUT, include=["training_args.bin"])) == 2
    for named in ("sub/training_args.bin", "s*/training_args*"):
        assert taken(folder, leave_out=LEAVE_OUT, include=[named]) == ["sub/training_args.bin"]
    for wide in ("sub", "sub/*", "s*", "*", "*.bin"):
        # Who asks for a folder has not asked for the tokens in it.
        assert taken(folder, leave_out=LEAVE_OUT, include=[wide]) == []
    assert taken(folder / "training_args.bin", leave_out=LEAVE_OUT) == []


def test_includes_do_not_keep_others_out(folder: Path) -> None:
    fill(folder, "a", "b")
    assert taken(folder, include=["a"]) == ["a", "b"]


def test_a_bare_pattern_does_not_open_folders_that_are_left_out(folder: Path) -> None:
    fill(folder, "a.bin", "checkpoint-1/b.bin")
    assert taken(folder, include=["*.bin"]) == ["a.bin"]


@pytest.mark.parametrize(
    ("pattern", "kept"),
    [
        ("*.pt", ["a/c/z", "a/y", "x"]),
        ("optimizer.pt", ["a/c/z", "a/y", "x"]),
        ("a", ["optimizer.pt", "x"]),
        ("a/", ["optimizer.pt", "x"]),
        ("a/c", ["a/optimizer.pt", "a/y", "optimizer.pt", "x"]),
        ("a/*", ["optimizer.pt", "x"]),
        ("c/z", ["a/c/z", "a/optimizer.pt", "a/y", "optimizer.pt", "x"]),
        ("A", ["a/c/z", "a/optimizer.pt", "a/y", "optimizer.pt", "x"]),
        ("*", []),
    ],
)
def test_what_is_excluded_goes(folder: Path, pattern: str, kept: list[str]) -> None:
    fill(folder, "x", "optimizer.pt", "a/optimizer.pt", "a/y", "a/c/z")
    source = scan(folder, exclude=[pattern])
    assert [f.path for f in source.files] == kept
    assert len(source.left_out) > 0 or pattern in ("c/z", "A")
    assert all(reason == f"excluded by {pattern.rstrip('/')!r}" for _, reason in source.left_out)


def test_excluding_is_stronger_than_including(folder: Path) -> None:
    fill(folder, "runs/a", "runs/b")
    assert taken(folder, include=["runs"], exclude=["runs/b"]) == ["runs/a"]
    assert taken(folder, include=["runs/a"], exclude=["runs"]) == []


# --- links --------------------------------------------------------------------------------------


def test_links_inside_are_stored_as_what_they_point_to(folder: Path) -> None:
    fill(folder, "deep/x", "deep/y")
    os.symlink("deep/x", folder / "relative")
    os.symlink(folder / "deep" / "y", folder / "absolute")
    os.symlink("../deep", folder / "deep" / "z-not-followed-out")
    os.unlink(folder / "deep" / "z-not-followed-out")
    os.symlink("deep", folder / "linked")
    os.symlink("relative", folder / "twice")
    source = scan(folder)
    found = {f.path: f.real for f in source.files}
    assert set(found) == {"absolute", "deep/x", "deep/y", "linked/x", "linked/y", "relative", "twice"}
    assert found["linked/x"] == found["twice"] == folder / "deep" / "x"
    assert source.read("absolute") == b"deep/y"


@pytest.mark.parametrize("target", ["../outside", "../secret/", "/etc/hostname", "a/../../outside"])
def test_links_that_leave_the_folder_are_refused(folder: Path, tmp_path: Path, target: str) -> None:
    fill(tmp_path, "outside", "secret/x")
    fill(folder, "a/x")
    os.symlink(target, folder / "a-link")
    with pytest.raises(LinkEscapes) as failure:
        scan(folder)
    assert failure.value.data["path"] == str(folder / "a-link")
    assert taken(folder, exclude=["a-link"]) == ["a/x"]


def test_a_folder_with_a_like_name_is_outside(folder: Path, tmp_path: Path) -> None:
    fill(tmp_path, "out-of-it/x")
    os.symlink("../out-of-it/x", folder / "link")
    with pytest.raises(LinkEscapes):
        scan(folder)


def test_a_link_beside_a_single_file_does_not_matter(folder: Path) -> None:
    fill(folder, "x")
    os.symlink("/etc", folder / "link")
    assert taken(folder / "x") == ["x"]


@pytest.mark.parametrize("target", ["nowhere", "circle", "x/below"])
def test_links_that_lead_nowhere_are_refused(folder: Path, target: str) -> None:
    fill(folder, "x")
    os.symlink(target, folder / "circle")
    with pytest.raises(UnsupportedFile) as failure:
        scan(folder)
    assert failure.value.data["path"] == str(folder / "circle")


@pytest.mark.parametrize("target", [".", "..", "../../out"])
def test_links_back_to_a_folder_above_are_refused(folder: Path, target: str) -> None:
    fill(folder, "a/b/x")
    where = folder if target == "." else folder / "a" if target == ".." else folder / "a" / "b"
    os.symlink(target if target != "../../out" else "../..", where / "loop")
    with pytest.raises(UnsupportedFile, match="leads back") as failure:
        scan(folder)
    assert failure.value.data["path"] == str(where / "loop"), "the link, which is what can be left out"


def test_links_between_two_folders_that_never_end_are_refused(folder: Path) -> None:
    fill(folder, "a/x", "b/y")
    os.symlink("../b", folder / "a" / "to-b")
    os.symlink("../a", folder / "b" / "to-a")
    with pytest.raises(UnsupportedFile, match="leads back"):
        scan(folder)


# --- what no version can hold -------------------------------------------------------------------


def test_pipes_sockets_and_devices_are_refused_without_waiting(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(folder / "pipe")
    with pytest.raises(UnsupportedFile, match="a pipe"):
        scan(folder)
    with pytest.raises(UnsupportedFile, match="a pipe"):
        scan(folder / "pipe")
    os.unlink(folder / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        monkeypatch.chdir(folder)  # a socket's path is short
        listener.bind("s")
        with pytest.raises(UnsupportedFile, match="a socket"):
            scan(folder)
    assert taken(folder, exclude=["s"]) == []
    with pytest.raises(UnsupportedFile, match="a device"):
        scan("/dev/null")


def test_names_that_are_no_text_are_refused_and_shown(folder: Path) -> None:
    (Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9"))).write_bytes(b"")
    with pytest.raises(UnsupportedFile) as failure:
        scan(folder)
    assert failure.value.data["path"] == str(folder / "caf\\xe9")
    str(failure.value).encode()
    source = scan(folder, exclude=["caf*"])
    assert source.left_out == (("caf\\xe9", "excluded by 'caf*'"),)


@pytest.mark.parametrize("name", ["new\nline", "esc\x1b[31m", "del\x7f"])
def test_names_with_control_characters_are_refused_and_shown(folder: Path, name: str) -> None:
    fill(folder, name)
    with pytest.raises(UnsupportedFile, match="control character") as failure:
        scan(folder)
    assert str(failure.value).isprintable()


def test_an_empty_folder_with_such_a_name_is_refused_as_well(folder: Path) -> None:
    os.mkdir(folder / "a\nb")
    with pytest.raises(UnsupportedFile, match="control character"):
        scan(folder)


def test_folders_deeper_than_any_model_are_refused(folder: Path) -> None:
    fill(folder, "/".join("d" * 150) + "/x")
    assert len(taken(folder)) == 1
    fill(folder, "/".join("d" * 210) + "/x")
    with pytest.raises(UnsupportedFile, match="deep"):
        scan(folder)


def test_too_many_files_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(folder, "a", "b", "c")
    monkeypatch.setattr(listing, "MAX_FILES", 3)
    assert len(taken(folder)) == 3
    monkeypatch.setattr(listing, "MAX_FILES", 2)
    with pytest.raises(UnsupportedFile, match="more than 2 files"):
        scan(folder)


def test_a_few_folders_that_links_visit_without_end_are_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(folder, *(f"d{n}/" for n in range(41)))
    for n in range(40):
        for name in "ab":
            os.symlink(f"../d{n + 1}", folder / f"d{n}" / name)
    monkeypatch.setattr(listing, "MAX_FILES", 1000)
    with pytest.raises(UnsupportedFile, match="more than 1000 files and folders"):
        scan(folder)


def test_a_hole_longer_than_any_file_is_refused_before_it_is_cut(folder: Path) -> None:
    fill(folder, "hole")
    os.truncate(folder / "hole", 1 << 42)
    assert scan(folder).total_bytes == 1 << 42
    before = listing._MAX_BYTES
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(listing, "_MAX_BYTES", 1 << 41)
        with pytest.raises(UnsupportedFile, match="longer than 2 TiB"):
            scan(folder)
    assert before // CHUNK * 2 * 67 < MAX_TREE_BYTES, "the digest of each piece and what stands around it"


def test_folders_that_may_not_be_entered_are_named_or_left_out() -> None:
    with open_folder() as folder:
        fill(folder, "a/x", ".cache/y")
        (folder / ".cache").chmod(0)
        with ordinary_user():
            assert taken(folder) == ["a/x"]
        (folder / "a").chmod(0)
        with ordinary_user(), pytest.raises(UnsupportedFile, match="cannot be listed"):
            scan(folder)
        for name in ("a", ".cache"):
            (folder / name).chmod(0o755)


def test_a_folder_that_cannot_be_listed_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(folder, "a/x")
    whole = os.scandir

    def closed(path: Path) -> object:
        if Path(path).name == "a":
            raise PermissionError(13, "Permission denied")
        return whole(path)

    monkeypatch.setattr(os, "scandir", closed)
    with pytest.raises(UnsupportedFile, match="cannot be listed: Permission denied"):
        scan(folder)


# --- what others leave ------------------------------------------------------------------------------


def test_a_snapshot_of_the_hubs_cache_is_a_source(tmp_path: Path) -> None:
    """huggingface_hub keeps each file once, in `blobs`, and links to it from each revision."""
    cache = tmp_path / "hub/models--owner--name"
    snapshot = cache / "snapshots" / ("0" * 40)
    fill(cache, "blobs/aa", "blobs/bb", "refs/main")
    (snapshot / "onnx").mkdir(parents=True)
    os.symlink("../../blobs/aa", snapshot / "config.json")
    os.symlink("../../../blobs/bb", snapshot / "onnx/model.bin")
    assert taken(snapshot) == ["config.json", "onnx/model.bin"]
    assert taken(snapshot / "config.json") == ["config.json"]
    os.symlink("../../refs/main", snapshot / "other")
    with pytest.raises(LinkEscapes):
        scan(snapshot)


def test_what_macos_lays_beside_files_is_left_out(folder: Path) -> None:
    fill(folder, "model.safetensors", ".DS_Store", "sub/.DS_Store", "sub/._plain")
    (folder / "._model.safetensors").write_bytes(b"\0\x05\x16\x07" + bytes(60))
    found = scan(folder)
    assert [f.path for f in found.files] == ["model.safetensors", "sub/._plain"]
    assert [path for path, _ in found.left_out] == [".DS_Store", "._model.safetensors", "sub/.DS_Store"]
    assert "._model.safetensors" in taken(folder, include=["._model.safetensors"])


def test_a_checkout_that_was_killed_is_left_out(folder: Path) -> None:
    fill(folder, "notes.txt", ".stemmata-0123456789abcdef/model.bin", ".stemmata-notes/x")
    found = scan(folder)
    assert [f.path for f in found.files] == [".stemmata-notes/x", "notes.txt"]
    assert list(found.left_out) == [(".stemmata-0123456789abcdef", "a checkout that was not finished")]


def test_what_is_removed_while_it_is_listed_is_not_there(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(folder, "a.tmp", "gone/x", "model.bin")
    whole, removed = os.scandir, list[str]()

    def removing(path: Path) -> object:
        if Path(path).name == "gone":
            raise FileNotFoundError(2, "No such file or directory")
        found = whole(path)
        if Path(path) == folder and not removed:
            with found:
                names = list(found)
            (folder / "a.tmp").unlink(missing_ok=True)
            removed.append("a.tmp")
            return contextlib.nullcontext(names)
        return found

    monkeypatch.setattr(os, "scandir", removing)
    with pytest.raises(SourceChanged):
        scan(folder)  # each time again
    removed.clear()
    fill(folder, "a.tmp")
    (folder / "gone" / "x").unlink()
    (folder / "gone").rmdir()
    assert taken(folder) == ["model.bin"], "listed once more"


def test_a_pipe_named_as_files_of_macos_is_refused_without_waiting(folder: Path) -> None:
    os.mkfifo(folder / "._pipe")
    with pytest.raises(UnsupportedFile, match="a pipe"):
        scan(folder)
