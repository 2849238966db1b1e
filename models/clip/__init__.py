"""Pixels in and out: video, images, masks, exposure, other programs' track files."""

from models.clip.exposure import Exposure, estimate_exposure
from models.clip.frames_of import ClipFrames, choose_evenly, smooth_over_time, split_into_stretches
from models.clip.images import image_paths, natural_key, read_image, write_image, write_images
from models.clip.masks import at_points, dilate, read_masks, write_masks
from models.clip.tracks_import import SPATRACKER_KEYS, from_npz, from_spatracker
from models.clip.transforms import load_lenses, load_transforms, save_transforms
from models.clip.video import Video, read_video
from models.clip.video_writer import VideoWriter, write_video

__all__ = [
    "SPATRACKER_KEYS",
    "ClipFrames",
    "Exposure",
    "Video",
    "VideoWriter",
    "at_points",
    "choose_evenly",
    "dilate",
    "estimate_exposure",
    "from_npz",
    "from_spatracker",
    "image_paths",
    "load_lenses",
    "load_transforms",
    "natural_key",
    "read_image",
    "read_masks",
    "read_video",
    "save_transforms",
    "smooth_over_time",
    "split_into_stretches",
    "write_image",
    "write_images",
    "write_masks",
    "write_video",
]
