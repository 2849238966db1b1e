"""benchmarks/stages.py: costs of stages, watched from outside."""

import sys
from pathlib import Path

import pytest

from benchmarks.stage_costs import Cost, measure_script
from benchmarks.stages import Clip, check_out, describe, list_rows, sum_costs
from models.run import InputError

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").is_file(), reason="reads /proc")

SCRIPT = """
import json, sys, time

def work(seconds):
    start = time.process_time()
    while time.process_time() - start < seconds:
        pass

def finish(*names):
    with open("out/stages.json", "w") as file:
        json.dump({"stages": {name: {} for name in names}}, file)

for bar in ("matching", "drawing pictures"):
    print(f"\\r{bar}:  10%|#  | 1/10 [00:00<00:01]", end="", file=sys.stderr, flush=True)
    work(0.6)
finish("first")
work(0.5)
finish("first", "second")
time.sleep(0.4)
"""


def test_costs_go_to_the_stage_that_ends_next_and_to_the_bar_shown(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "script.py").write_text(SCRIPT)
    costs = measure_script([sys.executable, "script.py"], tmp_path / "out", tmp_path)
    found = {key: cost.cpu for key, cost in costs.items()}
    for key, most in ((("first", "matching"), 1.1), (("first", "drawing pictures"), 1.1)):
        assert 0.2 < found[key] < most
    assert sum(cpu for (stage, _), cpu in found.items() if stage == "second") > 0.2
    assert 1.5 < sum_costs({"script": costs}).cpu < 4


def test_a_script_that_fails_is_named(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "script.py").write_text("raise SystemExit(3)")
    with pytest.raises(InputError, match=r"script\.py.* code 3"):
        measure_script([sys.executable, "script.py"], tmp_path / "out", tmp_path)


def test_the_table_holds_all_costs_and_ratios():
    costs = {"a": {("x", ""): Cost(4.0, 5.0, 1.0), ("y", "bar"): Cost(0.001, 0.1, 2.0)}}
    rows = list_rows(costs)
    assert ("a", "(small ones)", "") in rows and ("a", "x", "") in rows
    assert sum(cost.cpu for cost in rows.values()) == pytest.approx(4.001)
    other = {"a": {("x", ""): Cost(8.0, 10.0, 1.0)}}
    text = describe(Clip("clip", Path(), None, 2.0), costs, other)
    ratio = text.split("ratio:")[1]
    assert "0.50" in ratio and "2.00" in ratio


def test_a_commit_that_git_does_not_know_is_refused():
    with pytest.raises(InputError, match="no-such-commit"), check_out("no-such-commit"):
        pass
