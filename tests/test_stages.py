"""A stage is used again only where nothing that it was made from has changed; training goes on
where it stopped."""

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import pytest
import torch
from clips import Said

from models.depth.options import DepthOptions
from models.field.color_field import ColorField
from models.field.hash_grid import HashGrid
from models.pipeline import WorldSpaceTrianglePipeline
from models.run.errors import InputError, NumericalError
from models.run.files import make_subfolder, replace_file, write_bytes, write_json, write_tensors
from models.run.fingerprint import fingerprint, hash_content, hash_fingerprint
from models.run.process.ranks import Ranks
from models.run.progress import Progress
from models.run.settings import Plain, flatten_settings
from models.run.stages import Origin, Stages
from models.tools import TrainingPixels
from models.training.checkpoints import Checkpoint
from models.training.loop import LayerTraining, train
from models.training.options import Schedule, TrainingOptions

SCRIPT = Path(__file__)


@dataclass(frozen=True)
class Nested:
    """Settings as the scripts have them."""

    learned: Annotated[DepthOptions, Plain()]
    output_dir: Path | None = None


class Worker:
    """Counts how often the work of a stage is done, and what is said."""

    def __init__(self, folder: Path):
        self.folder, self.count, self.said = folder, 0, []

    def work(self) -> dict:
        self.count += 1
        write_bytes(self.folder / "out.bin", b"result")
        (self.folder / "out").mkdir(exist_ok=True)
        write_bytes(self.folder / "out" / "0.png", b"picture")
        return {"figure": 1.5}

    def run(self, made_from: dict[str, str]) -> dict:
        self.said.clear()
        return Stages(self.folder, progress=Said(self.said)).run(
            "work", made_from, ("out.bin", "out", "absent"), self.work
        )


@pytest.fixture
def worker(tmp_path: Path) -> Worker:
    (tmp_path / "results").mkdir()
    return Worker(tmp_path / "results")


def test_a_stage_is_used_again_where_nothing_has_changed(worker, tmp_path):
    (tmp_path / "in").write_text("clip")
    made_from = fingerprint(SCRIPT, {"spacing": 8}, {"clip": tmp_path / "in", "masks": None})
    first = worker.run(made_from)
    (tmp_path / "in").touch()
    assert (
        worker.run(fingerprint(SCRIPT, {"spacing": 8}, {"clip": tmp_path / "in", "masks": None}))
        == first
    )
    assert worker.count == 1
    assert "reused" in worker.said[0]


class FakeMeter:
    """A stage that takes 20 s."""

    seconds, peak_gib = 20.0, None

    def __enter__(self) -> "FakeMeter":
        return self

    def __exit__(self, *_: object) -> None:
        pass


def test_the_time_left_follows_from_the_stages_done(tmp_path, monkeypatch):
    monkeypatch.setattr("models.run.stages.Meter", FakeMeter)
    said = []
    stages = Stages(tmp_path, progress=Said(said))
    stages.run("before", {}, (), dict)
    stages.expect({"first": 1, "second": 3, "third": 8})
    for name in ("first", "inner", "second", "third"):
        stages.run(name, {}, (), dict)
    # 220 s left after 20 s for 1 of 12 parts; 80 s after 40 s for 4 of 12
    assert said == ["about 4 minutes left", "about 80 s left"]
    said.clear()
    again = Stages(tmp_path, progress=Said(said))
    again.expect({"first": 1, "second": 3, "third": 8})
    again.run("first", {}, (), dict)
    assert "reused" in said[0] and len(said) == 1


def test_settings_within_settings_are_noticed_and_some_do_not_matter(worker):
    for options in (DepthOptions(), DepthOptions(depth_path=Path("maps"))):
        worker.run(fingerprint(SCRIPT, flatten_settings(Nested(options)), {}))
    assert worker.count == 2 and worker.said == ["work: done again, as --depth_path has changed"]
    options = DepthOptions(depth_path=Path("maps"), allow_download=True)
    worker.run(fingerprint(SCRIPT, flatten_settings(Nested(options, output_dir=Path("x"))), {}))
    assert worker.count == 2


def test_changed_inputs_and_settings_are_noticed_named_and_done_again(worker, tmp_path):
    (tmp_path / "in").write_text("clip")
    worker.run(fingerprint(SCRIPT, {"spacing": 8}, {"clip": tmp_path / "in"}))
    worker.run(fingerprint(SCRIPT, {"spacing": 6}, {"clip": tmp_path / "in"}))
    assert worker.count == 2 and "--spacing" in worker.said[0] and "clip" not in worker.said[0]
    (tmp_path / "in").write_text("clap")
    worker.run(fingerprint(SCRIPT, {"spacing": 6}, {"clip": tmp_path / "in"}))
    assert worker.count == 3 and "clip" in worker.said[0]
    other = tmp_path / "other.py"
    other.write_text("changed")
    worker.run(fingerprint(other, {"spacing": 6}, {"clip": tmp_path / "in"}))
    assert worker.count == 4 and "program" in worker.said[0]


