"""Pixels in and out: video, images, masks, exposure, camera files.

Files in reading order:

- ``frames_of`` - frames of a clip: rows of a file, stretches, even choices, smoothing over time
- ``sources`` - how an input is to be read: names, kinds, streams, values of masks
- ``images`` - image files
- ``decoding`` - video files through ffmpeg, frame by frame
- ``packets`` - the packets of a video file, and damage to their bytes
- ``frame_checks`` - frames that would mislead
- ``frame_store`` - many frames in memory or in a file
- ``video`` - the frames of a clip, by all of these
- ``video_writer`` - video files, written
- ``masks`` - masks of movers
- ``exposure`` - how each frame's colours differ from the scene's own
- ``lens`` - lens distortion: points and images between bent and straight
- ``transforms`` - camera files of nerfstudio and instant-ngp
"""

from models.clip.exposure import Exposure, ExposureOptions, estimate_exposure
from models.clip.frame_checks import reduce_frame
from models.clip.frames_of import ClipFrames, choose_evenly, smooth_over_time, split_into_stretches
from models.clip.images import read_image, write_image, write_images
from models.clip.lens import MODELS, Lens
from models.clip.masks import (
    at_points,
    describe_large_masks,
    dilate,
    name_large_masks,
    read_masks,
    write_masks,
)
from models.clip.sources.clip_size import ClipSize, halve_max_size, measure_clip
from models.clip.sources.listing import image_paths
from models.clip.sources.naming import sort_naturally
from models.clip.transforms import load_lenses, load_transforms, save_transforms
from models.clip.video import (
    Video,
    name_clip,
    read_video,
    straighten_masks,
    straighten_video,
)
from models.clip.video_writer import VideoWriter, write_video

__all__ = [
    "MODELS",
    "ClipFrames",
    "ClipSize",
    "Exposure",
    "ExposureOptions",
    "Lens",
    "Video",
    "VideoWriter",
    "at_points",
    "choose_evenly",
    "describe_large_masks",
    "dilate",
    "estimate_exposure",
    "halve_max_size",
    "image_paths",
    "load_lenses",
    "load_transforms",
    "measure_clip",
    "name_clip",
    "name_large_masks",
    "read_image",
    "read_masks",
    "read_video",
    "reduce_frame",
    "save_transforms",
    "smooth_over_time",
    "sort_naturally",
    "split_into_stretches",
    "straighten_masks",
    "straighten_video",
    "write_image",
    "write_images",
    "write_masks",
    "write_video",
]
