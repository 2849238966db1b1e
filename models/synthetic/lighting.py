"""Light on the surfaces of the synthetic room: a lamp with soft shadows, ambient light with
occlusion; numba kernels.

The formulas are chosen for looks, not for physics. ``solids`` is the table of ``solids.py``.
"""

import math

from models.run import njit
from models.synthetic.solids import BOX, find_interval, turn_to_local

# place of the lamp in metres, near the ceiling behind the camera
_LAMP_X = -1.1
_LAMP_Y = -1.9
_LAMP_Z = 2.75


@njit(cache=True)
def _shade_from(solids, p, x, y, z, lx, ly, lz, length):
    """Share of the lamp's light that passes a solid.

    It falls with the chord of the ray in the solid. The farther the solid, the slower it falls: the
    penumbra widens. l: from the point to the lamp, of the given length.
    """
    enter, leave, _, _ = find_interval(solids, p, x, y, z, lx, ly, lz)
    enter = max(enter, 0.0)
    leave = min(leave, 1.0)
    if enter >= leave:
        return 1.0
    return math.exp(-(leave - enter) * length / (0.03 + 0.18 * enter * length))


@njit(cache=True)
def _occlude_ambient(solids, p, vx, vy, vz, facing):
    """Share of the ambient light that a nearby solid leaves.

    v: from the surface point to the solid's centre; facing: cosine between v and the normal.
    """
    lx, ly = turn_to_local(solids, p, vx, vy)
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
def _darken_corners(solids, x, y, z, nx, ny, nz):
    """Share of the ambient light that the room's walls, floor and ceiling leave near an edge."""
    left = 1.0
    for k, (offset, n, half) in enumerate(((x, nx, 4), (y, ny, 5), (z, nz, 6))):
        # the wall that the point lies on
        if abs(n) > 0.9:
            continue
        gap = solids[0, half] - abs(offset - solids[0, 1 + k])
        left *= 1 - 0.35 * math.exp(-max(gap, 0.0) / 0.25)
    return left


@njit(cache=True)
def find_light(solids, p, x, y, z, nx, ny, nz):
    """Ambient and direct light on a point of solid p with normal n; 1 is about full light."""
    # off the surface, so that rounding does not put the point inside its own solid
    x = x + 1e-5 * nx
    y = y + 1e-5 * ny
    z = z + 1e-5 * nz
    lx = _LAMP_X - x
    ly = _LAMP_Y - y
    lz = _LAMP_Z - z
    length = math.sqrt(lx * lx + ly * ly + lz * lz)
    # a wrapped cosine stands for the width of the lamp and for bounced light
    direct = max((lx * nx + ly * ny + lz * nz) / length + 0.15, 0.0) / 1.15
    direct *= 2.25 / (1 + 0.1 * length * length)
    ambient = (0.35 + 0.10 * nz) * _darken_corners(solids, x, y, z, nx, ny, nz)
    for k in range(1, len(solids)):
        vx = solids[k, 1] - x
        vy = solids[k, 2] - y
        vz = solids[k, 3] - z
        squared = vx * vx + vy * vy + vz * vz
        radius = solids[k, 14]
        height = vx * nx + vy * ny + vz * nz
        # bounding spheres below the surface hide nothing
        if k == p or height <= -radius:
            continue
        if height > 0 and squared < (radius + 0.5) ** 2:
            ambient *= _occlude_ambient(solids, k, vx, vy, vz, height / math.sqrt(squared))
        along = min(max((vx * lx + vy * ly + vz * lz) / length, 0.0), length)
        if direct > 1e-3 and (along == length or squared - along * along < radius * radius):
            direct *= _shade_from(solids, k, x, y, z, lx, ly, lz, length)
    return ambient, direct
