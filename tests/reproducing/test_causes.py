"""Causes: each kind of recorded difference is named, the likeliest first, and nothing else is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from making_again import CAPTURE, NOTHING, Stores, captured
from stemmata.capturing import Captured, read
from stemmata.compare.environment import canonical
from stemmata.records import Base
from stemmata.reproducing import Verdict, judge
from stemmata.reproducing.recorded import KINDS
from stemmata.reproducing.words import difference_words
from stemmata.version import Version


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stores]:
    made = Stores(tmp_path_factory.mktemp("stores"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def apart(stores: Stores) -> tuple[Version, Version]:
    """Two versions whose weights differ, and nothing that their records say."""
    return stores.pair({"w": np.zeros(2, np.float32)}, {"w": np.ones(2, np.float32)})


@pytest.fixture(scope="module")
def alike(stores: Stores) -> tuple[Version, Version]:
    return stores.pair({"w": np.zeros(3, np.float32)}, {"w": np.zeros(3, np.float32)})


def told(pair: tuple[Version, Version], **changes: Any) -> list[str]:
    return [
        difference_words(each) for each in judge(*pair, before=captured(), after=captured(**changes)).causes
    ]


def of(pair: tuple[Version, Version], before: Captured | None, after: Captured | None) -> Verdict:
    return judge(*pair, before=before, after=after)


CODE_FILES = {"files": {"helper.py": {"text": "x = 2\n"}}}
ONE: list[tuple[str, dict[str, Any], list[str]]] = [
    ("seed", {"seeds": {"seed": 7}, "training_arguments": {"seed": 7}}, ["seed: 42 → 7"]),
    ("seed", {"seeds": {"data_seed": 1}}, ["seed data_seed: none → 1"]),
    ("seed", {"seeds": {"torch": {"state": "c" * 20}}}, ["seed torch.state: cc → cccccccccccc"]),
    ("seed", {"seeds": {"torch": {"state": 5}}}, ["seed torch.state: cc → 5"]),
    ("seed", {"seeds": {"torch": {"initial_seed": 9, "state": "ff"}}}, ["seed torch.initial_seed: 42 → 9"]),
    ("data", {"data": {"parts": {"train": {"digest": "9" * 64}}}},
     ["data train: 120 rows, dddddddddddd → 120 rows, 999999999999"]),
    ("data", {"data": {"parts": {"train": {"rows": 119, "digest": "9" * 64}}}},
     ["data train: 120 rows, dddddddddddd → 119 rows, 999999999999"]),
    ("data", {"data": {"parts": {"train": {"rows": 119, "digest": None}}}},
     ["data train: 120 rows → 119 rows"]),
    ("data", {"data": {"parts": {"test": {"rows": 1}}}}, ["data test: none → 1 rows"]),
    ("base", {"base": {"digest": "a" * 64}}, ["base digest: bbbbbbbbbbbb → aaaaaaaaaaaa"]),
    ("base", {"base": {"digest": None, "name_or_path": "other"}}, ["base name: toy → other"]),
    ("base", {"base": {"digest": None, "revision": "v2"}}, ["base revision: none → v2"]),
    ("code", {"code": {"commit": "d" * 40}}, ["code commit: cccccccccccc → dddddddddddd"]),
    ("code", {"code_files": CODE_FILES}, ["code helper.py: 1 line → 1 line"]),
    ("code", {"code_files": {"files": {"new.py": {"text": "a\nb"}}}}, ["code new.py: none → 2 lines"]),
    ("code", {"code": {"deleted": ["old.py"]}}, ["code old.py: there → none"]),
    ("code", {"code": {"entry": {"kind": "module", "module": "train"}}},
     ["code entry: script train.py → module train.py"]),
    ("argument", {"training_arguments": {"learning_rate": 1e-5}}, ["argument learning_rate: 0.0001 → 1e-05"]),
    ("argument", {"training_arguments": {"fsdp": {"min": 1}}}, ["argument fsdp.min: 0 → 1"]),
    ("class", {"trainer": {"optimizer": "Lion"}}, ["class optimizer: torch.optim.AdamW → Lion"]),
    ("switch", {"seeds": {"torch": {"deterministic_algorithms": True}}},
     ["switch torch.deterministic_algorithms: false → true"]),
    ("switch", {"seeds": {"full_determinism": True}}, ["switch full_determinism: false → true"]),
    ("switch", {"seeds": {"python": {"hash_seed": "0"}}}, ["switch python.hash_seed: random → 0"]),
    ("package", {"packages": {"torch": "2.7.1"}}, ["package torch: 2.6.0 → 2.7.1"]),
    ("package", {"packages": {"torch": {"version": "2.6.0", "url": "x", "commit": "abc"}}},
     ["package torch: 2.6.0 → 2.6.0 of abc"]),
    ("package", {"packages": {"new-one": "1"}}, ["package new-one: none → 1"]),
    ("package", {"environment": {"torch": {"version": "2.6.0+cpu"}}}, ["package torch: 2.6.0 → 2.6.0+cpu"]),
    ("hardware", {"environment": {"gpus": [{"name": "T4"}]}}, ["hardware gpus: 2 × A100 → 1 × T4"]),
    ("hardware", {"environment": {"gpus": []}}, ["hardware gpus: 2 × A100 → none"]),
    ("hardware", {"environment": {"driver": "560"}}, ["hardware driver: 550.54 → 560"]),
    ("hardware", {"environment": {"cpu": "Xeon"}}, ["hardware cpu: EPYC → Xeon"]),
    ("hardware", {"environment": {"torch": {"cuda": "12.6"}}}, ["hardware cuda: 12.4 → 12.6"]),
    ("python", {"environment": {"python": "3.12.1"}}, ["python: 3.11.9 → 3.12.1"]),
    ("variable", {"environment": {"variables": {"OMP_NUM_THREADS": "8"}}},
     ["variable OMP_NUM_THREADS: 4 → 8"]),
    ("variable", {"environment": {"variables": {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}}},
     ["variable CUBLAS_WORKSPACE_CONFIG: none → :4096:8"]),
    ("system", {"environment": {"platform": "Linux-6.9"}}, ["system platform: Linux-6.1 → Linux-6.9"]),
    ("command", {"command": {"argv": ["/opt/python", "train.py", "--lr", "1e-5"]}},
     ["command: --lr 1e-4 → --lr 1e-5"]),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "changes", "words"), ONE, ids=lambda value: str(value)[:50])
def test_each_recorded_difference_is_named(
    apart: tuple[Version, Version], kind: str, changes: dict[str, Any], words: list[str]
) -> None:
    found = judge(*apart, before=captured(), after=captured(**changes))
    assert [difference_words(each) for each in found.causes] == words
    assert [each.kind for each in found.causes] == [kind]
    assert not found.cause_unknown
    assert words[0] in str(found)


def test_every_kind_of_cause_is_tried_here() -> None:
    assert {kind for kind, _, _ in ONE} == set(KINDS)


@pytest.mark.parametrize(
    "changes",
    [
        {"command": {"argv": ["/opt/python3.11", "train.py", "--lr", "1e-4"]}},
        {"command": {"folder": "/scratch"}},
        {"command": {"python_path": ["/scratch/lib"]}},
        {"command": {"folder": "/s", "argv": ["py", "/s/train.py", "--lr", "1e-4"]}},
        {"training_arguments": {"output_dir": "elsewhere", "logging_dir": "x", "save_total_limit": 2}},
        {"packages": {"pytest": "9.0", "ruff": "1"}},
        {"environment": {"variables": {"LOCAL_RANK": "1", "SLURM_JOB_ID": "7", "HF_HUB_OFFLINE": "1"}}},
        {"base": {"name_or_path": "/scratch/base"}},
        {"code": {"root": "/scratch", "branch": None, "remote": "x", "dirty": True}},
        {"data": {"parts": {"train": {"fingerprint": "g", "files": [{"path": "/x/a.csv"}]}}}},
        {"environment": {"torch": {"cudnn": None}, "missing": []}},
        {"packages": {"torch": {"version": "2.6.0", "url": "file:///scratch/torch"}}},
    ],
    ids=str,
)
def test_what_cannot_change_a_number_is_no_cause(
    apart: tuple[Version, Version], changes: dict[str, Any]
) -> None:
    found = judge(*apart, before=captured(), after=captured(**changes))
    assert found.causes == ()
    assert found.cause_unknown
    assert "cause: unknown: nothing that was recorded differs" in str(found)
    assert all(each.aside for each in found.recorded.aside)


@pytest.mark.parametrize("name", ["eval_steps", "save_strategy", "logging_steps", "dataloader_num_workers"])
def test_what_draws_random_numbers_or_decides_what_is_kept_or_logged_is_a_cause(
    apart: tuple[Version, Version], name: str
) -> None:
    assert told(apart, training_arguments={name: 7}) == [f"argument {name}: none → 7"]


def test_the_script_in_another_folder_is_the_same_command(apart: tuple[Version, Version]) -> None:
    before = captured(command={"argv": ["py", "/home/ada/work/train.py"]})
    after = captured(command={"argv": ["py", "/scratch/code/train.py"]}, code={"root": "/scratch/code"})
    assert of(apart, before, after).causes == ()


def test_a_module_that_lies_elsewhere_is_the_same_code(apart: tuple[Version, Version]) -> None:
    text = {"text": "def f(): ...\n"}
    before = captured(code_files={"files": {"/home/ada/lib/f.py": text}})
    after = captured(code_files={"files": {"/scratch/lib/f.py": text}})
    assert of(apart, before, after).causes == ()


def test_without_git_on_one_side_only_files_of_both_are_compared(apart: tuple[Version, Version]) -> None:
    changes = {"code": {"commit": None}, "code_files": {"files": {"train.py": {"text": "whole"}}}}
    assert told(apart, **changes) == []
    assert told(apart, **(changes | {"code_files": CODE_FILES})) == ["code helper.py: 1 line → 1 line"]


def test_cells_of_a_notebook(apart: tuple[Version, Version]) -> None:
    before, after = (
        captured(code={"commit": None}).code.__class__(cells=cells) for cells in (["a"], ["a", "b"])
    )
    found = of(apart, Captured(code=before), Captured(code=after))
    assert [difference_words(each) for each in found.causes] == ["code notebook cells: 1 → 2"]


def test_the_file_behind_rows_that_changed_is_named_too(apart: tuple[Version, Version]) -> None:
    parts = [
        {"train": {"digest": letter * 64, "files": [{"path": f"{folder}/a.csv", "digest": letter * 64}]}}
        for letter, folder in (("1", "/home"), ("2", "/scratch"))
    ]
    found = of(apart, captured(data={"parts": parts[0]}), captured(data={"parts": parts[1]}))
    assert [each.name for each in found.causes] == ["train", "train file a.csv"]
    streams = [{"train": part["train"] | {"digest": None}} for part in parts]
    found = of(apart, captured(data={"parts": streams[0]}), captured(data={"parts": streams[1]}))
    assert [each.name for each in found.causes] == ["train file a.csv"]


def test_a_fingerprint_counts_only_where_nothing_better_is_known(apart: tuple[Version, Version]) -> None:
    parts = [{"train": {"digest": None, "fingerprint": letter}} for letter in "fg"]
    found = of(apart, captured(data={"parts": parts[0]}), captured(data={"parts": parts[1]}))
    assert [each.name for each in found.causes] == ["train fingerprint"]


def test_columns_that_differ_are_told_where_rows_have_no_digest(apart: tuple[Version, Version]) -> None:
    parts = [{"train": {"digest": None, "columns": {name: "int64"}}} for name in "ab"]
    found = of(apart, captured(data={"parts": parts[0]}), captured(data={"parts": parts[1]}))
    assert [difference_words(each) for each in found.causes] == ["data train columns: a → b"]


def test_causes_are_ranked_by_what_they_can_do(apart: tuple[Version, Version]) -> None:
    changes: dict[str, Any] = {
        "command": {"argv": ["py", "train.py", "--lr", "1e-5"]},
        "environment": {"python": "3.12", "platform": "x", "gpus": [], "variables": {"OMP_NUM_THREADS": "1"}},
        "packages": {"six": "2", "numpy": "1", "torch": "3", "transformers": "6"},
        "seeds": {"seed": 1, "torch": {"threads": 1}},
        "code_files": CODE_FILES,
        "training_arguments": {"learning_rate": 1, "output_dir": "o"},
        "trainer": {"optimizer": "x"},
        "base": {"digest": "a"},
        "data": {"parts": {"train": {"digest": "1"}, "eval": {"digest": "2"}}},
    }
    found = judge(*apart, before=captured(), after=captured(**changes))
    assert [(each.kind, each.name) for each in found.causes] == [
        ("seed", "seed"), ("data", "train"), ("base", "digest"), ("code", "helper.py"),
        ("argument", "learning_rate"), ("class", "optimizer"), ("switch", "torch.threads"),
        ("package", "torch"), ("hardware", "gpus"), ("package", "transformers"), ("package", "numpy"),
        ("python", "python"), ("variable", "OMP_NUM_THREADS"), ("data", "eval"), ("command", "command"),
        ("package", "six"), ("system", "platform"),
    ]  # fmt: skip


def test_with_equal_captures_the_cause_is_unknown(apart: tuple[Version, Version]) -> None:
    found = of(apart, captured(), captured())
    assert (found.kind, found.causes, found.cause_unknown) == ("diverged", (), True)
    assert "cause: unknown: nothing that was recorded differs" in str(found)


@pytest.mark.parametrize("nothing", [None, NOTHING], ids=["none", "empty"])
def test_without_a_capture_nothing_could_be_compared(
    apart: tuple[Version, Version], nothing: Captured | None
) -> None:
    told_of = {
        "the original": of(apart, nothing, captured()),
        "the copy": of(apart, captured(), nothing),
        "the original and the copy": of(apart, nothing, nothing),
    }
    for who, found in told_of.items():
        assert found.recorded.uncompared == (
            f"nothing was captured with {who}: nothing recorded could be compared",
        )
        assert found.cause_unknown
        assert "cause: unknown: nothing that was recorded of both differs" in str(found)


def test_a_part_that_one_side_lacks_is_told_with_its_reason(apart: tuple[Version, Version]) -> None:
    found = of(apart, captured(packages=None), captured(trainer=None))
    assert found.recorded.uncompared == (
        "trainer: not captured with the copy",
        "packages: of the original it was not captured with this version",
    )


def test_a_gap_in_what_was_captured_is_told(apart: tuple[Version, Version]) -> None:
    missing = [{"what": "rows of train", "why": "it streams"}]
    found = of(apart, captured(data={"missing": missing}), captured(data={"missing": missing}))
    assert found.recorded.uncompared == ("rows of train: it streams",)
    assert "not compared: rows of train: it streams" in str(found)


def test_where_the_same_came_of_it_the_differences_did_not_matter(alike: tuple[Version, Version]) -> None:
    found = judge(*alike, before=captured(), after=captured(packages={"torch": "2.7.1", "pytest": "9"}))
    assert (found.kind, found.causes, found.cause_unknown) == ("bit-identical", (), False)
    assert [each.name for each in found.harmless] == ["torch"]
    assert "did not matter: package torch: 2.6.0 → 2.7.1" in str(found)
    assert "cannot matter: pytest" in str(found)


def test_settings_of_the_records_count_where_no_arguments_were_captured(stores: Stores) -> None:
    one = stores.save(
        0, {"w": np.zeros(1)}, config={"lr": 1, "seed": 3, "output_dir": "a"}, data={"train.rows": 2}
    )
    two = stores.save(
        1, {"w": np.ones(1)}, config={"lr": 2, "seed": 4, "output_dir": "b"}, data={"train.rows": 3}
    )
    found = judge(one, two, before=None, after=None)
    assert [difference_words(each) for each in found.causes] == [
        "seed: 3 → 4", "data train: 2 rows → 3 rows", "argument lr: 1 → 2"
    ]  # fmt: skip
    whole = judge(one, two, before=captured(), after=captured(training_arguments={"lr": 5}))
    assert [(each.name, each.after) for each in whole.causes] == [("lr", 5)]


def test_the_base_of_an_adapter_is_what_the_versions_say(stores: Stores) -> None:
    bases = [Base("toy", None, letter * 64) for letter in "ab"]
    one, two = (stores.save(side, {"w": np.full(1, side)}, base=base) for side, base in enumerate(bases))
    found = judge(one, two, before=captured(base=None), after=captured(base=None))
    assert [difference_words(each) for each in found.causes] == ["base digest: aaaaaaaaaaaa → bbbbbbbbbbbb"]


LEAVES = st.none() | st.booleans() | st.integers(-5, 5) | st.floats(allow_nan=False) | st.text(max_size=5)
TREES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
)
ODD = st.dictionaries(st.text(max_size=6), TREES, max_size=4)


@settings(max_examples=40)
@given(st.dictionaries(st.sampled_from(sorted(CAPTURE)), ODD))
def test_a_capture_against_itself_differs_in_nothing_whatever_it_holds(
    apart: tuple[Version, Version], odd: dict[str, dict[str, Any]]
) -> None:
    objects = {kind: json.dumps({**CAPTURE[kind], **said}).encode() for kind, said in odd.items()}
    found = read(objects, objects.__getitem__)
    judged = of(apart, found, found)
    assert (judged.causes, judged.recorded.aside) == ((), ())
    other = of(apart, captured(), found)
    json.dumps(other.to_dict(), allow_nan=False)
    assert str(other)
    assert canonical("A_b") == "a-b"
