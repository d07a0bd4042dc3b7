"""The benchmarks measure, and say what they have measured."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import psutil
import pytest

from benchmarks import growth, report
from benchmarks.__main__ import main
from benchmarks.goals import GOALS
from benchmarks.measures import MEASURES, Job, chosen
from benchmarks.payloads import PAYLOADS
from benchmarks.peers import LIMITS, NAMES, OURS, REFERENCE, peer
from benchmarks.processes import end_tree
from benchmarks.runner import CAN_PIN, ROOT, Figures, Outcome, Plan, TurnFailed, run, turn
from benchmarks.svg import count, plot, seconds
from benchmarks.timing import LEAST_TRIPS, microseconds, rate, trips

pytestmark = pytest.mark.slow

posix = pytest.mark.skipif(sys.platform == "win32", reason="the limit is a socket pair that is passed on")


def one_of_each() -> Outcome:
    """Every peer has 2 in every measure that it does, and twice as many microseconds in its 99 %."""
    outcome = Outcome(MEASURES)
    for measure in MEASURES:
        for name in NAMES:
            if peer(name).does(measure):
                outcome.figures.setdefault(measure.key, {})[name] = Figures([2.0], {"p99": [4.0]})
    return outcome


@posix
def test_the_smallest_round_has_a_figure_of_everybody() -> None:
    names = (OURS, REFERENCE, "raw socketpair")
    wanted = [measure for measure in MEASURES if measure.key in ("W1S", "W2S-1") and (CAN_PIN or not measure.one_core)]
    plan = Plan(wanted, names, rounds=1, seconds=0.02, children=1, patience=12.0)
    told: list[str] = []

    outcome = run(plan, told.append)

    document = json.loads(report.as_json(outcome, plan))
    assert document["missing"] == {}
    assert document["run"] == {"rounds": 1, "seconds": 0.02, "children": 1}
    assert [*document["measures"]] == [measure.key for measure in wanted]
    for measure in wanted:
        of_measure = document["measures"][measure.key]
        assert of_measure["unit"] == measure.unit
        assert of_measure["peers"].keys() == set(names)
        for figures in of_measure["peers"].values():
            assert len(figures["rounds"]) == 1
            assert figures["median"] == figures["rounds"][0] > 0
    if CAN_PIN:
        trip = document["measures"]["W2S-1"]["peers"][OURS]
        assert 1 < trip["median"] <= trip["p99"][0] < 1e6
    assert len(told) == len(wanted)
    *_, table = report.tables(outcome)
    assert sorted(row[0] for row in table.rows) == sorted(names)
    assert table.heading in [*report.text(outcome, plan)]


@posix
def test_a_turn_that_takes_too_long_is_ended() -> None:
    with pytest.raises(TurnFailed, match="no result in time"):
        turn(Job(REFERENCE, "W2", "S", False, 3600.0, 1), patience=0.5)


@posix
def test_a_turn_ends_with_its_runner(tmp_path: Path) -> None:
    job = Job(REFERENCE, "W2", "S", False, 3600.0, 1)
    command = [sys.executable, "-m", "benchmarks.pair", job.to_json(), str(tmp_path / "result.json")]
    pair = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, start_new_session=True)
    try:
        assert pair.stdin is not None
        pair.stdin.close()  # as when the runner is killed
        assert pair.wait(20) == -signal.SIGKILL
    finally:
        end_tree(pair)


def test_the_end_of_a_process_is_that_of_all_it_has_started() -> None:
    child = "import time; time.sleep(60)"
    program = f"""if True:
        import subprocess, sys, time
        print(subprocess.Popen([sys.executable, "-c", "{child}"], start_new_session=True).pid, flush=True)
        time.sleep(60)
    """
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        grandchild = psutil.Process(int(process.stdout.readline()))
        end_tree(process)
    _, left = psutil.wait_procs([grandchild], 5)
    assert not left


@posix
def test_what_a_peer_said_last_is_why_it_was_not_measured() -> None:
    with pytest.raises(TurnFailed, match="ValueError: there is no peer 'nobody'"):
        turn(Job("nobody", "W1", "S", False, 0.1, 1), patience=30)


def test_every_goal_is_about_something_that_is_measured() -> None:
    outcome = one_of_each()
    assert [goal.words for goal in GOALS if goal.figure(outcome) is None] == []
    assert {goal.words: goal.figure(Outcome(MEASURES)) for goal in GOALS} == {goal.words: None for goal in GOALS}


def test_a_goal_is_a_ratio_of_medians_and_knows_its_direction() -> None:
    outcome = one_of_each()
    outcome.figures["W1S"][OURS] = Figures([1.0, 9.0, 8.0])
    outcome.figures["W2S-1"][OURS] = Figures([3.0])
    faster, slower = (next(goal for goal in GOALS if goal.words.startswith(words)) for words in ("W1 S, host", "W2 S"))
    assert faster.figure(outcome) == 4.0
    assert faster.must is not None
    assert faster.met(4.0, faster.must)
    assert not faster.met(1.0, faster.must)
    assert slower.figure(outcome) == 1.5
    assert slower.must is not None
    assert not slower.met(1.5, slower.must)
    assert slower.met(0.5, slower.must)


def test_a_table_names_the_best_peer_without_us_and_without_limits() -> None:
    outcome = one_of_each()
    measured = outcome.figures["W1S"]
    measured[OURS], measured["zmq + msgspec"], measured[LIMITS[0]] = Figures([6.0]), Figures([3.0]), Figures([12.0])
    outcome.measures = [measure for measure in MEASURES if measure.key == "W1S"]
    *_, table = report.tables(outcome)
    assert table.columns[2:5] == ["x mp.Pipe", "x best peer (zmq + msgspec)", f"x limit ({LIMITS[0]})"]
    assert next(row for row in table.rows if row[0] == OURS)[2:5] == ["3.00", "2.00", "0.50"]
    assert f"| **{OURS}** | 6.00 [6.00 - 6.00] | 3.00 | 2.00 | 0.50 | - |" in [*table.markdown()]


def test_the_tables_exist_in_chinese_with_the_same_figures() -> None:
    outcome = one_of_each()
    outcome.missing["redis"] = "no redis-server"
    plan = Plan(MEASURES, NAMES, rounds=1, seconds=0.02, children=1)
    english, chinese = ([*report.markdown(outcome, plan, language)] for language in report.LANGUAGES)
    figures = re.compile(r"\d(?:[\d.]*\d)?")
    assert [figures.findall(line) for line in english] == [figures.findall(line) for line in chinese]
    assert "| `mp.Pipe` | 2.00 [2.00 - 2.00] | 1.00 | 1.00 | 1.00 | 4.00 [4.00 - 4.00] |" in chinese
    assert [line for line in chinese if line.startswith("#") and not re.search("[\u4e00-\u9fff]", line)] == []


def test_every_heading_of_the_pages_is_one_of_a_measure() -> None:
    for page, say in zip(("performance.md", "performance.zh-CN.md"), report.LANGUAGES.values(), strict=True):
        lines = (ROOT / "docs" / page).read_text("utf-8").splitlines()
        shown = [line.removeprefix("### ") for line in lines if line.startswith("### ")]
        measured = [report.heading(measure, say) for measure in MEASURES]
        assert shown == [say("What is to be reached"), *measured, say("Not measured")]
        goals = [line.split(" | ")[0].removeprefix("| ") for line in lines if line.count("|") == 7]
        assert {say(goal.words) for goal in GOALS} <= {*goals}


def test_every_measure_has_its_place_and_a_name() -> None:
    assert len({measure.key for measure in MEASURES}) == len(MEASURES)
    assert [measure.key for measure in chosen(["W2S", "idle"])] == ["W2S", "W2S-1", "idlehost"]
    assert [measure.key for measure in chosen(["W2bM-1"])] == ["W2bM-1"]
    assert all(peer(OURS).does(measure) for measure in MEASURES)
    assert main(["--only", "W9"]) == 2


def test_the_payloads_have_their_sizes() -> None:
    import msgspec

    sizes = {name: len(msgspec.msgpack.encode(value)) for name, value in PAYLOADS.items()}
    assert len(PAYLOADS["S"]) == 35
    assert 950 < sizes["M"] < 1150
    assert (len(PAYLOADS["L"]), len(PAYLOADS["XL"])) == (64 * 1024, 4 * 1024 * 1024)


def test_a_rate_is_of_one_long_go() -> None:
    goes: list[int] = []

    def work(count: int) -> float:
        goes.append(count)
        return count / 1000  # a thousand in a second

    assert rate(work, 10.0) == pytest.approx(1000)
    assert goes[-1] == 10_000
    assert sum(goes[:-1]) < 10_000


def test_trips_are_timed_one_by_one_and_the_warm_up_is_left_out() -> None:
    told: list[float] = []
    taken = iter([9.0] * LEAST_TRIPS + [0.5] * 1000)  # the first ones, of the warm-up, are slow

    def trip() -> None:
        told.append(next(taken))
        time.sleep(0.001)

    assert trips(trip, 0.01, told) == {"value": 500_000.0, "p99": 500_000.0}
    assert trips(trip, 0.01)["value"] >= 1000
    assert microseconds([1e-6 * number for number in range(100, 0, -1)]) == pytest.approx({"value": 51, "p99": 100})


def test_slopes_and_bends() -> None:
    points = [(1.0, 1.0), (10.0, 10.0), (100.0, 10.0), (1000.0, 1000.0)]
    assert [*growth.slopes(points)] == pytest.approx([1.0, 0.0, 2.0])
    (bend,) = [line for line in growth._words(growth.CURVES[0], {"all": points}) if "BEND" in line]
    assert bend.strip() == "BEND: from 100 to 1k it costs 10.0 times what is linear"


def test_a_plot_has_a_line_for_each_series_inside_its_field() -> None:
    text = plot("Keys & values", "keys", {"set": [(1e2, 1e-3), (64 * 2**20, 2.0)], "get": [(1e2, 8e-8)]})
    root = ElementTree.fromstring(text)
    name = "{http://www.w3.org/2000/svg}"
    lines = root.findall(f"{name}polyline")
    assert [line.get("class") for line in lines] == ["s0", "s1"]
    spots = [tuple(map(float, spot.split(","))) for line in lines for spot in (line.get("points") or "").split()]
    assert len(spots) == 3
    assert all(0 < x < 720 and 0 < y < 420 for x, y in spots)
    assert spots[1][0] > spots[0][0]
    assert spots[1][1] < spots[0][1]
    assert "prefers-color-scheme: dark" in text
    assert [count(value) for value in (200, 10_000, 10**7, 64 * 2**20)] == ["200", "10k", "10M", "64Mi"]
    assert [seconds(value) for value in (2.0, 0.1, 1e-6, 8e-8)] == ["2 s", "100 ms", "1 µs", "80 ns"]
