"""Tracks and static scene -> masks of moving objects, and the scene without them.

options - sizes, thresholds and weights that a person may tune
patches - parts of images, and values filled in
background_scene - the scene of the background, also if the given scene follows a mover
static_points - the static point that fits the flow of each pixel best
evidence - optical flow that no static point explains
cues - log-odds that a pixel moves: flow, tracks, colours, the background behind, saliency
smoothing - probabilities smoothed over neighbours in space and time
blobs - connected parts of masks in space and time
segments - evidence to probabilities, and labels of movers
motion_masks - masks and labels of a clip, a window of frames at a time, and the memory they need
shadows - shadows that movers cast, beside given or found masks
still_scene - the static scene of a clip in which things move
"""

from models.motion.motion_masks import estimate_memory, estimate_num_tracks
from models.motion.options import MotionOptions
from models.motion.segments import label_movers
from models.motion.shadows import find_shadows
from models.motion.still_scene import (
    judge_static_scene,
    mask_movers,
    solve_masked_scene,
    solve_without_movers,
)

__all__ = [
    "MotionOptions",
    "estimate_memory",
    "estimate_num_tracks",
    "find_shadows",
    "judge_static_scene",
    "label_movers",
    "mask_movers",
    "solve_masked_scene",
    "solve_without_movers",
]
