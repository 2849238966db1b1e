"""Clips that only pan, with the pan in their pixels, and where their points truly go."""

import numpy as np

WIDTH, HEIGHT = 40, 32


def panning(num_frames: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Frames whose red and green are the pan so far, and the pan (F, 2)."""
    pan = np.random.default_rng(seed).integers(-1, 2, (num_frames, 2)).cumsum(0) + 120
    frames = np.zeros((num_frames, HEIGHT, WIDTH, 3), np.uint8)
    frames[..., :2] = pan[:, None, None]
    return frames, pan.astype(np.float64)


def queries_over(num_frames: int, count: int, seed: int = 0) -> np.ndarray:
    """Points (frame, x, y) in frames drawn at random."""
    random = np.random.default_rng(seed)
    at = random.integers(0, num_frames, count)
    return np.c_[at, random.uniform(1, 30, (count, 2))].astype(np.float32)


def panned(pan: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """Where each query is in every frame (F, N, 2)."""
    return queries[:, 1:] + pan[:, None] - pan[queries[:, 0].astype(int)]
