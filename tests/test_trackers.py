"""Trackers by name: the adapters of learned ones on stand-ins for their code, and what is refused.

The stand-ins have the calls and shapes of the real code; they read a clip's motion from its pixels
(red and green hold the pan so far), so that an adapter's answers can be compared with the truth.
"""

import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from pans import panned, panning, queries_over

import models
from models.learned.registry import DEPTH_MODELS, LEARNED, MASK_MODELS
from models.learned.tapir import open_tapir
from models.run.errors import InputError
from models.tracking.growing import track_points
from models.tracking.lucas_kanade import lucas_kanade
from models.tracking.names import TRACKERS, open_tracker

COTRACKER = """
import torch

received = []

class CoTrackerOnlinePredictor(torch.nn.Module):
    def __init__(self, checkpoint="a default that does not exist", window_len=16):
        super().__init__()
        assert checkpoint is None
        self.model, self.step = torch.nn.Linear(2, 2), window_len // 2

    def forward(self, video_chunk, is_first_step=False, queries=None, add_support_grid=False):
        assert video_chunk.dtype == torch.float32 and video_chunk.shape[:3:2] == (1, 3) and add_support_grid
        if is_first_step:
            self.queries, self.pan, self.seen = queries[0], torch.zeros(0, 2), 0
            received.append(self.queries.numpy())
            return None, None
        assert 0 < video_chunk.shape[1] <= 2 * self.step
        new = video_chunk[0, :, :2, 0, 0]
        self.pan = torch.cat([self.pan[: self.seen], new])
        self.seen += self.step
        start = self.queries[:, 0].long()
        known = start.clamp(max=len(self.pan) - 1)
        xy = self.queries[:, 1:] + self.pan[:, None] - self.pan[known]
        begun = torch.arange(len(xy))[:, None] >= start
        xy[~begun] = -99
        return xy[None], begun[None]
"""

TAPIR = """
from typing import NamedTuple
import torch

class QueryFeatures(NamedTuple):
    lowres: tuple
    hires: tuple
    resolutions: tuple

class TAPIR(torch.nn.Module):
    num_pips_iter = 2

    def __init__(self, pyramid_level, use_casual_conv):
        super().__init__()
        assert pyramid_level == 1 and use_casual_conv
        self.weights = torch.nn.Linear(2, 2)

    def get_feature_grids(self, video, is_training):
        assert video.shape[0] == 1 and video.shape[4] == 3 and video.abs().max() <= 1
        side = video.shape[2]
        return (video[0, :, 0, 0, :2] + 1) / 2 * 255 * torch.tensor([side / 40, side / 32])

    def get_query_features(self, video, is_training, query_points, feature_grids):
        assert video.shape[1] == 1 and (query_points[..., 0] == 0).all()
        here = query_points.flip(-1)[..., :2] - feature_grids
        return QueryFeatures((here,), (here,), ((256, 256), (512, 512)))

    def construct_initial_causal_state(self, num_points, num_resolutions=1):
        return [{"frames": torch.zeros(1, num_points)}] * num_resolutions * self.num_pips_iter

    def estimate_trajectories(self, video_size, is_training, feature_grids, query_features, query_points_in_video,
                              query_chunk_size, causal_context, get_causal_context):
        assert query_points_in_video is None and get_causal_context
        xy = (query_features.lowres[0][0][:, None] + feature_grids[None])[None]
        count = causal_context[0]["frames"] + 1 + torch.arange(len(feature_grids))[:, None]
        hidden = torch.where(count.T[None] % 7 == 0, 9.0, -9.0)
        state = [{"frames": c["frames"] + len(feature_grids)} for c in causal_context]
        steps = 1 + self.num_pips_iter
        return {"tracks": [xy * 0] * (steps - 1) + [xy], "occlusion": [hidden] * steps,
                "expected_dist": [hidden * 0 - 9] * steps, "causal_context": state}
"""

HUB = """
import json, pathlib, torch

class FromFolder(torch.nn.Module):
    @classmethod
    def from_pretrained(cls, path):
        assert json.loads((pathlib.Path(path) / "config.json").read_text())["of"] == cls.__name__
        return cls()
"""

FRONT = (
    HUB
    + """
class VGGT4Track(FromFolder):
    def forward(self, video):
        b, f, c, h, w = video.shape
        assert (b, c) == (1, 3) and h % 14 == 0 and w % 14 == 0 and video.max() <= 1
        return {"poses_pred": torch.eye(4).expand(1, f, 4, 4), "intrs": torch.eye(3).expand(1, f, 3, 3),
                "points_map": torch.ones(1, f, h, w, 3), "unc_metric": torch.ones(1, f, h, w)}
"""
)

