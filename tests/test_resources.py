"""Memory stays within what is allowed, frames that do not fit are kept in a file, a full disk is
named."""

import os
import shutil
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from clips import Said
from forks import ask, fork_server

from models.clip.frame_store import FrameStore
from models.clip.images import write_images
from models.clip.video import read_video
from models.run.errors import InputError
from models.run.memory import (
    GIB,
    MemoryLimitError,
    Meter,
    bound_memory,
    find_machine_memory,
    find_memory_limit,
    measure_held_memory,
    return_freed,
    warn_of_need,
    watch_memory,
)
from models.synthetic.sample import RoomOptions, render_room

linux = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="read from /proc")


@pytest.mark.parametrize("limit", [None, 10_000, 1])
def test_frames_in_a_file_are_those_in_memory(tmp_path, limit):
    frames = np.random.default_rng(0).integers(0, 255, (9, 20, 30, 3), np.uint8)
    store = FrameStore(limit)
    for frame in frames:
        store.add(frame)
    np.testing.assert_array_equal(store.array(), frames)
    write_images(tmp_path, frames, range(9))
    memory = None if limit is None else 4 * limit
    np.testing.assert_array_equal(read_video(tmp_path, memory=memory).frames, frames)
    np.testing.assert_array_equal(
        read_video(tmp_path, memory=memory, keep=[1, 7, 8]).frames, frames[[1, 7, 8]]
    )


@linux
def test_the_peak_of_a_block_is_its_own():
    with Meter() as large:
        block = np.ones(40_000_000)
        del block
    with Meter() as small:
        time.sleep(0.01)
    assert large.peak_gib > small.peak_gib + 0.2
    assert small.seconds >= 0.01


@linux
def test_arrays_of_frames_that_a_dropped_error_holds_are_given_back():
    def fail():
        error = ValueError()
        try:
            raise error
        except ValueError as caught:
            assert (
                caught.__traceback__
            )  # of this frame, which holds the error: a cycle, as numba leaves

    def caller():
        block = np.ones(20_000_000)
        fail()
        return block[0]

    return_freed()
    before = measure_held_memory()
    caller()
    return_freed()
    assert measure_held_memory() - before < 50_000_000


@linux
def test_a_block_that_takes_too_much_is_ended_and_another_is_left_alone():
    kept = []
    watched = partial(watch_memory, seconds=0.02)
    with pytest.raises(MemoryLimitError, match="GiB"), watched(measure_held_memory() + 50_000_000):
        for _ in range(200):
            kept.append(np.ones(2_000_000))
            time.sleep(0.05)
    assert len(kept) < 100
    kept.clear()
    with watched(measure_held_memory() + 500_000_000), watched(None):
        time.sleep(0.1)
    with pytest.raises(KeyboardInterrupt), watched(measure_held_memory() + 500_000_000):
        raise KeyboardInterrupt


@linux
def test_decoders_cannot_take_more_than_they_are_given():
    with pytest.raises(MemoryError), bound_memory(100_000_000):
        bytearray(300_000_000)
    assert len(bytearray(300_000_000)) == 300_000_000


def test_the_limit_is_what_is_asked_for_or_most_of_the_machine():
    assert find_memory_limit(2.5) == int(2.5 * GIB)
    total = find_machine_memory()
    assert (
        find_memory_limit(None) is None
        if total is None
        else 0.5 * total < find_memory_limit(None) < total
    )
    for wrong in (0, -1, float("nan"), float("inf")):
        with pytest.raises(InputError, match="max_memory"):
            find_memory_limit(wrong)


def test_a_run_that_will_not_fit_is_warned_of():
    progress = Said()
    said = progress.sentences
    warn_of_need(3 * GIB, 2 * GIB, progress)
    assert len(said) == 1 and "3.0 GiB" in said[0] and "--max_size" in said[0]
    warn_of_need(GIB, 2 * GIB, progress)
    warn_of_need(GIB, None, progress)
    assert len(said) == 1


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="runs scripts in forks")
def test_scripts_end_with_a_sentence_where_memory_or_disk_run_out_and_go_on_later(tmp_path):
    frames = render_room(RoomOptions(8, 161, 97, num_movers=0, num_tracks=0)).frames
    write_images(tmp_path / "in", frames, range(8))
    background = {"video_path": "in", "output_dir": "out"}
    demo = {"background_path": "out/background_points.pt", "output_dir": "d", "num_epochs": 1}
    with fork_server() as server:
        small = ask(server, "background", {**background, "max_memory": 0.05}, tmp_path)
        assert (
            small["code"] == 2
            and "not enough memory" in small["log"]
            and "Traceback" not in small["log"]
        )
        assert "warning: this run needs about" in small["log"]
        assert ask(server, "background", background, tmp_path)["code"] == 0
        before = (tmp_path / "out" / "background_points.pt").read_bytes()
        full = ask(server, "demo", demo, tmp_path, largest_file=30_000)
        assert full["code"] == 2 and "Traceback" not in full["log"]
        assert "cannot be written" in full["log"] or "the disk is full" in full["log"]
        assert (tmp_path / "out" / "background_points.pt").read_bytes() == before
        assert not list(tmp_path.rglob("*.part"))
        assert ask(server, "demo", demo, tmp_path)["code"] == 0
        shutil.copytree(tmp_path / "d", tmp_path / "whole")
        again = ask(server, "demo", {**demo, "trajectory": "orbit"}, tmp_path, largest_file=1000)
        assert again["code"] == 2
    for name in ("model.pt", "reconstruction.mp4", "novel_view_spiral.mp4"):
        assert (tmp_path / "d" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert torch.load(tmp_path / "d" / "model.pt", weights_only=True)
