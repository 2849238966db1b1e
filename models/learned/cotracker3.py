"""CoTracker3, online.

Source: Karaev et al., "CoTracker3: simpler and better point tracking by pseudo-labelling real
videos", 2024. Its window of 16 frames slides over the clip by 8.
"""

from pathlib import Path

import numpy as np
import torch

from models.learned.third_party import ThirdParty, import_from, load_weights
from models.learned.windows import Follow, both_ways, in_groups

# Points followed at a time: the correlation volumes of a point take about 0.6 MB.
_GROUP = 1024


def open_cotracker3(checkpoint_path: Path | None, device: str) -> Follow:
    """The tracker with its weights on a device.

    Raises:
        InputError: the code or the checkpoint is missing or wrong.
    """
    code = import_from(COTRACKER3, "cotracker.predictor")
    predictor = code.CoTrackerOnlinePredictor(checkpoint=None)
    load_weights(COTRACKER3, predictor.model, checkpoint_path)
    predictor = predictor.to(device).eval()

    @torch.no_grad()
    def follow(frames: np.ndarray, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        # Its pixel origin is the centre of the top-left pixel, which is (0.5, 0.5) here.
        own = torch.from_numpy(queries - np.array([0, 0.5, 0.5])).float().to(device)
        first_frame = _make_video(frames[:1], device)
        predictor(first_frame, is_first_step=True, queries=own[None], add_support_grid=True)
        step = predictor.step
        for first in range(0, max(1, len(frames) - step), step):
            chunk = _make_video(frames[first : first + 2 * step], device)
            # Each call returns the tracks of all frames up to the end of the chunk.
            xy, visible = predictor(chunk, add_support_grid=True)
        xy = xy[0, :, : len(queries)].cpu().numpy() + 0.5
        return xy, visible[0, :, : len(queries)].cpu().numpy()

    return lambda frames, queries: both_ways(in_groups(follow, _GROUP), frames, queries)


def _make_video(frames: np.ndarray, device: str) -> torch.Tensor:
    """Frames (F, H, W, 3) as (1, F, 3, H, W) in [0, 255]."""
    return torch.from_numpy(frames.copy()).to(device).permute(0, 3, 1, 2)[None].float()


COTRACKER3 = ThirdParty(
    option="--tracker",
    name="cotracker3",
    title="CoTracker3",
    licence="CC BY-NC 4.0, code and weights: no commercial use",
    open=open_cotracker3,
    package="cotracker",
    repository="https://github.com/facebookresearch/co-tracker",
    commit="82e02e8029753ad4ef13cf06be7f4fc5facdda4d",
    checkpoint="scaled_online.pth",
    checkpoint_url="https://huggingface.co/facebook/cotracker3/resolve/main/scaled_online.pth",
    requirements="",
    hardware="a GPU is much faster",
)