@pytest.mark.parametrize(
    "damage", ["change", "remove", "remove one of a folder", "add one to a folder"]
)
def test_results_that_were_changed_or_removed_are_made_again(worker, damage):
    worker.run({})
    if damage == "change":
        (worker.folder / "out.bin").write_bytes(b"half")
    elif damage == "remove":
        (worker.folder / "out.bin").unlink()
    elif damage == "remove one of a folder":
        (worker.folder / "out" / "0.png").unlink()
    else:
        (worker.folder / "out" / "1.png").write_bytes(b"more")
    worker.run({})
    assert worker.count == 2 and "out" in worker.said[0]


def stages_of(folder: Path, settings: object = None) -> Stages:
    """The stages of a folder for this file as the script."""
    return Stages(folder, Origin(SCRIPT, settings or Nested(DepthOptions())))


NONSENSE = [
    "",
    "[]",
    "{",
    '{"stages": 3}',
    '{"stages": {"work": 3}}',
    '{"stages": {"work": {"results": 3}}}',
    "\0",
]
NONSENSE += [
    "[" * 100_000,
    '{"stages": {"work": {"results": {}, "made_from": {}, "outputs": {"../x": ""}}}}',
]


@pytest.mark.parametrize("text", NONSENSE)
def test_a_table_of_stages_that_makes_no_sense_is_not_used(worker, text):
    (worker.folder / "stages.json").write_text(text)
    assert worker.run({"a": "b"}) == {"figure": 1.5}
    assert worker.count == 1


def test_values_on_the_way_come_back_to_the_bit_and_go_when_they_have_served(tmp_path):
    random = np.random.default_rng(0)
    given = {
        "a": random.standard_normal((3, 4)),
        "seen": random.random(5) > 0.5,
        "error": 0.1,
        "method": "global",
    }
    values = stages_of(tmp_path).step("step", lambda: given)
    stages = stages_of(tmp_path)
    again = stages.step("step", lambda: pytest.fail())
    for found in (values, again):
        assert all(np.array_equal(found[key], given[key]) for key in given)
        assert found["a"].dtype == np.float64 and found["seen"].dtype == bool
    stages.drop_values()
    assert not any(tmp_path.iterdir())


def test_a_refused_input_leaves_no_values_behind_but_a_stopped_run_does(tmp_path):
    def stop() -> dict:
        raise KeyboardInterrupt

    def refuse() -> dict:
        raise InputError("no")

    for work, left in ((stop, True), (refuse, False)):
        stages = stages_of(tmp_path)
        stages.step("first", lambda: {"a": 1})
        with pytest.raises((KeyboardInterrupt, InputError)):
            stages.run("second", {}, (), work)
        assert any(tmp_path.iterdir()) == left


def test_the_content_of_a_folder_is_that_of_its_names_and_files(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "0.png").write_text("x")
    assert hash_content(tmp_path / "a") == hash_content(tmp_path / "b")
    (tmp_path / "b" / "0.png").rename(tmp_path / "b" / "1.png")
    assert hash_content(tmp_path / "a") != hash_content(tmp_path / "b")
    assert hash_content(None) == hash_content(tmp_path / "absent") == "none"
    assert (
        hash_fingerprint({"a": "1", "b": "2"})
        == hash_fingerprint({"b": "2", "a": "1"})
        != hash_fingerprint({"a": "1", "b": "3"})
    )


def test_a_file_being_written_is_never_seen_and_a_failure_leaves_the_old_one(tmp_path):
    path = tmp_path / "file"
    write_bytes(path, b"old")
    with pytest.raises(ZeroDivisionError), replace_file(path) as temporary:
        temporary.write_bytes(b"half")
        assert path.read_bytes() == b"old"
        1 / 0  # noqa: B018
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]
    with pytest.raises(InputError, match="absent"):
        write_bytes(tmp_path / "absent" / "file", b"")


def test_writing_does_not_follow_links_out_of_the_folder(tmp_path):
    outside, inside = tmp_path / "outside", tmp_path / "inside"
    outside.mkdir(), inside.mkdir()
    (outside / "file").write_text("mine")
    for name in ("file", "file.part"):
        (inside / name).symlink_to(outside / "file")
    write_bytes(inside / "file", b"new")
    assert (outside / "file").read_text() == "mine" and (inside / "file").read_bytes() == b"new"
    (inside / "masks").symlink_to(outside)
    with pytest.raises(InputError, match="link"):
        make_subfolder(inside, "masks")


