"""Curves, settings, spectra and lineage as data: which runs, which values, and what is said of them."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from picture_makers import WILD, spectra, sweep
from stemmata import portraits
from stemmata.logrows import KIND, Kept, Logged
from stemmata.pictures import words
from stemmata.pictures.curves import Curves
from stemmata.pictures.lineage import Kin, LineageGraph, Link
from stemmata.pictures.page import charts_of
from stemmata.pictures.parallel import UNSET, Parallel
from stemmata.pictures.seen import Seen
from stemmata.pictures.spectra import Spectra, Values
from stemmata.records import Run
from stemmata.repository import Repository

# --- curves ---------------------------------------------------------------------------------------


def test_runs_are_overlaid_with_the_best_first(shown: Repository) -> None:
    found = shown.versions("m").curves()
    assert found.axis == "epoch"
    assert [panel.metric for panel in found.panels][:2] == ["eval_loss", "eval_f1"]
    panel = found.panels[0]
    assert {line.run: [p.value for p in line.points] for line in panel.lines}["all"] == [1.0, 0.5, 1 / 3]
    assert panel.best is not None
    assert panel.best[1].seen.name == "r0/epoch-3"
    assert next(iter(found.runs.runs)) == "all"
    assert found.finding.startswith(
        "eval_loss is lowest in all at epoch 3 (0.3333), of 9 versions in 3 runs."
    )
    assert "top got worse after the best version" in found.finding
    marked = {p.seen.name: p.marks for line in panel.lines for p in line.points if p.marks}
    assert marked == {"r0/epoch-2": ("production",), "r1/epoch-3": ("#v1",)}


def test_the_declared_metric_and_its_direction_rank_the_runs() -> None:
    versions = [replace(v, metrics={**v.metrics, "score": v.metrics["loss"]}) for v in sweep(4)]
    up = Curves.make("m", versions, primary="score", direction="max")
    down = Curves.make("m", versions, primary="score", direction="min")
    assert up.panels[0].metric == down.panels[0].metric == "score"
    assert list(up.runs.runs) != list(down.runs.runs)
    assert up.panels[0].best[1].value > down.panels[0].best[1].value  # type: ignore[index]


def test_only_so_many_runs_have_colours_and_the_rest_is_said() -> None:
    found = Curves.make("m", sweep(30, 3))
    assert sorted(c for c in found.runs.colours.values() if c >= 0) == list(range(8))
    assert "The 8 best runs are coloured, the other 22 are grey." in found.notes
    assert len(found.panels[0].lines) == 30


def test_values_that_are_not_finite_are_gaps_and_named() -> None:
    versions = sweep(2, 4)
    versions[2] = replace(versions[2], metrics={"eval_loss": math.nan, "loss": math.inf})
    found = Curves.make("m", versions)
    assert any("eval_loss is not finite in r0/epoch-3 (NaN)" in note for note in found.notes)
    assert all(math.isfinite(v) for panel in found.panels for v in panel.values)
    assert found.text(80)


@pytest.mark.parametrize("sign", [1, -1])
def test_an_integer_that_no_float_holds_is_a_gap(sign: int) -> None:
    rows = {"0": [Logged(5, 0.1, {"eval_loss": 1.0}), Logged(9, 0.2, {"eval_loss": sign * 10**400})]}
    found = Curves.make("m", sweep(2, 4), logged=rows)
    assert all(math.isfinite(v) for panel in found.panels for v in panel.values)
    assert found.text(80)


def logged(steps: int = 200) -> dict[str, list[Logged]]:
    """What run 0 of a sweep logged between its versions: it explodes for a while at step 60, NaN at 70."""
    found = []
    for step in range(5, steps + 1, 5):
        loss = {60: 50.0, 70: math.nan}.get(step, 2.0 / (1 + step / 50))
        found.append(Logged(step, step / 50, {"loss": loss, "grad_norm": 1.0}))
    return {"0": found}


def test_lines_go_through_what_was_logged_between_versions_and_words_are_of_versions() -> None:
    versions = sweep(2, 4)
    plain, fine = Curves.make("m", versions), Curves.make("m", versions, logged=logged(steps=400))
    assert fine.finding == plain.finding
    assert fine.rows() == plain.rows()
    panel = next(p for p in fine.panels if p.metric == "loss")
    line = next(each for each in panel.lines if each.run == "r0")
    assert [x for x, _ in line.logged] == [step / 50 for step in range(5, 201, 5)], "up to the last version"
    values = dict(line.drawn)
    assert values[1.0] == versions[0].metrics["loss"], "what a version says counts"
    assert (values[1.2], math.isnan(values[1.4])) == (50.0, True)
    assert max(panel.values) == 50.0
    assert [p.metric for p in fine.panels] == [p.metric for p in plain.panels]
    assert next(each for each in panel.lines if each.run == "r1").logged == ()
    steps = Curves.make("m", versions, logged=logged(), axis="step").panels
    drawn = next(p for p in steps if p.metric == "loss").lines
    assert 60.0 in dict(next(each for each in drawn if each.run == "r0").drawn)
    for way in (fine, Curves.make("m", versions, logged=logged(), axis="version")):
        assert way.text(90)
        assert way.to_html()
        way.figure()


def test_a_run_with_one_version_has_a_curve_of_what_it_logged() -> None:
    (version, *_) = sweep(1, 4)
    assert "grad_norm" not in version.metrics
    found = Curves.make("m", [version], logged=logged())
    assert [p.metric for p in found.panels] == ["loss"]
    assert len(found.panels[0].lines[0].drawn) == 10


def test_of_very_many_rows_a_page_has_the_extremes() -> None:
    versions = [replace(v, step=100_000 * int(v.epoch or 0)) for v in sweep(1, 2)]
    rows = [Logged(step, step / 1e5, {"loss": 1.0 + (step == 77_777)}) for step in range(1, 200_000)]
    found = Curves.make("m", versions, logged={"0": rows})
    (panel,) = (p for p in found.panels if p.metric == "loss")
    assert len(panel.lines[0].logged) <= 600
    assert max(panel.values) == 2.0


def test_dots_on_a_page_are_versions_and_nothing_else() -> None:
    html = Curves.make("m", sweep(1, 4), logged=logged()).to_html()
    data = json.loads(html.split('id="data">')[1].split("</script>")[0])
    fine = max((c["baseOption"]["series"][0]["data"] for c in data["charts"]), key=len)
    assert [d["value"][0] for d in fine] == sorted(d["value"][0] for d in fine)
    assert [d["value"][0] for d in fine if d.get("symbol") != "none"] == [1, 2, 3, 4]
    assert [d["value"] for d in fine if d["value"][0] == 1.4] == [[1.4, "-"]]


def test_rows_are_read_for_so_many_versions_and_the_rest_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Repository.in_memory() as repo:
        folder = tmp_path / "files"
        folder.mkdir()
        for run in ("old", "new"):
            for epoch in (1, 2):
                (folder / "note.txt").write_text(f"{run}{epoch}")
                rows = [{"step": 10 * epoch + k, "loss": 1.0 / k} for k in range(-4, 0)]
                repo.save(
                    folder, "m", name=f"{run}/epoch-{epoch}", run=Run(run.ljust(32, "0"), run),
                    step=10 * epoch, epoch=float(epoch), metrics={"loss": 0.5},
                    provenance={KIND: Kept(tuple(rows)).encoded()},
                )  # fmt: skip
        listed = repo.versions("m")
        whole = listed.curves("loss", axis="step").panels[0]
        assert {line.run: len(line.logged) for line in whole.lines} == {"old": 8, "new": 8}
        assert "In its run" in repo["m@new/epoch-1"].to_html()
        monkeypatch.setattr(portraits, "_LOGS", 3)
        part = listed.curves("loss", axis="step")
        assert {line.run: len(line.logged) for line in part.panels[0].lines} == {"old": 0, "new": 8}
        assert "Of 1 older run only what the versions have is drawn." in part.notes


def test_two_runs_of_one_name_are_two_runs() -> None:
    twice = [replace(v, run="same") for v in sweep(2, 3)]
    found = Curves.make("m", twice)
    assert sorted(found.runs.runs) == ["same", "same (2)"]


def test_versions_that_no_run_saved_belong_with_those_that_are_called_alike() -> None:
    names = ("base", "cold/epoch-1", "cold/epoch-2", "warm/epoch-1", "warm/epoch-2")
    seen = [
        Seen(str(k), name, epoch=float(k), metrics={"loss": 1.0 / (k + 1)}) for k, name in enumerate(names)
    ]
    assert {line.run for line in Curves.make("m", seen).panels[0].lines} == {"(no run)", "cold", "warm"}


def test_without_epochs_steps_or_runs_there_is_an_axis_all_the_same() -> None:
    bare = [Seen(f"{k}", f"v{k}", at=f"2026-01-0{k}", metrics={"f1": k / 10}) for k in range(1, 5)]
    assert Curves.make("m", bare).axis == "version"
    stepped = [replace(v, step=10 * k) for k, v in enumerate(bare)]
    assert Curves.make("m", stepped).axis == "step"
    some = [replace(v, epoch=float(k)) if k < 3 else v for k, v in enumerate(bare)]
    found = Curves.make("m", some)
    assert found.axis == "epoch"
    assert "1 version without epoch: not drawn." in found.notes


def test_nothing_to_draw_says_so() -> None:
    for empty in (Curves.make("m", []), Curves.make("m", [Seen("1", "a")])):
        assert empty.is_empty
        assert empty.finding == "No version has a metric."
        assert empty.text(80) == "No version has a metric."
        assert "<svg" not in empty.to_html()


@given(
    st.lists(
        st.tuples(
            st.integers(0, 3),
            st.one_of(st.none(), st.floats(allow_nan=False, allow_infinity=False, min_value=0, max_value=99)),
            st.floats(),
        ),
        max_size=20,
    ),
    st.integers(40, 120),
)
@settings(max_examples=60)
def test_any_versions_can_be_drawn_in_a_terminal(
    versions: list[tuple[int, float | None, float]], width: int
) -> None:
    seen = [
        Seen(f"{k}", f"v{k}", f"r{run}", f"{run}", epoch, at=f"{k:04d}", metrics={"eval_loss": value})
        for k, (run, epoch, value) in enumerate(versions)
    ]
    text = Curves.make("m", seen).text(width)
    assert all(len(line) <= width + 24 for line in text.split("\n"))


# --- settings -------------------------------------------------------------------------------------


def test_settings_that_vary_are_axes_and_those_that_go_with_them_are_named() -> None:
    found = Parallel.make("m", sweep(12))
    assert [axis.key for axis in found.axes] == ["learning_rate", "lora.r", "eval_loss"]
    assert found.together == (("lora.r", ("lora.alpha",)),)
    assert found.strands[0].result == min(s.result for s in found.strands)
    assert found.goodness(found.strands[0]) == 1.0
    assert found.goodness(found.strands[-1]) == 0.0
    best = [v for v in sweep(12) if v.run == found.strands[0].run]
    assert found.strands[0].result == min(v.metrics["eval_loss"] for v in best)


def test_a_setting_that_some_runs_lack_is_a_word() -> None:
    versions = sweep(4, 2)
    half = [replace(v, config={"lora.r": 8} if v.run in ("r0", "r1") else {}) for v in versions]
    found = Parallel.make("m", half)
    assert found.axes[0].labels == (UNSET, "8")
    assert {row["lora.r"] for row in found.rows()} == {UNSET, "8"}


def test_one_run_or_no_difference_is_nothing_to_draw() -> None:
    for versions in (sweep(1, 5), [replace(v, config={}) for v in sweep(3)]):
        found = Parallel.make("m", versions)
        assert found.is_empty
        assert found.text(80) == found.finding == "No two runs with a metric differ in a setting."


# --- spectra --------------------------------------------------------------------------------------


def test_spectra_of_a_version_are_those_of_its_factors(shown: Repository) -> None:
    version = shown["lora@epoch-1"]
    table, found = version.lora_spectra(), version.spectra()
    assert table is not None
    assert found is not None
    assert {m.module: m.values for m in found.modules} == {
        m.module: m.spectrum.singular_values for m in table.modules if m.spectrum
    }
    assert [g.kind for g in found.groups] == ["q_proj", "v_proj"]
    ranks = {(r["layer"], r["module"]): r["value"] for r in found.ranks.rows() if r["module"]}
    known = {m.module: m.spectrum.effective_rank for m in table.modules if m.spectrum}
    assert ranks[2, "self_attn.v_proj"] == known["model.layers.2.self_attn.v_proj"]
    assert "of r=4" in found.finding
    assert shown["m@base"].spectra() is None


def test_both_sides_of_a_diff_have_a_line_for_each_kind(shown: Repository) -> None:
    found = shown.diff("lora@epoch-1", "lora@epoch-2").spectra()
    assert found is not None
    assert [(g.kind, g.side) for g in found.groups] == [
        ("q_proj", 0),
        ("q_proj", 1),
        ("v_proj", 0),
        ("v_proj", 1),
    ]
    assert shown.diff("m@base", "m@r0/epoch-1").spectra() is None


def test_an_adapter_that_is_zero_has_no_spectrum_to_draw() -> None:
    found = Spectra.make("m", ["m"], [Values("h.0.q", (0.0, 0.0), 2, 0.0)])
    assert found.is_empty
    assert found.finding == "Delta-W is zero."
    assert found.text(80) == "Delta-W is zero."
    assert not Spectra.make("m", ["m"], spectra(4)).is_empty


# --- lineage --------------------------------------------------------------------------------------


def test_each_run_has_a_lane_from_where_it_branched_off(shown: Repository) -> None:
    found = shown.lineage("m").graph()
    lanes = {spot.kin.name: (spot.lane, spot.depth) for spot in found.spots}
    assert lanes["base"] == (0, 0)
    assert [lanes[f"r0/epoch-{k}"] for k in (1, 2, 3)] == [(1, 1), (1, 2), (1, 3)]
    assert len(set(found.lanes)) == 4
    assert "3 of the lines come from base" in found.finding
    text = found.text(80)
    assert "●───●───★  production" in text
    assert WILD[:20] in text


def test_a_run_has_one_colour_on_a_page(shown: Repository) -> None:
    html = shown.versions("m").to_html()
    data = json.loads(html.split('id="data">')[1].split("</script>")[0])
    series = {s["name"]: s["color"] for s in data["charts"][0]["baseOption"]["series"]}
    (lineage,) = [c["series"][0] for c in data["charts"] if c.get("series", [{}])[0].get("type") == "graph"]
    dots = {d["tip"][2][1]: d["itemStyle"]["color"] for d in lineage["data"] if d["tip"][2][0] == "run"}
    assert len(dots) == 3
    assert {run: series[run] for run in dots} == dots


def test_branches_of_one_line_do_not_cross() -> None:
    kin = [Kin(str(k), f"v{k}", "r") for k in range(4)] + [Kin(f"b{k}", f"b{k}", f"b{k}") for k in range(4)]
    links = [Link(str(k), str(k + 1), "line") for k in range(3)]
    links += [Link(str(k), f"b{k}", "fork") for k in range(4)]
    found = LineageGraph.make("m", kin, links)
    lane = {spot.kin.id: spot.lane for spot in found.spots}
    # What branches off later is nearer: the others pass below it.
    assert lane["b3"] < lane["b2"] < lane["b1"] < lane["b0"]
    assert len({(s.lane, s.depth) for s in found.spots}) == len(found.spots)


def test_a_merge_stands_after_all_that_it_came_from() -> None:
    kin = [Kin(name, name) for name in ("a", "b", "c", "d", "m")]
    links = [Link("a", "b", "line"), Link("b", "c", "line"), Link("a", "d", "fork")]
    links += [Link("d", "m", "line"), Link("c", "m", "merge")]
    found = LineageGraph.make("m", kin, links)
    depth = {spot.kin.id: spot.depth for spot in found.spots}
    assert depth == {"a": 0, "b": 1, "c": 2, "d": 1, "m": 3}


def test_of_very_many_versions_the_newest_are_drawn() -> None:
    kin = [Kin(str(k), f"v{k}") for k in range(700)]
    found = LineageGraph.make("m", kin, [Link(str(k), str(k + 1), "line") for k in range(699)])
    assert len(found.spots) == 600
    assert found.notes == ("100 earlier versions not drawn.",)
    assert found.spots[0].depth == 0


_ANY = st.floats(allow_nan=True, allow_infinity=True) | st.sampled_from([5e-324, 1e-300, 1e308, -1e308, -0.0])


@settings(max_examples=150, deadline=None)
@example(told=[(1.5789042843043969e178, 0.0), (8.782946620226839e-131, 0.0)], way="min")
@given(st.lists(st.tuples(_ANY, _ANY), min_size=1, max_size=6), st.sampled_from(["min", "max"]))
def test_whatever_was_measured_and_set_can_be_drawn(told: list[tuple[float, float]], way: str) -> None:
    versions = [
        Seen(
            f"{k:04x}",
            f"v{k}",
            f"r{k % 3}",
            str(k % 3),
            float(k),
            k,
            "",
            {"loss": loss},
            {"lr": rate, "k": k},
        )
        for k, (loss, rate) in enumerate(told)
    ]
    for picture in (
        Curves.make("m", versions, primary="loss", direction=way),
        Parallel.make("m", versions, metric="loss", direction=way),
    ):
        for chart in charts_of(picture):
            json.dumps(chart.option, allow_nan=False)
        assert picture.text(60)


@pytest.mark.parametrize("scale", [1e-150, 1e-13, 1.0, 1e13, 1e150])
def test_an_axis_has_different_marks_at_any_scale(scale: float) -> None:
    marks = words.around(1.2 * scale, 3.1 * scale)
    assert marks == pytest.approx([scale * m for m in (1.0, 1.5, 2.0, 2.5, 3.0, 3.5)], rel=1e-9)


@pytest.mark.parametrize("values", [(0.0, 0.001, 1.0), (100.0, 0.5, 0.4)])
def test_versions_of_one_place_are_all_within_the_axis(values: tuple[float, ...]) -> None:
    """Saved by hand, without a run of their own: the line goes through one of them."""
    seen = [Seen(str(k), f"v{k}", epoch=float(max(1, k)), metrics={"acc": v}) for k, v in enumerate(values)]
    picture = Curves.make("m", seen, metrics=["acc"], direction="max", primary="acc")
    panel = picture.panels[0]
    assert panel.best is not None
    assert min(panel.values) <= panel.best[1].value <= max(panel.values)
    assert set(values) <= set(panel.values)
    assert "★" in picture.text(80)
