"""Trees: each unsafe path refused for its own reason, and a content digest that never moves."""

from __future__ import annotations

import msgspec
import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from stemmata.errors import DamagedTree, UnsafePath
from stemmata.records import Content
from stemmata.trees import (
    MAX_PATH_BYTES,
    Segment,
    Tree,
    TreeFile,
    check_path,
    check_paths,
    content_digest,
    content_of,
    decode_tree,
    encode_tree,
)

ONE = blake3(b"one").hexdigest()
TWO = blake3(b"two").hexdigest()


def tree(*paths: str, empty: tuple[str, ...] = ()) -> Tree:
    return Tree([TreeFile(p, 3, ONE, [Segment(3, [ONE])]) for p in paths], list(empty))


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("", "empty or too long"),
        ("a" * (MAX_PATH_BYTES + 1), "empty or too long"),
        ("ü" * (MAX_PATH_BYTES // 2 + 1), "empty or too long"),
        ("/etc/passwd", "part"),
        ("a/", "part"),
        ("a//b", "part"),
        (".", "part"),
        ("a/./b", "part"),
        ("..", "part"),
        ("../x", "part"),
        ("a/../../x", "part"),
        ("a\x00b", "control"),
        ("a\nb", "control"),
        ("a\x7fb", "control"),
        ("a\x85b", "control"),
        ("\ud800", "Unicode"),
    ],
)
def test_each_unsafe_path_is_refused(path: str, reason: str) -> None:
    with pytest.raises(UnsafePath) as caught:
        check_path(path, on_windows=False)
    assert reason in str(caught.value.data["reason"])


@pytest.mark.parametrize(
    "path", ["a\\b", "c:x", "C:/x", "con", "a/NUL.txt", "com1", "lpt9.bin", "a.", "a ", "b. /c"]
)
def test_what_windows_reads_otherwise_is_refused_there_alone(path: str) -> None:
    with pytest.raises(UnsafePath, match="Windows"):
        check_path(path, on_windows=True)
    check_path(path, on_windows=False)


@pytest.mark.parametrize(
    "path", ["a", "a/b.c", ".hidden", "...x", "a b", "größe/模型.bin", "e\u0301", "console", "-rf"]
)
@pytest.mark.parametrize("on_windows", [False, True])
def test_ordinary_paths_pass_everywhere(path: str, on_windows: bool) -> None:
    check_path(path, on_windows=on_windows)


@pytest.mark.parametrize(
    ("files", "folders", "reason"),
    [
        (["a", "a"], [], "twice"),
        (["a"], ["a"], "twice"),
        ([], ["a", "a"], "twice"),
        (["a", "a/b"], [], "is a file"),
        (["a/b/c", "a"], [], "is a file"),
        (["a"], ["a/b"], "is a file"),
    ],
)
def test_paths_that_would_fight_are_refused(files: list[str], folders: list[str], reason: str) -> None:
    with pytest.raises(UnsafePath, match=reason):
        check_paths(files, folders)


def test_the_content_digest_is_the_formats_byte_for_byte() -> None:
    expected = blake3(
        b"stemmata content 1\n"
        + b"f" + (1).to_bytes(4, "little") + b"a" + (3).to_bytes(8, "little") + bytes.fromhex(ONE)
        + b"f" + (2).to_bytes(4, "little") + "ü".encode() + (5).to_bytes(8, "little") + bytes.fromhex(TWO)
        + b"d" + (3).to_bytes(4, "little") + b"b/c"
    )  # fmt: skip
    found = content_digest([("ü", 5, TWO), ("a", 3, ONE)], ["b/c"])
    assert found == Content(expected.hexdigest(), 2, 8)


def test_the_content_digest_of_a_known_tree_never_changes() -> None:
    assert content_of(tree("a", "b/c", empty=("d",))).digest == (
        "edfd07ecc159d290e33c67d805125355d2607d73e01d9b98e368d37e4d6ac884"
    )


def test_cutting_and_the_executable_bit_stay_outside_the_content() -> None:
    whole = TreeFile("a", 3, ONE, [Segment(3, [ONE])])
    cut = TreeFile("a", 3, ONE, [Segment(1, [TWO], "t", "U8", [1]), Segment(2, [TWO])], True, "safetensors")
    assert content_of(Tree([whole])) == content_of(Tree([cut]))


@given(st.lists(st.sampled_from(["a", "b", "c/d", "ü", "~", "c.e"]), unique=True))
def test_the_order_given_does_not_matter(paths: list[str]) -> None:
    rows = [(p, 1, ONE) for p in paths]
    assert content_digest(rows) == content_digest(sorted(rows)) == content_digest(rows[::-1])


def test_a_tree_comes_back_whole_and_is_held_against_the_record() -> None:
    made = tree("a", "b", empty=("c",))
    assert decode_tree(encode_tree(made), content_of(made), "v") == made
    with pytest.raises(DamagedTree, match="commits"):
        decode_tree(encode_tree(tree("a")), content_of(made), "v")


def test_i9_unknown_fields_of_a_newer_tree_are_skipped() -> None:
    made = tree("a")
    assert decode_tree(encode_tree(made)[:-1] + b',"later":1}', content_of(made), "v") == made


def damaged(file: TreeFile) -> str:
    made = Tree([file])
    with pytest.raises(DamagedTree) as caught:
        decode_tree(encode_tree(made), Content(ONE, 1, 3), "v")
    return str(caught.value.data["reason"])


def test_each_unsound_tree_is_refused_for_its_own_reason() -> None:
    assert "negative" in damaged(TreeFile("a", -1, ONE, [Segment(-1, [])]))
    assert "negative" in damaged(TreeFile("a", 3, ONE, [Segment(-1, []), Segment(4, [])]))
    assert "tile" in damaged(TreeFile("a", 3, ONE, [Segment(2, [ONE])]))
    assert "tile" in damaged(TreeFile("a", 3, ONE))
    assert "hex" in damaged(TreeFile("a", 3, "XYZ", [Segment(3, [ONE])]))
    assert "larger" in damaged(TreeFile("a", 2**63, ONE, [Segment(2**63, [ONE])]))
    assert "no digest" in damaged(TreeFile("a", 3, ONE, [Segment(3, ["../x"])]))
    assert "shape" in damaged(TreeFile("a", 3, ONE, [Segment(3, [ONE], "t", "U8", [-3])]))


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b"\xff", b'{"files":[{"path":1}]}', b"[" * 100_000])
def test_what_is_no_tree_is_damage(data: bytes) -> None:
    with pytest.raises(DamagedTree):
        decode_tree(data, Content(ONE, 0, 0), "v")


def test_an_unsafe_path_in_a_hostile_tree_is_refused_before_anything_else() -> None:
    evil = Tree([TreeFile("../../etc/cron.d/x", 3, ONE, [Segment(3, [ONE])])])
    with pytest.raises(UnsafePath):
        decode_tree(encode_tree(evil), content_of(evil), "v")


def test_defaults_are_left_out_of_the_bytes() -> None:
    assert msgspec.json.decode(encode_tree(Tree([TreeFile("a", 0, ONE)]))) == {
        "files": [{"path": "a", "size": 0, "digest": ONE}]
    }
