"""A bisection with functions and metrics: which line it takes, what it judges, what it says of the rest."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from stemmata.errors import InvalidArgument, InvalidExpression, NotFound, StemmataError
from stemmata.histories.bisection import Bisection, Trial
from stemmata.histories.problems import EndsDisagree, NoLine
from stemmata.repository import Repository
from stemmata.version import Version

Save = Callable[..., Version]


@pytest.fixture
def line(save: Save) -> Callable[..., list[Version]]:
    def call(
        count: int, *parents: Version, name: str = "v", model: str = "m", worse: int = 10**6
    ) -> list[Version]:
        made: list[Version] = []
        for k in range(count):
            came_from = made[-1:] or list(parents)
            metrics = {"loss": 0.9 if k >= worse else 0.1, "step": float(k)}
            made.append(save(f"{name}{k}", *came_from, metrics=metrics, model=model))
        return made

    return call


class Eval:
    """Judges by number, and counts."""

    def __init__(self, first_bad: int, untestable: tuple[int, ...] = ()) -> None:
        self.first_bad, self.untestable = first_bad, untestable
        self.asked: list[str] = []

    def __call__(self, version: Version) -> bool | None:
        self.asked.append(version.name)
        number = int("".join(c for c in version.name if c.isdigit()))
        return None if number in self.untestable else number < self.first_bad


def names(found: Bisection) -> list[str]:
    return [point.name for point in found.suspects]


def test_the_first_bad_one_of_64_is_found_in_6(repo: Repository, line: Callable[..., list[Version]]) -> None:
    versions = line(65)
    test = Eval(41)
    found = repo.bisect(versions[0], versions[-1], test)
    assert found.first_bad is not None
    assert (found.first_bad.id, found.last_good.id) == (versions[41].id, versions[40].id)
    assert (found.evaluations, len(test.asked), found.skipped, found.reused) == (6, 6, 0, 0)
    assert [p.name for p in found.line] == [v.name for v in versions]
    assert [p.name for p in found.judged] == test.asked
    assert found.first_bad.metrics == {"loss": 0.1, "step": 41.0}
    document = json.loads(json.dumps(found.to_dict()))
    assert document["first_bad"]["id"] == versions[41].id.hex
    assert [p["verdict"] for p in document["line"]].count(None) == 65 - 2 - 6 + (41 == 64)


def test_neighbours_are_tried_where_one_cannot_be_tested(
    repo: Repository, line: Callable[..., list[Version]]
) -> None:
    versions = line(9)
    assert names(repo.bisect(versions[0], versions[-1], Eval(5, (4,)))) == ["v4", "v5"]
    assert names(repo.bisect(versions[0], versions[-1], Eval(6, (3, 4)))) == ["v6"]
    found = repo.bisect(versions[0], versions[-1], lambda _: None)
    assert found.first_bad is None
    assert names(found) == [f"v{k}" for k in range(1, 9)]
    assert found.skipped == 7


def test_deleted_versions_are_skipped_and_judged_never(
    repo: Repository, line: Callable[..., list[Version]]
) -> None:
    versions = line(9)
    repo.delete(versions[3:5])
    test = Eval(5)
    found = repo.bisect(versions[0], versions[-1], test)
    assert names(found) == ["v3", "v4", "v5"]
    assert found.suspects[0].reason == "it was deleted"
    assert not {"v3", "v4"} & set(test.asked)


def test_each_step_is_told_before_and_after(repo: Repository, line: Callable[..., list[Version]]) -> None:
    versions = line(9)
    told: list[Trial] = []
    repo.bisect(versions[0], versions[-1], Eval(3), told=told.append)
    assert [(t.point.name, t.opinion and t.opinion.verdict) for t in told] == [
        *(("v4", None), ("v4", "bad"), ("v2", None), ("v2", "good"), ("v3", None), ("v3", "bad"))
    ]
    assert [(t.number, t.steps_left, t.suspects) for t in told[::2]] == [(1, 2, 8), (2, 1, 4), (3, 0, 2)]


# --- the line -------------------------------------------------------------------------------------


def test_it_follows_first_parents_and_merges_where_these_alone_lead_there(
    repo: Repository, save: Save, line: Callable[..., list[Version]]
) -> None:
    main = line(3, name="a")
    side = line(3, main[0], name="b")
    merged = save("c3", main[-1], side[-1])
    last = save("c4", merged)
    found = repo.bisect(main[0], last, lambda _: None)
    assert [p.name for p in found.line] == ["a0", "a1", "a2", "c3", "c4"]
    found = repo.bisect(side[0], last, lambda _: None)
    assert [p.name for p in found.line] == ["b0", "b1", "b2", "c3", "c4"]


def test_it_crosses_models(repo: Repository, line: Callable[..., list[Version]]) -> None:
    first = line(2, name="a", model="encoder")
    second = line(3, first[-1], name="b")
    found = repo.bisect(first[0], second[-1], lambda version: version.model == "encoder")
    assert names(found) == ["b0"]


def test_the_order_of_time_needs_no_parents(repo: Repository, save: Save) -> None:
    versions = [save(f"v{k}", run="ab"[k % 2]) for k in range(10)]
    found = repo.bisect(versions[0], versions[-1], Eval(7), by="time")
    assert names(found) == ["v7"]
    found = repo.bisect(versions[0], versions[8], Eval(7), by="time", run="a")
    assert [p.name for p in found.line] == ["v0", "v2", "v4", "v6", "v8"]
    assert names(found) == ["v8"]
    with pytest.raises(NotFound, match="its runs: a, b"):
        repo.bisect(versions[0], versions[8], Eval(7), by="time", run="nope")
    with pytest.raises(StemmataError, match="not both of run 'a'"):
        repo.bisect(versions[0], versions[9], Eval(7), by="time", run="a")
    assert names(repo.bisect(versions[0], versions[8], Eval(7), by="time", run="A")) == ["v8"]


def refused(call: Callable[[], object], kind: type[StemmataError] = NoLine) -> str:
    with pytest.raises(kind) as told:
        call()
    return str(told.value)


def test_versions_without_a_line_are_refused_with_what_can_be_done(
    repo: Repository, save: Save, line: Callable[..., list[Version]]
) -> None:
    root = save("root")
    left, right = save("left", root), save("right", root)
    words = refused(lambda: repo.bisect(left, right, Eval(1)))
    assert "both come from m@root" in words
    assert "stemmata bisect m@root m@right" in words
    assert "--by time" in words
    words = refused(lambda: repo.bisect(left, root, Eval(1)))
    assert "m@left came from m@root" in words
    words = refused(lambda: repo.bisect(left, root, Eval(1), by="time"))
    assert "saved later" in words
    lonely = save("lonely", model="other")
    assert "no common ancestor" in refused(lambda: repo.bisect(lonely, right, Eval(1)))
    assert "--by time" not in refused(lambda: repo.bisect(lonely, right, Eval(1)))
    assert "different models" in refused(lambda: repo.bisect(lonely, right, Eval(1), by="time"))
    assert "are the same" in refused(lambda: repo.bisect(left, left, Eval(1)), InvalidArgument)
    with pytest.raises(NotFound):
        repo.bisect("m@nosuch", right, Eval(1))


def test_two_neighbours_need_no_evaluation(repo: Repository, save: Save) -> None:
    first = save("a")
    second = save("b", first)
    found = repo.bisect(first, second, Eval(0))
    assert (names(found), found.evaluations) == (["b"], 0)


# --- the ends -------------------------------------------------------------------------------------


def test_the_ends_are_taken_as_said_unless_they_shall_be_checked(
    repo: Repository, line: Callable[..., list[Version]]
) -> None:
    versions = line(5)
    assert names(repo.bisect(versions[0], versions[-1], Eval(0))) == ["v1"]
    words = refused(lambda: repo.bisect(versions[0], versions[-1], Eval(0), check_ends=True), EndsDisagree)
    assert "m@v0 was said to be good, and it is bad" in words
    words = refused(lambda: repo.bisect(versions[0], versions[-1], Eval(9), check_ends=True), EndsDisagree)
    assert "m@v4 was said to be bad, and it is good" in words
    found = repo.bisect(versions[0], versions[-1], Eval(2), check_ends=True)
    assert (names(found), found.evaluations) == (["v2"], 4)


# --- metrics --------------------------------------------------------------------------------------


def test_stored_metrics_are_judged_without_running_anything(
    repo: Repository, line: Callable[..., list[Version]]
) -> None:
    versions = line(20, worse=13)
    found = repo.bisect(versions[0], versions[-1], require="loss < 0.5")
    assert (names(found), found.evaluations, found.turns) == (["v13"], 0, 1)
    assert found.suspects[0].reason == "loss < 0.5: it is 0.9"
    words = refused(lambda: repo.bisect(versions[0], versions[12], require="loss < 0.5"), EndsDisagree)
    assert "m@v12 was said to be bad, and it is good" in words
    with pytest.raises(InvalidExpression):
        repo.bisect(versions[0], versions[12], require="loss <")


def test_a_line_whose_verdict_changes_more_than_once_says_so(
    repo: Repository, line: Callable[..., list[Version]]
) -> None:
    versions = line(9, worse=2)
    for version in versions[4:6]:
        repo.annotate(version, metrics={"loss": 0.2})
    found = repo.bisect(versions[0], versions[-1], require=["loss < 0.5"])
    assert found.turns == 3
    assert names(found) == ["v6"]


def test_where_a_metric_is_missing_the_test_is_run_and_may_add_it(repo: Repository, save: Save) -> None:
    versions: list[Version] = []
    for k in range(9):
        metrics = {"f1": 0.9} if k % 2 == 0 and k < 8 else {}
        versions.append(save(f"v{k}", *versions[-1:], metrics=metrics))
    ran: list[str] = []

    def measure(version: Version) -> bool:
        ran.append(version.name)
        repo.annotate(version, metrics={"f1": 0.9 if int(version.name[1:]) < 7 else 0.1})
        return True

    found = repo.bisect(versions[0], versions[-1], measure, require="f1 > 0.5")
    assert (names(found), ran, found.evaluations) == (["v7"], ["v7"], 1)


def test_a_metric_that_nobody_has_leaves_all_in_doubt(
    repo: Repository, line: Callable[..., list[Version]]
) -> None:
    versions = line(5)
    found = repo.bisect(versions[0], versions[-1], require="accuracy > 0.5")
    assert len(found.suspects) == 4
    assert found.suspects[0].reason == "accuracy is missing"
    assert found.turns is None


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({}, "give a function or a command"),
        ({"test": "python eval.py"}, "a command is a list of words"),
        ({"test": []}, "a command is a list of words"),
        ({"test": ["a"], "timeout": 0}, "no number of seconds"),
        ({"test": ["a"], "timeout": float("nan")}, "no number of seconds"),
        ({"test": ["a"], "timeout_is": "good"}, "neither 'skip' nor 'bad'"),
        ({"test": ["a", "{}"], "checkout": False}, "names {}"),
        ({"test": bool, "timeout": 3}, "goes with a command"),
        ({"test": bool, "by": "name"}, "neither 'parents' nor 'time'"),
        ({"test": bool, "run": "r"}, "order of time"),
    ],
)
def test_what_cannot_be_asked_is_refused_before_anything_runs(
    repo: Repository, line: Callable[..., list[Version]], more: dict[str, object], words: str
) -> None:
    versions = line(3)
    with pytest.raises(InvalidArgument) as told:
        repo.bisect(versions[0], versions[-1], **more)  # type: ignore[arg-type]
    assert words in str(told.value)
