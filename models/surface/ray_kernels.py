"""Kernels of training pixels: rays of pixels, planes of faces, and where they meet."""

import numpy as np

from models.run import njit

GATHERED = 256
"""Samples of a batch whose memory is read ahead of their arithmetic."""


@njit(nogil=True, cache=True, error_model="numpy")
def compute_ray(frame, pixel, inverse_K, pose, width):
    """Origin and direction (z-depth 1) of a pixel's ray in the world.

    inverse_K (F, 3, 3); pose (F, 4, 4), camera to world; pixel: row-major index in the image.
    """
    px, py = pixel % width + 0.5, pixel // width + 0.5
    u = inverse_K[frame, 0, 0] * px + inverse_K[frame, 0, 1] * py + inverse_K[frame, 0, 2]
    v = inverse_K[frame, 1, 0] * px + inverse_K[frame, 1, 1] * py + inverse_K[frame, 1, 2]
    R = pose[frame]
    dx = R[0, 0] * u + R[0, 1] * v + R[0, 2]
    dy = R[1, 0] * u + R[1, 1] * v + R[1, 2]
    dz = R[2, 0] * u + R[2, 1] * v + R[2, 2]
    return R[0, 3], R[1, 3], R[2, 3], dx, dy, dz


@njit(nogil=True, cache=True, error_model="numpy")
def compute_normal(a, b, c):
    """(b - a) x (c - a), in double precision."""
    ax = np.float64(a[0])
    ay = np.float64(a[1])
    az = np.float64(a[2])
    ex = b[0] - ax
    ey = b[1] - ay
    ez = b[2] - az
    fx = c[0] - ax
    fy = c[1] - ay
    fz = c[2] - az
    return ey * fz - ez * fy, ez * fx - ex * fz, ex * fy - ey * fx


@njit(nogil=True, cache=True, error_model="numpy")
def gather_corners(begin, end, index, frame, pixel, face, vertices, places, corners):
    """Frame, pixel and face of samples [begin, end) of a batch, and the vertices of their faces.

    Memory reads only, so that the CPU overlaps their latencies.
    """
    for i in range(begin, end):
        s = index[i]
        to = i - begin
        places[to, 0] = frame[s]
        places[to, 1] = pixel[s]
        places[to, 2] = face[s]
    for to in range(end - begin):
        f = places[to, 2]
        for k in range(3):
            corners[to, k] = vertices[f, k]


@njit(nogil=True, cache=True, error_model="numpy")
def _gather(
    begin, end, index, samples, half, vertices, trust, least, places, corners, colors, weight
):
    """Reads all that memory holds of samples [begin, end) of a batch; half: see draw_samples."""
    frame, pixel, face, rgb = samples
    gather_corners(begin, end, index, frame, pixel, face, vertices, places, corners)
    for i in range(begin, end):
        for k in range(3):
            colors[i, k] = half[rgb[index[i], k]]
        weight[i] = max(trust[places[i - begin, 2]], least)


@njit(nogil=True, cache=True, error_model="numpy")
def draw_samples(
    begin, end, index, samples, half, vertices, trust, positions, inverse_K, pose, width, matrix, least,
    points, colors, weight,
):  # fmt: skip
    """Points, colours and weights of samples [begin, end) of a batch; see TrainingPixels.batch.

    samples: frame, pixel, face and rgb (half precision as uint16) of all training pixels; half:
    float32 value of each uint16; matrix (4, 4): normalized_from_world.
    """
    places = np.empty((GATHERED, 3), np.int64)
    corners = np.empty((GATHERED, 3), np.int64)
    for start in range(begin, end, GATHERED):
        stop = min(start + GATHERED, end)
        _gather(
            start, stop, index, samples, half, vertices, trust, least, places, corners, colors, weight,
        )  # fmt: skip
        for i in range(start, stop):
            corner = corners[i - start]
            a = positions[corner[0]]
            b = positions[corner[1]]
            c = positions[corner[2]]
            nx, ny, nz = compute_normal(a, b, c)
            ox, oy, oz, dx, dy, dz = compute_ray(
                places[i - start, 0], places[i - start, 1], inverse_K, pose, width
            )
            ax = np.float64(a[0])
            ay = np.float64(a[1])
            az = np.float64(a[2])
            # ray parameter of the plane: the z-depth
            depth = (nx * (ax - ox) + ny * (ay - oy) + nz * (az - oz)) / (
                nx * dx + ny * dy + nz * dz
            )
            x = ox + depth * dx
            y = oy + depth * dy
            z = oz + depth * dz
            # the map into the colour field's box may be projective
            w = matrix[3, 0] * x + matrix[3, 1] * y + matrix[3, 2] * z + matrix[3, 3]
            for k in range(3):
                points[i, k] = (
                    matrix[k, 0] * x + matrix[k, 1] * y + matrix[k, 2] * z + matrix[k, 3]
                ) / w
