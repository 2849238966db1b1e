"""BootsTAPIR (Doersch et al., 2024), causal: it sees a few frames at a time and carries its state
along."""

from pathlib import Path

import cv2
import numpy as np
import torch

from models.learned.third_party import Source, import_from, load_weights
from models.learned.windows import in_groups

SOURCE = Source(
    tracker="tapir",
    package="tapnet",
    repository="https://github.com/google-deepmind/tapnet",
    commit="c2cbab81cc06092b5f05bfe2da7bfec54e2079c9",
    checkpoint="causal_bootstapir_checkpoint.pt",
    checkpoint_url="https://storage.googleapis.com/dm-tapnet/bootstap/causal_bootstapir_checkpoint.pt",
    requirements="einshape dm-tree",
)
SIDE = 512
"""Frames are brought to this size, squeezed; the model was trained at 256 and 512."""
WINDOW = 8
"""Frames seen at a time."""
GROUP = 256
"""Points followed at a time: their state takes about 2 MB each."""


def open_tapir(checkpoint_path: Path | None, device: str):
    """The tracker with its weights on a device.

    Raises:
        InputError: the code or the checkpoint is missing or wrong.
    """
    model = import_from(SOURCE, "tapnet.torch.tapir_model").TAPIR(
        pyramid_level=1, use_casual_conv=True
    )
    load_weights(SOURCE, model, checkpoint_path)
    model = model.to(device).eval()

    @torch.no_grad()
    def follow(frames: np.ndarray, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        features = _query_features(model, frames, queries, device)
        state = [
            {key: value.to(device) for key, value in level.items()}
            for level in model.construct_initial_causal_state(
                len(queries), len(features.resolutions) - 1
            )
        ]
        places = []
        flags = []
        for first in range(0, len(frames), WINDOW):
            grids = model.get_feature_grids(
                _video(frames[first : first + WINDOW], device), is_training=False
            )
            out = model.estimate_trajectories(
                (SIDE, SIDE), is_training=False, feature_grids=grids, query_features=features,
                query_points_in_video=None, query_chunk_size=64, causal_context=state, get_causal_context=True,
            )  # fmt: skip
            state = out["causal_context"]
            xy, hidden, unsure = (
                _averaged(out[k], model) for k in ("tracks", "occlusion", "expected_dist")
            )
            places.append(xy.transpose(0, 1).cpu().numpy())
            flags.append(((1 - hidden.sigmoid()) * (1 - unsure.sigmoid()) > 0.5).T.cpu().numpy())
        height, width = frames.shape[1:3]
        return np.concatenate(places) * np.float32([width / SIDE, height / SIDE]), np.concatenate(
            flags
        )

    return lambda frames, queries: _answered(in_groups(follow, GROUP), frames, queries)


def _answered(follow, frames: np.ndarray, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Its answers for all frames, before the query too, with each query answered by itself."""
    if len(queries) == 0:
        return np.zeros((len(frames), 0, 2), np.float32), np.zeros((len(frames), 0), bool)
    xy, visible = follow(frames, queries)
    own = queries[:, 0].astype(np.int64), np.arange(len(queries))
    xy[own] = queries[:, 1:]
    visible[own] = True
    return xy, visible


def _query_features(model, frames: np.ndarray, queries: np.ndarray, device: str):
    """The points' features, each read in its own frame, one frame at a time."""
    height, width = frames.shape[1:3]
    parts = []
    order = []
    for t in np.unique(queries[:, 0]):
        n = np.flatnonzero(queries[:, 0] == t)
        yx = queries[n][:, [2, 1]] * np.array([SIDE / height, SIDE / width])
        asked = torch.from_numpy(np.c_[np.zeros(len(n)), yx]).float().to(device)[None]
        video = _video(frames[int(t) : int(t) + 1], device)
        grids = model.get_feature_grids(video, is_training=False)
        parts.append(
            model.get_query_features(
                video, is_training=False, query_points=asked, feature_grids=grids
            )
        )
        order.append(n)
    back = torch.from_numpy(np.argsort(np.concatenate(order))).to(device)

    def joined(name: str) -> tuple[torch.Tensor, ...]:
        levels = zip(*(getattr(part, name) for part in parts), strict=True)
        return tuple(torch.cat(level, 1)[:, back] for level in levels)

    return type(parts[0])(joined("lowres"), joined("hires"), parts[0].resolutions)


def _averaged(steps: list[torch.Tensor], model) -> torch.Tensor:
    """Mean of the answers at each resolution's last refinement, as the model's own forward pass
    takes it."""
    return torch.stack(steps[model.num_pips_iter :: model.num_pips_iter]).mean(0)[0]


def _video(frames: np.ndarray, device: str) -> torch.Tensor:
    """(1, F, SIDE, SIDE, 3) in [-1, 1]."""
    small = np.stack(
        [cv2.resize(frame, (SIDE, SIDE), interpolation=cv2.INTER_AREA) for frame in frames]
    )
    return torch.from_numpy(small).to(device)[None].float() / 255 * 2 - 1