def test_json_holds_null_for_what_is_not_finite(tmp_path):
    write_json(tmp_path / "x.json", {"a": [float("nan"), 1.0, (float("inf"),)], "b": {"c": "d"}})
    assert json.loads((tmp_path / "x.json").read_text()) == {
        "a": [None, 1.0, [None]],
        "b": {"c": "d"},
    }


# Training that is interrupted.

SIDE = 40
SCHEDULE = Schedule(num_epochs=40, batch_size=1 << 10)


def wall(colors: np.ndarray | None = None) -> tuple[TrainingPixels, np.ndarray]:
    """Pixels of one camera before a wall of two triangles."""
    positions = np.array([[-2, -2, 1], [2, -2, 1], [2, 2, 1], [-2, 2, 1]], np.float32)
    rows, columns = np.divmod(np.arange(SIDE**2), SIDE)
    pixels = TrainingPixels(
        frame=np.zeros(SIDE**2, np.int32),
        pixel=np.arange(SIDE**2, dtype=np.int32),
        vertices=np.array([[0, 1, 2], [0, 2, 3]], np.int32),
        face=(rows > columns).astype(np.int32),
        trust=np.ones(2, np.float32),
        rgb=(np.random.default_rng(1).random((SIDE**2, 3)) if colors is None else colors).astype(
            np.float16
        ),
        inverse_K=np.linalg.inv(
            np.array([[[SIDE, 0, SIDE / 2], [0, SIDE, SIDE / 2], [0, 0, 1.0]]])
        ),
        world_from_cam=np.eye(4)[None],
        width=SIDE,
    )
    return pixels, positions


class Stop(Progress):
    """Interrupts training after a share of it."""

    def __init__(self, share: float):
        self.share = share

    def step(self, stage: str, done: int, total: int, note: str = "") -> None:
        if done / total > self.share:
            raise KeyboardInterrupt


class Training:
    """A run of training that can be stopped."""

    def __init__(
        self, folder: Path, schedule: Schedule = SCHEDULE, checkpoint_seconds: float = 60.0
    ):
        self.checkpoint_seconds = checkpoint_seconds
        self.folder, self.schedule, self.said = folder, schedule, []

    @staticmethod
    def score(field: ColorField) -> float:
        return float(field.grid.tables.detach().abs().mean())

    def run(
        self, stop_at: float = 2.0, made_from: str = "this", pixels: TrainingPixels | None = None
    ):
        """Trains two layers one after the other with one random generator; returns weights and
        history."""

        random, weights, histories = np.random.default_rng(3), [], []
        checkpoint = Checkpoint(self.folder / "checkpoint.pt", made_from, Said(self.said))
        own, positions = wall()
        for layer_number, name in enumerate(("background", "movers")):
            generator = torch.Generator().manual_seed(0)
            field = ColorField(
                HashGrid(levels=4, log2_entries=10, finest_resolution=64, generator=generator),
                generator=generator,
            )
            renderer = WorldSpaceTrianglePipeline(field, torch.eye(4))
            score = partial(self.score, field) if name == "background" else None
            layer = LayerTraining(renderer, pixels or own, positions, name, score)
            stop = Stop(stop_at - layer_number)
            options = TrainingOptions(checkpoint_seconds=self.checkpoint_seconds)
            history = train(layer, self.schedule, random, checkpoint, stop, options)
            histories.append(history)
            weights += [parameter.detach().clone() for parameter in field.parameters()]
        weights.append(torch.from_numpy(positions))
        return weights, histories


@pytest.mark.parametrize("stops", [(0.4,), (0.31, 0.72), (1.2,), (0.5, 0.9, 1.3, 1.8)])
def test_training_that_was_interrupted_gives_the_same_model_to_the_bit(tmp_path, stops):
    (tmp_path / "whole").mkdir(), (tmp_path / "parts").mkdir()
    whole, histories = Training(tmp_path / "whole").run()
    training = Training(tmp_path / "parts", checkpoint_seconds=0.003)
    for stop in stops:
        with pytest.raises(KeyboardInterrupt):
            training.run(stop)
    parts, again = training.run()
    assert any("goes on from step" in line for line in training.said)
    assert all(torch.equal(a, b) for a, b in zip(whole, parts, strict=True))
    for a, b in zip(histories, again, strict=True):
        assert (a.steps, a.psnr, a.samples) == (b.steps, b.psnr, b.samples)
        assert (a.heldout_steps, a.heldout_psnr) == (b.heldout_steps, b.heldout_psnr)
    assert [len(history.heldout_steps) for history in again] == [5, 0]


