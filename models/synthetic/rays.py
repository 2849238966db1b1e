"""Ray caster of the synthetic room: convex solids, soft shadows, occlusion of ambient light; numba
kernels.

A scene at one moment is a table ``solids`` (P, 15): kind, centre (3), half size (3), cos and sin of
the turn about z, mover (0 = static), material of the faces across x, y and z (curved ones: x),
seed, bounding radius. Units are metres, z is up, solid 0 is the room itself, seen from inside.
"""

import math

import numpy as np
from jaxtyping import Bool, Float, Int
from numba import njit, prange

BOX, ELLIPSOID, CYLINDER, ROOM = range(4)
TILE = 16
CURVED = 3
LIGHT_X = -1.1
LIGHT_Y = -1.9
LIGHT_Z = 2.75


def trace(
    solids: Float[np.ndarray, "P 15"],
    K: Float[np.ndarray, "3 3"],
    world_from_cam: Float[np.ndarray, "4 4"],
    height: int,
    width: int,
    samples: int = 3,
) -> tuple[Float[np.ndarray, "H W S 8"], Float[np.ndarray, "H W"], Int[np.ndarray, "H W"]]:
    """What a camera sees: surface samples, z-depth (metres) and index of the solid, both at pixel
    centres.

    A surface sample holds material, seed, u and v on the surface, width of the sample there, light
    (RGB); a pixel has ``samples`` squared of them.
    """
    surface = np.empty((height, width, samples * samples, 8), np.float32)
    depth = np.empty((height, width), np.float32)
    index = np.empty((height, width), np.int16)
    _trace(np.ascontiguousarray(solids), K, world_from_cam, samples, surface, depth, index)
    return surface, depth, index


def unoccluded(
    solids: Float[np.ndarray, "P 15"],
    center: Float[np.ndarray, "3"],
    xyz: Float[np.ndarray, "N 3"],
    slack: float = 1e-4,
) -> Bool[np.ndarray, "N"]:
    """Whether the straight line from the centre to each point meets nothing in its first 99.99
    %."""
    free = np.empty(len(xyz), np.bool_)
    _unoccluded(np.ascontiguousarray(solids), center, xyz, 1 - 1e-4, free)
    return free


@njit(cache=True)
def _slab(origin, direction, half):
    if abs(direction) < 1e-12:
        return (-1e18, 1e18) if abs(origin) <= half else (1e18, -1e18)
    a, b = (-half - origin) / direction, (half - origin) / direction
    return min(a, b), max(a, b)


@njit(cache=True)
def _quadratic(a, b, c):
    """Where a t^2 + 2 b t + c <= 0."""
    root = b * b - a * c
    if root <= 0:
        return 1e18, -1e18
    if a < 1e-12:
        return (-1e18, 1e18) if c <= 0 else (1e18, -1e18)
    root = math.sqrt(root)
    return (-b - root) / a, (-b + root) / a


@njit(cache=True)
def _to_local(solids, p, x, y):
    return solids[p, 7] * x + solids[p, 8] * y, solids[p, 7] * y - solids[p, 8] * x


@njit(cache=True)
def _interval(solids, p, ox, oy, oz, dx, dy, dz):
    """Enter and exit parameter of a ray in a solid (enter > exit: missed), and the axis of either
    face."""
    kind = solids[p, 0]
    hx = solids[p, 4]
    hy = solids[p, 5]
    hz = solids[p, 6]
    x, y = _to_local(solids, p, ox - solids[p, 1], oy - solids[p, 2])
    z = oz - solids[p, 3]
    dx, dy = _to_local(solids, p, dx, dy)
    enter, leave = _slab(z, dz, hz)
    axis_in = 2
    axis_out = 2
    if kind in (ELLIPSOID, CYLINDER):
        x = x / hx
        y = y / hy
        dx = dx / hx
        dy = dy / hy
        e = 1 / hz if kind == ELLIPSOID else 0.0
        a, b = _quadratic(
            dx * dx + dy * dy + (dz * e) ** 2,
            x * dx + y * dy + z * dz * e * e,
            x * x + y * y + (z * e) ** 2 - 1,
        )
        if a > enter or kind == ELLIPSOID:
            enter = a
            axis_in = CURVED
        if b < leave or kind == ELLIPSOID:
            leave = b
            axis_out = CURVED
        return enter, leave, axis_in, axis_out
    a, b = _slab(x, dx, hx)
    if a > enter:
        enter = a
        axis_in = 0
    if b < leave:
        leave = b
        axis_out = 0
    a, b = _slab(y, dy, hy)
    if a > enter:
        enter = a
        axis_in = 1
    if b < leave:
        leave = b
        axis_out = 1
    return enter, leave, axis_in, axis_out


