"""CoTracker3 (Karaev et al., 2024), online: a window of 16 frames slides over the clip by 8."""

from pathlib import Path

import numpy as np
import torch

from models.learned.third_party import Source, import_from, load_weights
from models.learned.windows import both_ways, in_groups

SOURCE = Source(
    tracker="cotracker3",
    package="cotracker",
    repository="https://github.com/facebookresearch/co-tracker",
    commit="82e02e8029753ad4ef13cf06be7f4fc5facdda4d",
    checkpoint="scaled_online.pth",
    checkpoint_url="https://huggingface.co/facebook/cotracker3/resolve/main/scaled_online.pth",
    requirements="",
)
GROUP = 1024
"""Points followed at a time: its correlation volumes take about 0.6 MB each."""


def open_cotracker3(checkpoint_path: Path | None, device: str):
    """The tracker with its weights on a device.

    Raises:
        InputError: the code or the checkpoint is missing or wrong.
    """
    predictor = import_from(SOURCE, "cotracker.predictor").CoTrackerOnlinePredictor(checkpoint=None)
    load_weights(SOURCE, predictor.model, checkpoint_path)
    predictor = predictor.to(device).eval()

    @torch.no_grad()
    def follow(frames: np.ndarray, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        asked = (
            torch.from_numpy(queries - np.array([0, 0.5, 0.5])).float().to(device)
        )  # it has (0, 0) where we 0.5
        predictor(
            _video(frames[:1], device),
            is_first_step=True,
            queries=asked[None],
            add_support_grid=True,
        )
        step = predictor.step
        for first in range(0, max(1, len(frames) - step), step):
            chunk = _video(frames[first : first + 2 * step], device)
            xy, visible = predictor(chunk, add_support_grid=True)  # of all frames up to here
        return xy[0, :, : len(queries)].cpu().numpy() + 0.5, visible[
            0, :, : len(queries)
        ].cpu().numpy()

    return lambda frames, queries: both_ways(in_groups(follow, GROUP), frames, queries)


def _video(frames: np.ndarray, device: str) -> torch.Tensor:
    """(1, F, 3, H, W) in [0, 255]."""
    return torch.from_numpy(frames.copy()).to(device).permute(0, 3, 1, 2)[None].float()
