"""Places that cannot be written, streams that nobody reads, variables that mislead, names that are no
UTF-8."""

import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from numba.core.caching import NullCache
from numba.core.dispatcher import Dispatcher

from models.clip import read_video, write_images, write_video
from models.clip.decoding import find_ffmpeg
from models.run import InputError, load_tensors, njit, run_script, write_json, write_tensors
from models.run.process import kernels
from models.run.process.streams import make_unbreakable
from models.run.reading import read_json

ROOT = Path(__file__).parent.parent
posix = pytest.mark.skipif(os.name == "nt", reason="names and streams of POSIX")


def test_kernels_are_compiled_where_no_cache_can_be_written(monkeypatch, capsys):
    def refuse(_: Dispatcher) -> None:
        raise RuntimeError("cannot cache function: no locator available")

    monkeypatch.setattr(Dispatcher, "enable_caching", refuse)
    monkeypatch.setattr(kernels, "_uncached", [])

    @njit(cache=True, nogil=True)
    def double(value: float) -> float:
        return 2 * value

    assert double(4.0) == 8.0 and isinstance(double._cache, NullCache)
    run_script(lambda: None)
    told = capsys.readouterr().out
    assert told.count("\n") == 1 and "NUMBA_CACHE_DIR" in told
    monkeypatch.undo()
    run_script(lambda: None)
    assert not capsys.readouterr().out


@posix
def test_a_reader_that_has_gone_is_not_missed():
    reads, writes = os.pipe()
    own = io.TextIOWrapper(io.BufferedWriter(io.FileIO(writes, "w")), "utf-8")
    stream = make_unbreakable(own)
    print("heard \udce9", file=stream, flush=True)
    assert os.read(reads, 99) == b"heard \\udce9\n"
    os.close(reads)
    for _ in range(3):
        print("unheard", file=stream, flush=True)


@posix
@pytest.mark.parametrize("closing", [">&- 2>&-", "<&- >&-", "2>&-"])
def test_closed_streams_are_not_taken_by_files(tmp_path, closing):
    program = "import sys, models; models.prepare_script(); print('a'); print('b', file=sys.stderr)"
    program += f"; file = open({str(tmp_path / 'file')!r}, 'w'); assert file.fileno() > 2"
    command = f'exec "{sys.executable}" -c "$0" {closing}'
    assert subprocess.run(["sh", "-c", command, program], cwd=ROOT, check=False).returncode == 0


@pytest.mark.parametrize("named", ["absent/ffmpeg", "folder", "other"])
def test_a_variable_that_names_no_ffmpeg_is_named(tmp_path, monkeypatch, named):
    write_images(tmp_path / "in", np.zeros((2, 20, 40, 3), np.uint8), range(2))
    (tmp_path / "folder").mkdir()
    (tmp_path / "other").symlink_to(sys.executable)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(tmp_path / named))
    with pytest.raises(InputError, match="IMAGEIO_FFMPEG_EXE") as told:
        read_video(tmp_path / "in")
    assert str(tmp_path / named) in str(told.value)
    monkeypatch.delenv("IMAGEIO_FFMPEG_EXE")
    assert Path(find_ffmpeg()).is_file()


@posix
def test_names_that_are_no_utf8_are_read_and_written(tmp_path):
    folder = tmp_path / os.fsdecode(b"\xfcber \xa4")
    folder.mkdir()
    write_json(folder / "x.json", {"path": str(folder)})
    assert read_json(folder / "x.json", "table") == {"path": str(folder)}
    write_tensors(folder / "x.pt", {"path": str(folder), "values": torch.arange(5)})
    for mapped in (False, True):
        content = load_tensors(folder / "x.pt", mapped=mapped)
        assert content["path"] == str(folder) and content["values"].sum() == 10
    frames = np.random.default_rng(0).integers(0, 255, (3, 32, 48, 3), np.uint8)
    write_images(folder / "frames", frames, range(3))
    (folder / "frames" / "00002.png").rename(folder / "frames" / os.fsdecode(b"\xff00002.png"))
    np.testing.assert_array_equal(read_video(folder / "frames").frames, frames)
    write_video(folder / os.fsdecode(b"film\xe9.mp4"), frames, 25)
    assert len(read_video(folder / os.fsdecode(b"film\xe9.mp4")).frames) == 3