@njit(cache=True)
def _first_hit(solids, listed, count, ox, oy, oz, dx, dy, dz):
    """Ray parameter, solid and axis of the nearest face; the room is hit from inside."""
    nearest = 1e18
    hit = 0
    axis = 0
    for k in range(count):
        p = listed[k]
        enter, leave, axis_in, axis_out = _interval(solids, p, ox, oy, oz, dx, dy, dz)
        if enter > leave:
            continue
        if solids[p, 0] == ROOM:
            enter = leave
            axis_in = axis_out
        if 1e-9 < enter < nearest:
            nearest = enter
            hit = p
            axis = axis_in
    return nearest, hit, axis


@njit(cache=True)
def _face(solids, p, axis, x, y, z, dx, dy):
    """Normal in the world (against the ray), u and v on the face, and which of the axis' two faces
    it is."""
    lx, ly = _to_local(solids, p, x - solids[p, 1], y - solids[p, 2])
    lz = z - solids[p, 3]
    c = solids[p, 7]
    s = solids[p, 8]
    if axis == 2:
        return 0.0, 0.0, (1.0 if (lz > 0) != (solids[p, 0] == ROOM) else -1.0), lx, ly, 0
    if axis == CURVED:
        hx = solids[p, 4]
        hy = solids[p, 5]
        hz = solids[p, 6]
        round_z = solids[p, 0] == ELLIPSOID
        nx = lx / hx**2
        ny = ly / hy**2
        nz = lz / hz**2 if round_z else 0.0
        norm = math.sqrt(nx * nx + ny * ny + nz * nz)
        u = math.atan2(lx / hx, -ly / hy) * hx
        v = math.asin(min(max(lz / hz, -1.0), 1.0)) * hz if round_z else lz
        return (c * nx - s * ny) / norm, (s * nx + c * ny) / norm, nz / norm, u, v, 0
    rx, ry = _to_local(solids, p, dx, dy)
    if axis == 0:
        sign = -1.0 if rx > 0 else 1.0
        return sign * c, sign * s, 0.0, ly, lz, int(sign > 0)
    sign = -1.0 if ry > 0 else 1.0
    return -sign * s, sign * c, 0.0, lx, lz, int(sign > 0)


@njit(cache=True)
def _shadow(solids, p, x, y, z, lx, ly, lz, length):
    """Share of the lamp's light that passes a solid: falls with the chord, the slower the farther
    the solid is."""
    enter, leave, _, _ = _interval(solids, p, x, y, z, lx, ly, lz)
    enter = max(enter, 0.0)
    leave = min(leave, 1.0)
    if enter >= leave:
        return 1.0
    return math.exp(-(leave - enter) * length / (0.03 + 0.18 * enter * length))


@njit(cache=True)
def _occlusion(solids, p, vx, vy, vz, facing):
    """Share of the ambient light left by a solid whose centre lies at v; facing is v's cosine to
    the normal."""
    lx, ly = _to_local(solids, p, vx, vy)
    hx = solids[p, 4]
    hy = solids[p, 5]
    hz = solids[p, 6]
    if solids[p, 0] == BOX:
        lx = max(abs(lx) - hx, 0.0)
        ly = max(abs(ly) - hy, 0.0)
        vz = max(abs(vz) - hz, 0.0)
        gap = math.sqrt(lx * lx + ly * ly + vz * vz)
    else:
        gap = max(math.sqrt((lx / hx) ** 2 + (ly / hy) ** 2 + (vz / hz) ** 2) - 1, 0.0) * min(
            hx, min(hy, hz)
        )
    return 1 - 0.65 * math.sqrt(facing) * math.exp(-gap / 0.12) * min(1.0, solids[p, 14] / 0.25)


@njit(cache=True)
def _corners(solids, x, y, z, nx, ny, nz):
    """Share of the ambient light left by the room's own walls, floor and ceiling near an edge."""
    left = 1.0
    for k, (offset, n, half) in enumerate(((x, nx, 4), (y, ny, 5), (z, nz, 6))):
        if abs(n) > 0.9:
            continue
        gap = solids[0, half] - abs(offset - solids[0, 1 + k])
        left *= 1 - 0.35 * math.exp(-max(gap, 0.0) / 0.25)
    return left


@njit(cache=True)
def _light(solids, p, x, y, z, nx, ny, nz):
    """Ambient and direct light on a surface point."""
    x = x + 1e-5 * nx
    y = y + 1e-5 * ny
    z = z + 1e-5 * nz
    lx = LIGHT_X - x
    ly = LIGHT_Y - y
    lz = LIGHT_Z - z
    length = math.sqrt(lx * lx + ly * ly + lz * lz)
    # a wrapped cosine stands for the width of the lamp and for light that bounces
    direct = max((lx * nx + ly * ny + lz * nz) / length + 0.15, 0.0) / 1.15
    direct *= 2.25 / (1 + 0.1 * length * length)
    ambient = (0.35 + 0.10 * nz) * _corners(solids, x, y, z, nx, ny, nz)
    for k in range(1, len(solids)):
        vx = solids[k, 1] - x
        vy = solids[k, 2] - y
        vz = solids[k, 3] - z
        squared = vx * vx + vy * vy + vz * vz
        radius = solids[k, 14]
        height = vx * nx + vy * ny + vz * nz
        if k == p or height <= -radius:
            continue
        if height > 0 and squared < (radius + 0.5) ** 2:
            ambient *= _occlusion(solids, k, vx, vy, vz, height / math.sqrt(squared))
        along = min(max((vx * lx + vy * ly + vz * lz) / length, 0.0), length)
        if direct > 1e-3 and (along == length or squared - along * along < radius * radius):
            direct *= _shadow(solids, k, x, y, z, lx, ly, lz, length)
    return ambient, direct


