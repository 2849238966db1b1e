"""Ray caster of the synthetic room: surface samples, depth and solid of each pixel; numba
kernels."""

import math

import numpy as np
from jaxtyping import Bool, Float, Int
from numba import prange

from models.run import njit
from models.synthetic.lighting import find_light
from models.synthetic.solids import describe_face, find_first_hit

# side in pixels of the tiles that share a list of the solids in view
_TILE = 16


def trace(
    solids: Float[np.ndarray, "P 15"],
    K: Float[np.ndarray, "3 3"],
    world_from_cam: Float[np.ndarray, "4 4"],
    height: int,
    width: int,
    samples: int = 3,
) -> tuple[Float[np.ndarray, "H W S 8"], Float[np.ndarray, "H W"], Int[np.ndarray, "H W"]]:
    """Casts the rays of a camera.

    Args:
        solids: table of ``solids.py``.
        K: intrinsics in pixels.
        world_from_cam: rigid pose, OpenCV camera axes to world.
        samples: rays of a pixel along each side.

    Returns:
        surface: S = samples squared surface samples of each pixel: material, texture seed, u and v
            on the surface, width of the sample there (metres), light (RGB).
        depth: z-depth at pixel centres, in metres.
        index: row of the solid at pixel centres.
    """
    surface = np.empty((height, width, samples * samples, 8), np.float32)
    depth = np.empty((height, width), np.float32)
    index = np.empty((height, width), np.int16)
    _trace(np.ascontiguousarray(solids), K, world_from_cam, samples, surface, depth, index)
    return surface, depth, index


def find_unoccluded(
    solids: Float[np.ndarray, "P 15"],
    center: Float[np.ndarray, "3"],
    xyz: Float[np.ndarray, "N 3"],
) -> Bool[np.ndarray, "N"]:
    """Points whose straight line from ``center`` is free of solids in its first 99.99 %."""
    free = np.empty(len(xyz), np.bool_)
    _check_lines(np.ascontiguousarray(solids), center, xyz, 1 - 1e-4, free)
    return free


@njit(cache=True)
def _direct_ray(K, pose, px, py):
    """Direction of a pixel's ray in the world; z = 1 in camera axes, so the ray parameter is the
    z-depth."""
    x, y = (px - K[0, 2]) / K[0, 0], (py - K[1, 2]) / K[1, 1]
    return (
        pose[0, 0] * x + pose[0, 1] * y + pose[0, 2],
        pose[1, 0] * x + pose[1, 1] * y + pose[1, 2],
        pose[2, 0] * x + pose[2, 1] * y + pose[2, 2],
    )


@njit(cache=True)
def _measure_angle(ax, ay, az, bx, by, bz):
    """Angle in radians between two directions."""
    lengths = math.sqrt((ax * ax + ay * ay + az * az) * (bx * bx + by * by + bz * bz))
    return math.acos(min(max((ax * bx + ay * by + az * bz) / lengths, -1.0), 1.0))


@njit(cache=True)
def _list_for_tile(solids, K, pose, x0, y0, listed):
    """Lists the solids whose bounding sphere meets the cone of a tile's rays; returns their
    number."""
    mx, my, mz = _direct_ray(K, pose, x0 + _TILE / 2, y0 + _TILE / 2)
    reach = 0.0
    for corner in range(4):
        cx, cy, cz = _direct_ray(K, pose, x0 + corner % 2 * _TILE, y0 + corner // 2 * _TILE)
        reach = max(reach, _measure_angle(mx, my, mz, cx, cy, cz))
    count = 0
    for p in range(len(solids)):
        vx = solids[p, 1] - pose[0, 3]
        vy = solids[p, 2] - pose[1, 3]
        vz = solids[p, 3] - pose[2, 3]
        distance = math.sqrt(vx * vx + vy * vy + vz * vz)
        radius = solids[p, 14]
        # the camera inside the sphere, or the sphere within the cone
        if distance <= radius or _measure_angle(mx, my, mz, vx, vy, vz) <= reach + math.asin(
            radius / distance
        ):
            listed[count] = p
            count += 1
    return count


@njit(cache=True)
def _colour_light(ambient, direct, out):
    """Fills in the light of a surface sample: cool ambient light, a warm lamp."""
    out[5] = 0.94 * ambient + direct
    out[6] = ambient + 0.93 * direct
    out[7] = 1.06 * ambient + 0.82 * direct


@njit(cache=True)
def _trace_pixel(solids, listed, count, K, pose, px, py, samples, out):
    """Fills in the pixel's surface samples; returns depth and solid at its centre.

    Light is computed once a face, at the first ray that meets the face.
    """
    ox = pose[0, 3]
    oy = pose[1, 3]
    oz = pose[2, 3]
    lit_p = -1
    lit_axis = -1
    ambient = 0.0
    direct = 0.0
    center_t = 0.0
    center_p = 0
    for k in range(-1, samples * samples):
        # a sheared grid: no two samples share a row or a column, so that edges along the pixel grid
        # get all grey levels; k = -1 is the pixel's centre
        i, j = k % samples, k // samples
        sx = 0.5 if k < 0 else (i + (j + 0.5) / samples) / samples
        sy = 0.5 if k < 0 else (j + (samples - i - 0.5) / samples) / samples
        dx, dy, dz = _direct_ray(K, pose, px + sx, py + sy)
        t, p, axis = find_first_hit(solids, listed, count, ox, oy, oz, dx, dy, dz)
        x = ox + t * dx
        y = oy + t * dy
        z = oz + t * dz
        nx, ny, nz, u, v, side = describe_face(solids, p, axis, x, y, z, dx, dy)
        if p != lit_p or axis != lit_axis:
            ambient, direct = find_light(solids, p, x, y, z, nx, ny, nz)
            lit_p = p
            lit_axis = axis
        if k < 0:
            center_t = t
            center_p = p
            continue
        slant = abs(dx * nx + dy * ny + dz * nz) / math.sqrt(dx * dx + dy * dy + dz * dz)
        out[k, 0] = solids[p, 10 + axis % 3]
        out[k, 1] = solids[p, 13] + 5 * axis + 2 * side
        out[k, 2] = u
        out[k, 3] = v
        out[k, 4] = t / K[0, 0] / samples / math.sqrt(max(slant, 0.1))
        _colour_light(ambient, direct, out[k])
    return center_t, center_p


@njit(parallel=True, cache=True)
def _trace(solids, K, pose, samples, surface, depth, index):
    height, width = depth.shape
    columns = (width + _TILE - 1) // _TILE
    for tile in prange(columns * ((height + _TILE - 1) // _TILE)):
        x0 = tile % columns * _TILE
        y0 = tile // columns * _TILE
        listed = np.empty(len(solids), np.int64)
        count = _list_for_tile(solids, K, pose, x0, y0, listed)
        for y in range(y0, min(y0 + _TILE, height)):
            for x in range(x0, min(x0 + _TILE, width)):
                t, p = _trace_pixel(solids, listed, count, K, pose, x, y, samples, surface[y, x])
                depth[y, x] = t
                index[y, x] = p


@njit(parallel=True, cache=True)
def _check_lines(solids, center, xyz, limit, free):
    everything = np.arange(len(solids))
    for n in prange(len(xyz)):
        d = xyz[n] - center
        t, _, _ = find_first_hit(
            solids, everything, len(solids), center[0], center[1], center[2], d[0], d[1], d[2]
        )
        free[n] = t > limit