PREDICTOR = (
    HUB
    + """
class Predictor(FromFolder):
    def to(self, device):
        pass

    def forward(self, video, depth=None, unc_metric=None, intrs=None, extrs=None, queries=None, iters_track=4,
                full_point=False, fps=30, fixed_cam=False, query_no_BA=False, stage=0, support_frame=0,
                replace_ratio=0.6):
        f, c, h, w = video.shape
        assert depth.shape == unc_metric.shape == (f, h, w) and intrs.shape == (f, 3, 3) and extrs.shape == (f, 4, 4)
        assert f <= 48 and support_frame == f - 1
        pan = video[:, :2, 0, 0] * torch.tensor([w / 40, h / 32])
        asked = torch.as_tensor(queries)
        xy = asked[None, :, 1:] + pan[:, None] - pan[asked[:, 0].long()]
        return (extrs, intrs, None, None, None, torch.cat([xy, xy[..., :1]], -1), torch.ones(f, len(asked), 1), None,
                video)
"""
)


@pytest.fixture
def submodules(tmp_path, monkeypatch):
    """A folder of stand-ins in place of submodules/, with checkpoints; what was imported is
    forgotten again."""
    monkeypatch.setattr("models.learned.third_party.SUBMODULES", tmp_path)
    monkeypatch.setattr("models.learned.spatracker2.check_device", lambda device: None)
    monkeypatch.setattr(models, "__path__", list(models.__path__))
    known = set(sys.modules)
    spatracker = "spatracker2/models/SpaTrackV2/models"
    for path, code in {
        "cotracker3/cotracker/predictor.py": COTRACKER,
        "tapir/tapnet/torch/tapir_model.py": TAPIR,
        f"{spatracker}/predictor.py": PREDICTOR,
        f"{spatracker}/vggt4track/models/vggt_moe.py": FRONT,
    }.items():
        write(tmp_path / path, textwrap.dedent(code))
    write(tmp_path / "cotracker3/cotracker/__init__.py", "")
    write(tmp_path / "tapir/tapnet/__init__.py", "")
    for part, kind in (("front", "VGGT4Track"), ("offline", "Predictor")):
        write(tmp_path / "spatracker2/checkpoints" / part / "config.json", f'{{"of": "{kind}"}}')
    weights = torch.nn.Linear(2, 2).state_dict()
    torch.save({"model": weights}, tmp_path / "cotracker3/scaled_online.pth")
    torch.save(
        {f"weights.{k}": v for k, v in weights.items()},
        tmp_path / "tapir/causal_bootstapir_checkpoint.pt",
    )
    yield tmp_path
    for name in set(sys.modules) - known:
        if name.partition(".")[0] in ("cotracker", "tapnet") or name.startswith(
            "models.SpaTrackV2"
        ):
            del sys.modules[name]


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize("name", LEARNED)
@pytest.mark.parametrize("num_frames", [1, 5, 16, 17, 71])
def test_an_adapter_follows_each_query_both_ways_at_any_length(submodules, name, num_frames):
    frames, pan = panning(num_frames)
    queries = queries_over(num_frames, 13)
    xy, visible = open_tracker(name)(frames, queries)
    assert (
        xy.shape == (num_frames, 13, 2)
        and visible.shape == (num_frames, 13)
        and visible.dtype == bool
    )
    np.testing.assert_allclose(xy, panned(pan, queries), atol=2e-3)
    own = queries[:, 0].astype(int), np.arange(13)
    assert visible[own].all() and (visible.all() or name == "tapir")
    np.testing.assert_array_equal(xy[own], queries[:, 1:])


@pytest.mark.parametrize("name", LEARNED)
def test_an_adapter_takes_no_queries(submodules, name):
    xy, visible = open_tracker(name)(panning(4)[0], np.zeros((0, 3), np.float32))
    assert xy.shape == (4, 0, 2) and visible.shape == (4, 0)


def test_tapir_in_windows_equals_one_pass(submodules):
    frames, _ = panning(20)
    queries = queries_over(20, 9)
    in_pieces = open_tracker("tapir")(frames, queries)
    for a, b in zip(in_pieces, open_tapir(None, "cpu", window=20)(frames, queries), strict=True):
        np.testing.assert_array_equal(a, b)
    assert not in_pieces[1].all() and in_pieces[1].mean() > 0.7


def test_cotracker_is_asked_in_its_own_pixel_convention(submodules):
    open_tracker("cotracker3")(panning(3)[0], np.array([[0, 10.5, 7.0]], np.float32))
    np.testing.assert_array_equal(sys.modules["cotracker.predictor"].received[0], [[0, 10.0, 6.5]])