@njit(cache=True)
def _direction(K, pose, px, py):
    """A pixel's ray in the world, with z = 1 in camera axes, so that the ray parameter is the
    z-depth."""
    x, y = (px - K[0, 2]) / K[0, 0], (py - K[1, 2]) / K[1, 1]
    return (
        pose[0, 0] * x + pose[0, 1] * y + pose[0, 2],
        pose[1, 0] * x + pose[1, 1] * y + pose[1, 2],
        pose[2, 0] * x + pose[2, 1] * y + pose[2, 2],
    )


@njit(cache=True)
def _angle(ax, ay, az, bx, by, bz):
    lengths = math.sqrt((ax * ax + ay * ay + az * az) * (bx * bx + by * by + bz * bz))
    return math.acos(min(max((ax * bx + ay * by + az * bz) / lengths, -1.0), 1.0))


@njit(cache=True)
def _list_for_tile(solids, K, pose, x0, y0, listed):
    """Lists the solids whose bounding sphere meets the cone of a tile's rays; returns how many."""
    mx, my, mz = _direction(K, pose, x0 + TILE / 2, y0 + TILE / 2)
    reach = 0.0
    for corner in range(4):
        cx, cy, cz = _direction(K, pose, x0 + corner % 2 * TILE, y0 + corner // 2 * TILE)
        reach = max(reach, _angle(mx, my, mz, cx, cy, cz))
    count = 0
    for p in range(len(solids)):
        vx = solids[p, 1] - pose[0, 3]
        vy = solids[p, 2] - pose[1, 3]
        vz = solids[p, 3] - pose[2, 3]
        distance = math.sqrt(vx * vx + vy * vy + vz * vz)
        radius = solids[p, 14]
        if distance <= radius or _angle(mx, my, mz, vx, vy, vz) <= reach + math.asin(
            radius / distance
        ):
            listed[count] = p
            count += 1
    return count


@njit(cache=True)
def _trace_pixel(solids, listed, count, K, pose, px, py, samples, out):
    """Fills the pixel's surface samples; light is found once a face, at the first ray that meets
    it."""
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
        # a sheared grid: no two samples share a row or a column, so edges along the pixel grid get all grey levels
        i, j = k % samples, k // samples
        sx = 0.5 if k < 0 else (i + (j + 0.5) / samples) / samples
        sy = 0.5 if k < 0 else (j + (samples - i - 0.5) / samples) / samples
        dx, dy, dz = _direction(K, pose, px + sx, py + sy)
        t, p, axis = _first_hit(solids, listed, count, ox, oy, oz, dx, dy, dz)
        x = ox + t * dx
        y = oy + t * dy
        z = oz + t * dz
        nx, ny, nz, u, v, side = _face(solids, p, axis, x, y, z, dx, dy)
        if p != lit_p or axis != lit_axis:
            ambient, direct = _light(solids, p, x, y, z, nx, ny, nz)
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
        out[k, 5] = 0.94 * ambient + direct
        out[k, 6] = ambient + 0.93 * direct
        out[k, 7] = 1.06 * ambient + 0.82 * direct
    return center_t, center_p


@njit(parallel=True, cache=True)
def _trace(solids, K, pose, samples, surface, depth, index):
    height, width = depth.shape
    columns = (width + TILE - 1) // TILE
    for tile in prange(columns * ((height + TILE - 1) // TILE)):
        x0 = tile % columns * TILE
        y0 = tile // columns * TILE
        listed = np.empty(len(solids), np.int64)
        count = _list_for_tile(solids, K, pose, x0, y0, listed)
        for y in range(y0, min(y0 + TILE, height)):
            for x in range(x0, min(x0 + TILE, width)):
                t, p = _trace_pixel(solids, listed, count, K, pose, x, y, samples, surface[y, x])
                depth[y, x] = t
                index[y, x] = p


@njit(parallel=True, cache=True)
def _unoccluded(solids, center, xyz, limit, free):
    everything = np.arange(len(solids))
    for n in prange(len(xyz)):
        d = xyz[n] - center
        t, _, _ = _first_hit(
            solids, everything, len(solids), center[0], center[1], center[2], d[0], d[1], d[2]
        )
        free[n] = t > limit
