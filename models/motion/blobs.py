"""Connected parts of a clip's masks in space and time, found frame by frame: labels of all frames
at once would fill the memory."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Int, Shaped
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from models.run import allocate

# Pixels touch over edges and corners.
_NEIGHBOURS = np.ones((3, 3), bool)


class Blobs:
    """Connected parts of masks. Pixels touch over edges and corners, within a frame and between
    successive frames."""

    def __init__(self, masks: Bool[np.ndarray, "F h w"]):
        """Labels the patches (connected parts of a frame), and connects them through time."""
        self.masks = masks
        areas: list[np.ndarray] = []
        pairs: list[np.ndarray] = []
        count = 0
        before = None
        for patches in self._label_patches():
            areas.append(np.bincount(patches.ravel())[1:])
            if before is not None:
                first = np.array([count - len(areas[-2]), count])
                pairs.append(_find_touching(before, patches) + first)
            count += len(areas[-1])
            before = patches
        self.area: Int[np.ndarray, "P"] = np.concatenate([np.zeros(0, np.int64), *areas])
        """Pixels of each patch, frame after frame."""
        counts = [len(area) for area in areas]
        self.frame: Int[np.ndarray, "P"] = np.repeat(np.arange(len(masks)), counts)
        """Frame of each patch."""
        a, b = np.concatenate([np.zeros((0, 2), np.int64), *pairs]).T
        graph = coo_array((np.ones(len(a), bool), (a, b)), (count, count))
        self.blob: Int[np.ndarray, "P"] = (
            connected_components(graph, directed=False)[1] if count else self.area
        )
        """Number of each patch's blob, from 0 in the order of their first pixels."""

    def find_lasting(self, shortest: int, least_area: float) -> Bool[np.ndarray, "B"]:
        """Blobs with at least ``shortest`` frames and on average ``least_area`` pixels in each."""
        area = np.bincount(self.blob, self.area)
        spans = np.unique(np.stack([self.blob, self.frame]), axis=1)[0]
        frames = np.bincount(spans, minlength=len(area))
        return (frames >= shortest) & (area / np.maximum(frames, 1) >= least_area)

    def count_pixels(self) -> Int[np.ndarray, "B"]:
        """Pixels of each blob, over all frames."""
        return np.bincount(self.blob, self.area).astype(np.int64)

    def paint(self, values: Shaped[np.ndarray, "B"]) -> Shaped[np.ndarray, "F h w"]:
        """Images with the value of its blob at each pixel, and 0 outside the blobs."""
        out = allocate(self.masks.shape, values.dtype)
        done = 0
        for t, patches in enumerate(self._label_patches()):
            count = int(patches.max())
            if count:
                own = values[self.blob[done : done + count]]
                out[t] = np.concatenate([np.zeros(1, values.dtype), own])[patches]
            done += count
        return out

    def _label_patches(self) -> Iterator[Int[np.ndarray, "h w"]]:
        """Numbers from 1 of the patches of each frame, 0 outside."""
        return (ndimage.label(mask, _NEIGHBOURS)[0] for mask in self.masks)


def _find_touching(a: Int[np.ndarray, "h w"], b: Int[np.ndarray, "h w"]) -> Int[np.ndarray, "n 2"]:
    """Pairs of patches (numbers from 0) of two successive frames with pixels at the same place or
    next to each other."""
    joint, count = ndimage.label(np.stack([a, b]) > 0, np.ones((3, 3, 3)))
    own = []
    # For each frame a patch of every joint blob that stands for the blob; -1 without one.
    stands_for = []
    for patches, blob in zip((a, b), joint, strict=True):
        patch, first = np.unique(patches, return_index=True)
        own.append((patch[patch > 0] - 1, blob.ravel()[first[patch > 0]]))
        stands_for.append(np.full(count + 1, -1))
        stands_for[-1][own[-1][1]] = own[-1][0]
    (of_a, blob_of_a), (of_b, blob_of_b) = own
    pairs = [[of_a, stands_for[1][blob_of_a]], [stands_for[0][blob_of_b], of_b]]
    pairs = np.concatenate([np.stack(pair, 1) for pair in pairs])
    return pairs[(pairs >= 0).all(1)]
