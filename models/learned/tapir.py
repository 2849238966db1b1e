"""BootsTAPIR, causal: the model reads a few frames at a time and carries its state along.

Source: Doersch et al., "BootsTAP: bootstrapped training for tracking-any-point", 2024.
"""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from models.learned.third_party import ThirdParty, import_from, load_weights
from models.learned.windows import Follow, in_groups

# Width and height in pixels to which frames are resized; the model was trained at 256 and 512.
_SIDE = 512
# Frames read at a time; the results do not depend on it.
_WINDOW = 8
# Points followed at a time: the state of a point takes about 2 MB.
_GROUP = 256


def open_tapir(checkpoint_path: Path | None, device: str, window: int = _WINDOW) -> Follow:
    """The tracker with its weights on a device.

    Args:
        window: frames read at a time; memory grows with their number.

    Raises:
        InputError: the code or the checkpoint is missing or wrong.
    """
    code = import_from(TAPIR, "tapnet.torch.tapir_model")
    model = code.TAPIR(pyramid_level=1, use_casual_conv=True)
    load_weights(TAPIR, model, checkpoint_path)
    model = model.to(device).eval()

    @torch.no_grad()
    def follow(frames: np.ndarray, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        features = _read_features(model, frames, queries, device)
        levels = len(features.resolutions) - 1
        state = [
            {key: value.to(device) for key, value in level.items()}
            for level in model.construct_initial_causal_state(len(queries), levels)
        ]
        positions = []
        visible = []
        for first in range(0, len(frames), window):
            video = _make_video(frames[first : first + window], device)
            grids = model.get_feature_grids(video, is_training=False)
            out = model.estimate_trajectories(
                (_SIDE, _SIDE), is_training=False, feature_grids=grids, query_features=features,
                query_points_in_video=None, query_chunk_size=64, causal_context=state, get_causal_context=True,
            )  # fmt: skip
            state = out["causal_context"]
            xy, hidden, unsure = (
                _average_levels(out[k], model) for k in ("tracks", "occlusion", "expected_dist")
            )
            positions.append(xy.transpose(0, 1).cpu().numpy())
            # Visible = neither occluded nor uncertain, as the authors' own code decides.
            visible.append(((1 - hidden.sigmoid()) * (1 - unsure.sigmoid()) > 0.5).T.cpu().numpy())
        height, width = frames.shape[1:3]
        scale = np.float32([width / _SIDE, height / _SIDE])
        return np.concatenate(positions) * scale, np.concatenate(visible)

    return lambda frames, queries: _follow_all(in_groups(follow, _GROUP), frames, queries)


def _follow_all(
    follow: Follow, frames: np.ndarray, queries: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Tracks in all frames, those before the query too; in its own frame a query is its own
    answer."""
    if len(queries) == 0:
        return np.zeros((len(frames), 0, 2), np.float32), np.zeros((len(frames), 0), bool)
    xy, visible = follow(frames, queries)
    own = queries[:, 0].astype(np.int64), np.arange(len(queries))
    xy[own] = queries[:, 1:]
    visible[own] = True
    return xy, visible


def _read_features(model: Any, frames: np.ndarray, queries: np.ndarray, device: str) -> Any:
    """The model's query features, each read in the frame of its query, frame by frame."""
    height, width = frames.shape[1:3]
    parts = []
    order = []
    for t in np.unique(queries[:, 0]):
        n = np.flatnonzero(queries[:, 0] == t)
        yx = queries[n][:, [2, 1]] * np.array([_SIDE / height, _SIDE / width])
        points = torch.from_numpy(np.c_[np.zeros(len(n)), yx]).float().to(device)[None]
        video = _make_video(frames[int(t) : int(t) + 1], device)
        grids = model.get_feature_grids(video, is_training=False)
        parts.append(
            model.get_query_features(
                video, is_training=False, query_points=points, feature_grids=grids
            )
        )
        order.append(n)
    back = torch.from_numpy(np.argsort(np.concatenate(order))).to(device)

    def join(name: str) -> tuple[torch.Tensor, ...]:
        levels = zip(*(getattr(part, name) for part in parts), strict=True)
        return tuple(torch.cat(level, 1)[:, back] for level in levels)

    return type(parts[0])(join("lowres"), join("hires"), parts[0].resolutions)


def _average_levels(steps: list[torch.Tensor], model: Any) -> torch.Tensor:
    """Mean over the resolutions of the last refinement step of each, as the model's own forward
    pass does."""
    return torch.stack(steps[model.num_pips_iter :: model.num_pips_iter]).mean(0)[0]


def _make_video(frames: np.ndarray, device: str) -> torch.Tensor:
    """Frames (F, H, W, 3), resized, as (1, F, _SIDE, _SIDE, 3) in [-1, 1]."""
    small = np.stack(
        [cv2.resize(frame, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA) for frame in frames]
    )
    return torch.from_numpy(small).to(device)[None].float() / 255 * 2 - 1


TAPIR = ThirdParty(
    option="--tracker",
    name="tapir",
    title="BootsTAPIR",
    licence="Apache-2.0, code and weights",
    open=open_tapir,
    package="tapnet",
    repository="https://github.com/google-deepmind/tapnet",
    commit="c2cbab81cc06092b5f05bfe2da7bfec54e2079c9",
    checkpoint="causal_bootstapir_checkpoint.pt",
    checkpoint_url="https://storage.googleapis.com/dm-tapnet/bootstap/causal_bootstapir_checkpoint.pt",
    requirements="einshape dm-tree",
    hardware="a GPU is much faster",
)
