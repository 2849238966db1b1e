"""Small grey pictures of a clip's frames, which tell it from other clips of its size and length."""

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from models.clip import reduce_frame

THUMBNAILS = "8 18 32"
"""Number, height and width of the thumbnails of a clip."""
# Mean difference of grey up to which two thumbnails show one frame: a floor for other decoders and
# encoders, and a share of the picture's contrast. Frames of two clips differ by about the contrast.
_NOISE = 1.0
_SHARE_OF_CONTRAST = 0.06


def make_thumbnails(frames: UInt8[np.ndarray, "F H W 3"]) -> UInt8[Tensor, "..."]:
    """Small grey pictures of frames evenly over the clip, in the shape of ``THUMBNAILS``."""
    count = int(THUMBNAILS.split()[0])
    small = []
    for t in np.linspace(0, len(frames) - 1, count).round().astype(int):
        small.append(reduce_frame(np.ascontiguousarray(frames[t])))
    return torch.from_numpy(np.stack(small).astype(np.uint8))


def is_thumbnails(value: object) -> bool:
    """Whether a value of a file is what ``make_thumbnails`` gives."""
    shape = tuple(map(int, THUMBNAILS.split()))
    return isinstance(value, Tensor) and value.dtype == torch.uint8 and value.shape == shape


def look_alike(first: UInt8[Tensor, "..."] | None, second: UInt8[Tensor, "..."] | None) -> bool:
    """Whether two sets of thumbnails show the same frames; true if one is not known, as in files of
    older versions."""
    if first is None or second is None:
        return True
    difference = (first.float() - second.float()).abs().mean((1, 2))
    contrast = torch.minimum(*(each.float().std((1, 2)) for each in (first, second)))
    return bool((difference <= _NOISE + _SHARE_OF_CONTRAST * contrast).all())
