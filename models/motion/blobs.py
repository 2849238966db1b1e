"""Blobs in space and time of a clip's masks, found frame by frame: all labels at once would fill
the memory."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Int, Shaped
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

TOUCHING = np.ones((3, 3), bool)


class Blobs:
    """Connected parts of masks; pixels touch over edges and corners, in a frame and from one to the
    next."""

    def __init__(self, masks: Bool[np.ndarray, "F h w"]):
        """Finds the patches of each frame, and which of them hang together through time."""
        self.masks = masks
        areas = []
        pairs = []
        count = 0
        before = None
        for patches in self._patches():
            areas.append(np.bincount(patches.ravel())[1:])
            if before is not None:
                pairs.append(_touching(before, patches) + np.array([count - len(areas[-2]), count]))
            count += len(areas[-1])
            before = patches
        self.area = np.concatenate([np.zeros(0, np.int64), *areas])
        """Of each patch, frame after frame."""
        self.frame = np.repeat(np.arange(len(masks)), [len(a) for a in areas])
        a, b = np.concatenate([np.zeros((0, 2), np.int64), *pairs]).T
        graph = coo_array((np.ones(len(a), bool), (a, b)), (count, count))
        self.blob: Int[np.ndarray, "P"] = (
            connected_components(graph, directed=False)[1] if count else self.area
        )
        """Number of each patch's blob, from 0 in the order of their first pixels."""

    def _patches(self) -> Iterator[Int[np.ndarray, "h w"]]:
        return (ndimage.label(mask, TOUCHING)[0] for mask in self.masks)

    def lasting(self, shortest: int, least_area: float) -> Bool[np.ndarray, "B"]:
        """Blobs that span so many frames and have so many pixels in each of them on average."""
        area = np.bincount(self.blob, self.area)
        spans = np.unique(np.stack([self.blob, self.frame]), axis=1)[0]
        frames = np.bincount(spans, minlength=len(area))
        return (frames >= shortest) & (area / np.maximum(frames, 1) >= least_area)

    def sizes(self) -> Int[np.ndarray, "B"]:
        """Pixels of each blob."""
        return np.bincount(self.blob, self.area).astype(np.int64)

    def painted(self, values: Shaped[np.ndarray, "B"]) -> Shaped[np.ndarray, "F h w"]:
        """Each pixel's value by its blob; 0 outside."""
        out = np.zeros(self.masks.shape, values.dtype)
        done = 0
        for t, patches in enumerate(self._patches()):
            count = int(patches.max())
            if count:
                own = values[self.blob[done : done + count]]
                out[t] = np.concatenate([np.zeros(1, values.dtype), own])[patches]
            done += count
        return out


def _touching(a: Int[np.ndarray, "h w"], b: Int[np.ndarray, "h w"]) -> Int[np.ndarray, "n 2"]:
    """Pairs of patches (from 0) of two frames that have pixels in or next to the same place."""
    joint, count = ndimage.label(np.stack([a, b]) > 0, np.ones((3, 3, 3)))
    own = []
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
