"""Convex solids of the synthetic room: intersections with rays; numba kernels.

A scene at one moment is a table ``solids`` (P, 15). Columns: kind, centre (3), half size (3),
cosine and sine of the turn about z, mover (0 = static), materials of the faces across x, y and z
(of a curved face: the first), texture seed, bounding radius. Lengths are metres, z is up; solid
0 is the room itself, seen from inside.
"""

import math

from models.run import njit

SHAPES = "box", "ellipsoid", "cylinder", "room"
BOX, ELLIPSOID, CYLINDER, ROOM = range(len(SHAPES))
AXES = "x", "y", "z", "curved"
CURVED = AXES.index("curved")
"""Axis number of a curved face; a flat face lies across axis 0, 1 or 2."""


@njit(cache=True)
def _cut_slab(origin, direction, half):
    """Enter and exit parameter of a ray between two parallel planes at -half and half."""
    if abs(direction) < 1e-12:
        return (-1e18, 1e18) if abs(origin) <= half else (1e18, -1e18)
    a, b = (-half - origin) / direction, (half - origin) / direction
    return min(a, b), max(a, b)


@njit(cache=True)
def _solve_quadratic(a, b, c):
    """First and last t with a t^2 + 2 b t + c <= 0."""
    root = b * b - a * c
    if root <= 0:
        return 1e18, -1e18
    if a < 1e-12:
        return (-1e18, 1e18) if c <= 0 else (1e18, -1e18)
    root = math.sqrt(root)
    return (-b - root) / a, (-b + root) / a


@njit(cache=True)
def _cut_curved(x, y, z, dx, dy, dz, e):
    """Enter and exit parameter of a ray in x^2 + y^2 + (e z)^2 <= 1."""
    return _solve_quadratic(
        dx * dx + dy * dy + (dz * e) ** 2,
        x * dx + y * dy + z * dz * e * e,
        x * x + y * y + (z * e) ** 2 - 1,
    )


@njit(cache=True)
def turn_to_local(solids, p, x, y):
    """A direction's x and y in the axes of a solid, which is turned about z only."""
    return solids[p, 7] * x + solids[p, 8] * y, solids[p, 7] * y - solids[p, 8] * x


@njit(cache=True)
def find_interval(solids, p, ox, oy, oz, dx, dy, dz):
    """Enter and exit parameter of a ray in a solid, and the axis of the face at each.

    A ray misses the solid if enter > exit. o and d: origin and direction of the ray in the world.
    """
    kind = solids[p, 0]
    hx = solids[p, 4]
    hy = solids[p, 5]
    hz = solids[p, 6]
    x, y = turn_to_local(solids, p, ox - solids[p, 1], oy - solids[p, 2])
    z = oz - solids[p, 3]
    dx, dy = turn_to_local(solids, p, dx, dy)
    enter, leave = _cut_slab(z, dz, hz)
    axis_in = 2
    axis_out = 2
    if kind in (ELLIPSOID, CYLINDER):
        # only a cylinder has flat ends; e: 1 / half height, 0 for the endless side of a cylinder
        e = 1 / hz if kind == ELLIPSOID else 0.0
        a, b = _cut_curved(x / hx, y / hy, z, dx / hx, dy / hy, dz, e)
        if a > enter or kind == ELLIPSOID:
            enter = a
            axis_in = CURVED
        if b < leave or kind == ELLIPSOID:
            leave = b
            axis_out = CURVED
        return enter, leave, axis_in, axis_out
    a, b = _cut_slab(x, dx, hx)
    if a > enter:
        enter = a
        axis_in = 0
    if b < leave:
        leave = b
        axis_out = 0
    a, b = _cut_slab(y, dy, hy)
    if a > enter:
        enter = a
        axis_in = 1
    if b < leave:
        leave = b
        axis_out = 1
    return enter, leave, axis_in, axis_out


@njit(cache=True)
def find_first_hit(solids, listed, count, ox, oy, oz, dx, dy, dz):
    """Ray parameter, solid and axis of the nearest face, among the first ``count`` listed solids.

    The room is hit from inside, at the exit of its interval.
    """
    nearest = 1e18
    hit = 0
    axis = 0
    for k in range(count):
        p = listed[k]
        enter, leave, axis_in, axis_out = find_interval(solids, p, ox, oy, oz, dx, dy, dz)
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
def _describe_curved(solids, p, x, y, z):
    """Normal, not normalised, and u and v on a curved face, at a point in the solid's own axes."""
    hx = solids[p, 4]
    hy = solids[p, 5]
    hz = solids[p, 6]
    round_z = solids[p, 0] == ELLIPSOID
    nx = x / hx**2
    ny = y / hy**2
    nz = z / hz**2 if round_z else 0.0
    u = math.atan2(x / hx, -y / hy) * hx
    v = math.asin(min(max(z / hz, -1.0), 1.0)) * hz if round_z else z
    return nx, ny, nz, u, v


@njit(cache=True)
def describe_face(solids, p, axis, x, y, z, dx, dy):
    """Normal in the world (against the ray), u and v in metres on the face, and 0 or 1 for the two
    faces across an axis.

    x, y, z: point on the face; dx, dy: direction of the ray.
    """
    lx, ly = turn_to_local(solids, p, x - solids[p, 1], y - solids[p, 2])
    lz = z - solids[p, 3]
    c = solids[p, 7]
    s = solids[p, 8]
    if axis == 2:
        return 0.0, 0.0, (1.0 if (lz > 0) != (solids[p, 0] == ROOM) else -1.0), lx, ly, 0
    if axis == CURVED:
        nx, ny, nz, u, v = _describe_curved(solids, p, lx, ly, lz)
        norm = math.sqrt(nx * nx + ny * ny + nz * nz)
        return (c * nx - s * ny) / norm, (s * nx + c * ny) / norm, nz / norm, u, v, 0
    rx, ry = turn_to_local(solids, p, dx, dy)
    if axis == 0:
        sign = -1.0 if rx > 0 else 1.0
        return sign * c, sign * s, 0.0, ly, lz, int(sign > 0)
    sign = -1.0 if ry > 0 else 1.0
    return -sign * s, sign * c, 0.0, lx, lz, int(sign > 0)