@pytest.mark.parametrize("name", LEARNED)
def test_a_missing_package_is_refused_with_the_command_that_fetches_it(
    submodules, tmp_path, monkeypatch, name
):
    monkeypatch.setattr("models.learned.third_party.SUBMODULES", tmp_path / "nowhere")
    checkpoint = submodules / "spatracker2/checkpoints" if name == "spatracker2" else None
    with pytest.raises(
        InputError,
        match=rf"'{name}' needs its own code; run: git clone \S+ submodules/{name} && git",
    ):
        open_tracker(name, checkpoint)


@pytest.mark.parametrize("name", LEARNED)
def test_a_missing_checkpoint_is_refused_with_the_command_that_fetches_it(
    submodules, tmp_path, name
):
    with pytest.raises(
        InputError, match=rf"gone.*'{name}' finds no checkpoint there; .* run: (curl|git clone) "
    ):
        open_tracker(name, tmp_path / "gone")


@pytest.mark.parametrize("name", ["cotracker3", "tapir"])
def test_a_wrong_checkpoint_is_refused(submodules, tmp_path, name):
    torch.save({"other": torch.zeros(3)}, tmp_path / "other.pt")
    (tmp_path / "text.pt").write_text("no weights")
    torch.save([1, 2], tmp_path / "list.pt")
    for file, what in {
        "other.pt": "another model's",
        "text.pt": "cannot be read",
        "list.pt": "no weights",
    }.items():
        with pytest.raises(InputError, match=rf"{file}: .*{what}.*run: curl"):
            open_tracker(name, tmp_path / file)


def test_a_folder_of_another_model_is_refused(submodules):
    write(submodules / "spatracker2/checkpoints/front/config.json", '{"of": "SomethingElse"}')
    with pytest.raises(InputError, match=r"front: is no checkpoint of 'spatracker2'"):
        open_tracker("spatracker2")


def test_a_package_that_the_code_lacks_is_named(submodules):
    write(submodules / "tapir/tapnet/torch/tapir_model.py", "import a_package_nobody_has")
    with pytest.raises(
        InputError, match=r"needs the package 'a_package_nobody_has'; run: pip install einshape"
    ):
        open_tracker("tapir")


def test_spatracker_without_a_gpu_is_refused():
    with pytest.raises(InputError, match="needs a CUDA GPU"):
        open_tracker("spatracker2", device="cpu")


def test_a_checkpoint_for_a_tracker_that_has_none_is_refused(tmp_path):
    with pytest.raises(InputError, match="'dis_flow' has no checkpoint"):
        open_tracker("dis_flow", tmp_path / "weights.pt")


def test_an_unknown_tracker_is_refused_with_all_that_are_known():
    with pytest.raises(
        InputError, match=r"'nobody' is not known.*cotracker3, dis_flow, lucas_kanade.*tapir"
    ):
        open_tracker("nobody")


def test_the_readme_of_submodules_lists_every_learned_model_with_its_commands():
    text = (Path(__file__).parents[1] / "submodules" / "README.md").read_text()
    rows = {line for line in text.splitlines() if line.startswith("| `")}
    entries = [*LEARNED.values(), *DEPTH_MODELS.values(), *MASK_MODELS.values()]
    assert rows == {entry.readme_row for entry in entries}
    for tracker in LEARNED.values():
        for command in tracker.clone.split(" && "):
            assert command in text
        assert not tracker.requirements or f"pip install {tracker.requirements}" in text
    for entry in entries:
        # The weights of spatracker2 are two folders, which the file lists with their own commands.
        assert entry.name == "spatracker2" or entry.download in text


def test_no_third_party_code_is_imported_before_it_is_chosen():
    code = "import sys, models.depth.options; print({'cotracker', 'tapnet', 'transformers'} & sys.modules.keys())"
    folder = Path(__file__).parents[1]
    assert (
        subprocess.run(
            [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True
        ).stdout
        == "set()\n"
    )


@pytest.mark.parametrize("name", TRACKERS)
def test_a_built_in_tracker_goes_by_its_name(name):
    frames = np.random.default_rng(0).integers(0, 255, (3, 60, 80, 3), dtype=np.uint8)
    queries = np.array([[1, 40, 30]], np.float32)
    for a, b in zip(
        track_points(frames, queries, name), TRACKERS[name](frames, queries), strict=True
    ):
        np.testing.assert_array_equal(a, b)
    assert open_tracker("lucas_kanade") is lucas_kanade
