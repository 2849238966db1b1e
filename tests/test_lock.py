"""One run writes to an output folder; a second ends with a sentence that names the first."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from models.run import InputError, claim_output_dir, run_script, write_bytes
from models.run.process import lock

ROOT = Path(__file__).parent.parent
HOLD = """
import sys, time
from models.run import claim_output_dir
claim_output_dir(sys.argv[1], "demo_pipeline.py")
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture(autouse=True)
def released():
    yield
    lock.release_folders()


def test_a_second_run_names_the_first_until_that_has_ended(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path / "out"], cwd=ROOT, stdout=subprocess.PIPE
    ) as first:
        assert first.stdout.readline() == b"held\n"
        with pytest.raises(InputError) as told:
            claim_output_dir(tmp_path / "out", "x.py")
        for part in (f"demo_pipeline.py (process {first.pid}, since 20", str(tmp_path / "out")):
            assert part in str(told.value)
        claim_output_dir(tmp_path / "other", "x.py")
        first.kill()
    claim_output_dir(tmp_path / "out", "x.py")


def test_a_run_claims_its_folder_twice_and_leaves_no_lock(tmp_path):
    def main() -> None:
        for _ in range(2):
            claim_output_dir(tmp_path, "x.py")
        assert lock._held

    run_script(main)
    assert not list(tmp_path.iterdir()) and not lock._held


def test_unfinished_files_of_killed_runs_are_removed_and_no_others(tmp_path):
    (tmp_path / "frames" / "deep" / "deeper").mkdir(parents=True)
    kept = [tmp_path / "film.mp4.part", tmp_path / "frames" / "deep" / "deeper" / "a.1.part"]
    gone = [tmp_path / "model.pt.77.part", tmp_path / "frames" / "00001.png.4711.part"]
    for path in kept + gone:
        path.touch()
    claim_output_dir(tmp_path, "x.py")
    assert all(path.exists() for path in kept) and not any(path.exists() for path in gone)


@pytest.mark.parametrize("trouble", ["no locks", "link", "folder"])
def test_folders_without_locks_are_used_all_the_same(tmp_path, monkeypatch, trouble):
    out, outside = tmp_path / "out", tmp_path / "outside"
    out.mkdir()
    if trouble == "no locks":
        fcntl = pytest.importorskip("fcntl")

        def refuse(*_: object) -> None:
            raise OSError(errno.ENOLCK, "no locks available")

        monkeypatch.setattr(fcntl, "flock", refuse)
    elif trouble == "link":
        (out / ".lock").symlink_to(outside)
    else:
        (out / ".lock").mkdir()
    assert claim_output_dir(out, "x.py") == out
    assert not lock._held and not outside.exists()


def test_two_processes_write_under_two_temporary_names(tmp_path, monkeypatch):
    names = []
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda a, b: (names.append(Path(a).name), replace(a, b)))
    for process in (11, 12):
        monkeypatch.setattr(os, "getpid", lambda process=process: process)
        write_bytes(tmp_path / "file", b"x")
    assert names == ["file.11.part", "file.12.part"]