def test_a_checkpoint_of_something_else_or_damaged_is_not_used(tmp_path):
    training = Training(tmp_path)
    first, _ = training.run()
    path = tmp_path / "checkpoint.pt"
    training.run(made_from="another")
    assert "other inputs or settings" in training.said[-1]
    path.write_bytes(path.read_bytes()[:1000])
    again, _ = training.run()
    assert "cannot be read" in training.said[-1]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


class SteadyClock:
    """Seconds that pass by a hundredth at each look at the clock, on any machine."""

    def __init__(self):
        self.seconds = 0.0

    def perf_counter(self) -> float:
        self.seconds += 0.01
        return self.seconds


def test_training_by_the_clock_goes_on_from_the_seconds_it_had(tmp_path, monkeypatch):
    monkeypatch.setattr("models.training.loop.time", SteadyClock())
    schedule = Schedule(train_seconds=2.0, batch_size=1 << 10)
    training = Training(tmp_path, schedule, checkpoint_seconds=0.003)
    with pytest.raises(KeyboardInterrupt):
        training.run(stop_at=0.6)
    saved = torch.load(tmp_path / "checkpoint.pt", weights_only=True)["layers"]["background"]
    assert 0 < saved["seconds"] < 2.0
    _, histories = training.run()
    assert histories[0].samples > saved["step"] * (1 << 10)
    (tmp_path / "whole").mkdir()
    _, whole = Training(tmp_path / "whole", training.schedule).run()
    assert histories[0].samples < 1.2 * whole[0].samples, "the seconds count once"


def test_bad_values_stop_training_by_name_and_leave_the_last_good_checkpoint(tmp_path):
    training = Training(tmp_path, checkpoint_seconds=0.0)
    with pytest.raises(KeyboardInterrupt):
        training.run(0.5)
    colors = np.random.default_rng(1).random((SIDE**2, 3))
    colors[7] = np.nan
    with pytest.raises(NumericalError, match=r"step \d+: the loss is nan, the colours"):
        training.run(pixels=wall(colors)[0])
    saved = torch.load(tmp_path / "checkpoint.pt", weights_only=True)["layers"]["background"]
    assert all(value.isfinite().all() for value in saved["field"].values())


def test_a_checkpoint_keeps_what_is_done_and_not_what_goes_on(tmp_path):
    """States are as large as all that is trained: one that is written, or taken up, is not held as
    well."""
    checkpoint = Checkpoint(tmp_path / "checkpoint.pt", "this")
    states = {
        name: {"done": name == "first", "value": torch.arange(3)} for name in ("first", "second")
    }
    for name, state in states.items():
        checkpoint.save(name, state)
    assert list(checkpoint.layers) == ["first"]
    again = Checkpoint(tmp_path / "checkpoint.pt", "this")
    for name, state in states.items():
        assert torch.equal(again.load(name)["value"], state["value"])
    assert list(again.layers) == ["first"]
    again.save("second", {"done": True})
    assert list(Checkpoint(tmp_path / "checkpoint.pt", "this").layers) == ["first", "second"]


def test_a_rank_goes_on_from_its_own_state_of_the_step_of_rank_0(tmp_path):
    path = tmp_path / "checkpoint.pt"
    ranks = [Ranks(number, 3) for number in range(3)]
    for rank, step in zip(ranks, (6, 6, 3), strict=True):
        state = {"done": False, "step": step, "of": rank.number}
        Checkpoint(path, "this", ranks=rank).save("background", state)
    found = [Checkpoint(path, "this", ranks=rank).load("background")["of"] for rank in ranks]
    assert found == [0, 1, 0], "the state of rank 2 is of an earlier step"
    Checkpoint(path, "this").save("background", {"done": True, "step": 6, "of": 0})
    assert Checkpoint(path, "this", ranks=ranks[1]).load("background")["done"]
    Checkpoint(path, "this").remove()
    assert not list(tmp_path.iterdir())


def test_writing_tensors_to_a_full_disk_names_it(tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    write_tensors(tmp_path / "x.pt", {"a": torch.zeros(3)})
    monkeypatch.setattr("models.run.files.os.fsync", full)
    with pytest.raises(InputError, match=r"x.pt.*No space left"):
        write_tensors(tmp_path / "x.pt", {"a": torch.ones(3)})
    monkeypatch.undo()
    assert torch.load(tmp_path / "x.pt", weights_only=True)["a"].sum() == 0
    assert len(list(tmp_path.iterdir())) == 1
