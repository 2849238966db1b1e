"""CPU kernels of the rasteriser: triangle setup, scanline fill with depth test, interpolation of
attributes.

Each does a range of the work, so that callers can share it out among threads
(models/run/threads.py).

No fast-math here. Only while no compiler contracts or reorders sums do the two sides of a shared
edge get opposite values, and does the rasteriser in plain torch give the same bits.

Planes (T, 4, 3) are affine in the pixel: three edge functions, positive inside, and inverse depth.
Boxes (T, 4) hold the first and last column, and the first and last row, of a triangle's pixels.
"""

import math

import numpy as np

from models.run import njit

# pixels from a pixel centre within which a solved end of a span is tested again
_NEARLY_INTEGER = 1e-6
# determinant, relative to the extents of the vertices, below which a triangle is seen edge-on
_DEGENERATE = 1e-12
# Bound on the rounding of an edge function, relative to image size and the extents of its two
# vertices. Edges are moved out by as much (about 1e-9 pixel): otherwise a pixel centre right on a
# vertex could fall between all the faces around it.
_EDGE_ROUNDING = 6e-15


@njit(nogil=True, cache=True, error_model="numpy")
def _cross(ax, ay, az, bx, by, bz):
    """Cross product a x b: the coefficients of the line through two homogeneous image points."""
    return ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx


@njit(nogil=True, cache=True, error_model="numpy")
def _clip_range(a, z, near, size):
    """First and last pixel, along an image axis, whose centre may lie in a triangle.

    a, z: homogeneous coordinates of the corners. The range covers depths >= near and is padded
    for rounding; the edge functions decide.
    """
    low, high = np.inf, -np.inf
    for k in range(3):
        j = (k + 1) % 3
        if z[k] >= near:
            low, high = min(low, a[k] / z[k]), max(high, a[k] / z[k])
        if (z[k] >= near) != (z[j] >= near):
            cut = (a[k] + (near - z[k]) / (z[j] - z[k]) * (a[j] - a[k])) / near
            low, high = min(low, cut), max(high, cut)
    pad = 1e-3
    if min(z[0], z[1], z[2]) < near:
        pad += 4e-15 * max(abs(a[0]), abs(a[1]), abs(a[2])) / near
    # numpy's ceil stays a float, which holds any coordinate; math's is an integer that overflows
    first = min(max(np.ceil(low - pad - 0.5), 0.0), float(size))
    last = max(min(np.floor(high + pad - 0.5), size - 1.0), -1.0)
    return int(first), int(last)


@njit(nogil=True, cache=True, error_model="numpy")
def _measure_extent(x, y, z, width, height):
    """Extent of a homogeneous vertex relative to the image, for the test of degeneracy."""
    return max(abs(x) / width, abs(y) / height, abs(z))


@njit(nogil=True, cache=True, error_model="numpy")
def _setup_triangle(points, face, width, height, near, planes, box):
    """Fills in planes (4, 3) and box (4,) of a triangle; see setup_triangles."""
    a = face[0]
    b = face[1]
    c = face[2]
    x = (points[a, 0], points[b, 0], points[c, 0])
    y = (points[a, 1], points[b, 1], points[c, 1])
    z = (points[a, 2], points[b, 2], points[c, 2])
    box[0] = 0
    box[1] = -1
    box[2] = 0
    box[3] = -1
    # wholly nearer than near, or behind the camera
    if not (z[0] >= near or z[1] >= near or z[2] >= near):
        return
    e0 = _cross(x[1], y[1], z[1], x[2], y[2], z[2])
    e1 = _cross(x[2], y[2], z[2], x[0], y[0], z[0])
    e2 = _cross(x[0], y[0], z[0], x[1], y[1], z[1])
    det = x[0] * e0[0] + y[0] * e0[1] + z[0] * e0[2]
    s0 = _measure_extent(x[0], y[0], z[0], width, height)
    s1 = _measure_extent(x[1], y[1], z[1], width, height)
    s2 = _measure_extent(x[2], y[2], z[2], width, height)
    if not (abs(det) > _DEGENERATE * (width * height) * (s0 * s1 * s2) and math.isfinite(det)):
        return
    # edge functions are positive inside, for either orientation
    sign = 1.0 if det > 0 else -1.0
    for k in range(3):
        planes[0, k] = sign * e0[k]
        planes[1, k] = sign * e1[k]
        planes[2, k] = sign * e2[k]
        planes[3, k] = ((e0[k] + e1[k]) + e2[k]) / det
    rounding = _EDGE_ROUNDING * (width * height)
    planes[0, 2] += rounding * (s1 * s2)
    planes[1, 2] += rounding * (s2 * s0)
    planes[2, 2] += rounding * (s0 * s1)
    box[0], box[1] = _clip_range(x, z, near, width)
    box[2], box[3] = _clip_range(y, z, near, height)


@njit(nogil=True, cache=True, error_model="numpy")
def setup_triangles(points, faces, begin, end, width, height, near, planes, boxes):
    """Fills in planes and boxes of the triangles [begin, end).

    points (V, 3) float64: homogeneous image points K v. A triangle that is not drawn gets an empty
    box.
    """
    for t in range(begin, end):
        _setup_triangle(points, faces[t], width, height, near, planes[t], boxes[t])


@njit(nogil=True, cache=True, error_model="numpy")
def setup_mesh(vertices, faces, image_from_world, width, height, near, planes, boxes):
    """setup_triangles for all faces of a mesh in world space; only vertices of faces are projected.

    image_from_world (3, 4): K [R | t]. Returns False, with planes unfinished, if a face names a
    vertex that does not exist.
    """
    points = np.empty((len(vertices), 3))
    known = np.zeros(len(vertices), np.bool_)
    for t in range(len(faces)):
        for k in range(3):
            v = faces[t, k]
            if v < 0 or v >= len(vertices):
                return False
            # vertices are shared by faces
            if not known[v]:
                known[v] = True
                x = np.float64(vertices[v, 0])
                y = np.float64(vertices[v, 1])
                z = np.float64(vertices[v, 2])
                for i in range(3):
                    row = image_from_world[i]
                    points[v, i] = row[0] * x + row[1] * y + row[2] * z + row[3]
        _setup_triangle(points, faces[t], width, height, near, planes[t], boxes[t])
    return True


@njit(nogil=True, cache=True, error_model="numpy", inline="always")
def _is_inside(planes, rest0, rest1, rest2, column):
    """True if a pixel centre is inside all edges; sums in the same order as everywhere else."""
    px = column + 0.5
    return (
        planes[0, 0] * px + rest0 >= 0
        and planes[1, 0] * px + rest1 >= 0
        and planes[2, 0] * px + rest2 >= 0
    )


@njit(nogil=True, cache=True, error_model="numpy", inline="always")
def _narrow(slope, rest, low, high):
    """Columns of low..high where slope * (column + 0.5) + rest >= 0."""
    if slope > 0:
        low = max(low, -rest / slope - 0.5)
    elif slope < 0:
        high = min(high, -rest / slope - 0.5)
    elif not rest >= 0:
        high = -1.0
    return low, high


@njit(nogil=True, cache=True, error_model="numpy")
def _find_span(planes, py, x0, x1):
    """First and last column of a triangle in the row with centre py.

    The ends are solved for; ends close to a pixel centre are tested. An edge function is monotone
    in the column even after rounding, so the two ends decide the whole span.
    """
    rest0 = planes[0, 1] * py + planes[0, 2]
    rest1 = planes[1, 1] * py + planes[1, 2]
    rest2 = planes[2, 1] * py + planes[2, 2]
    low, high = float(x0), float(x1)
    low, high = _narrow(planes[0, 0], rest0, low, high)
    low, high = _narrow(planes[1, 0], rest1, low, high)
    low, high = _narrow(planes[2, 0], rest2, low, high)
    if low > high + _NEARLY_INTEGER:
        return 0, -1
    first, last = math.ceil(low), math.floor(high)
    if abs(low - round(low)) < _NEARLY_INTEGER or abs(high - round(high)) < _NEARLY_INTEGER:
        first, last = max(first - 1, x0), min(last + 1, x1)
        while first <= last and not _is_inside(planes, rest0, rest1, rest2, first):
            first += 1
        while first <= last and not _is_inside(planes, rest0, rest1, rest2, last):
            last -= 1
    return first, last


@njit(nogil=True, cache=True, error_model="numpy")
def draw_band(planes, boxes, near, top, nearest, face):
    """Draws all triangles with depth >= near into face (rows, W), whose first row is image row
    ``top``; nearest (rows, W) takes the inverse depth."""
    bottom = top + len(face)
    # compared as float32, like the inverse depths
    limit = np.float32(1 / near)
    nearest[:] = 0
    face[:] = -1
    # only strictly nearer faces win, so at equal depth the lowest index stays
    for t in range(len(boxes)):
        if boxes[t, 2] >= bottom or boxes[t, 3] < top:
            continue
        plane = planes[t]
        x0 = boxes[t, 0]
        x1 = boxes[t, 1]
        for row in range(max(boxes[t, 2], top), min(boxes[t, 3] + 1, bottom)):
            py = row + 0.5
            first, last = _find_span(plane, py, x0, x1)
            slope = plane[3, 0]
            rest = plane[3, 1] * py + plane[3, 2]
            for column in range(first, last + 1):
                inverse = np.float32(slope * (column + 0.5) + rest)
                if inverse > nearest[row - top, column] and inverse <= limit:
                    nearest[row - top, column] = inverse
                    face[row - top, column] = t


@njit(nogil=True, cache=True, error_model="numpy")
def evaluate_depth(plane, px, py):
    """z-depth of a face at a pixel centre."""
    return np.float32(1 / (plane[3, 0] * px + (plane[3, 1] * py + plane[3, 2])))


@njit(nogil=True, cache=True, error_model="numpy")
def _resolve(planes, face, top, barycentric, depth):
    """Fills in barycentrics and depth of the faces in a band that starts at row ``top``."""
    for row in range(len(face)):
        py = top + row + 0.5
        for column in range(face.shape[1]):
            px = column + 0.5
            t = face[row, column]
            if t < 0:
                barycentric[row, column] = 0
                depth[row, column] = np.inf
                continue
            plane = planes[t]
            b0 = plane[0, 0] * px + (plane[0, 1] * py + plane[0, 2])
            b1 = plane[1, 0] * px + (plane[1, 1] * py + plane[1, 2])
            b2 = plane[2, 0] * px + (plane[2, 1] * py + plane[2, 2])
            total = b0 + b1 + b2
            scale = 1 / total if total > 0 else 0.0
            barycentric[row, column, 0] = b0 * scale
            barycentric[row, column, 1] = b1 * scale
            barycentric[row, column, 2] = b2 * scale
            depth[row, column] = evaluate_depth(plane, px, py)


@njit(nogil=True, cache=True, error_model="numpy")
def fill(planes, boxes, near, top, bottom, face, barycentric, depth):
    """Draws triangles that are set up into rows [top, bottom) of the buffers of a Fragments."""
    nearest = np.empty((bottom - top, face.shape[1]), np.float32)
    draw_band(planes, boxes, near, top, nearest, face[top:bottom])
    _resolve(planes, face[top:bottom], top, barycentric[top:bottom], depth[top:bottom])


@njit(nogil=True, cache=True, error_model="numpy")
def interpolate(face, barycentric, faces, attributes, top, bottom, out):
    """out (H, W, C) = sum over a face's corners of barycentric * attribute, in rows [top, bottom);
    0 in empty pixels."""
    for row in range(top, bottom):
        for column in range(face.shape[1]):
            t = face[row, column]
            if t < 0:
                out[row, column] = 0
                continue
            a = faces[t, 0]
            b = faces[t, 1]
            c = faces[t, 2]
            wa = barycentric[row, column, 0]
            wb = barycentric[row, column, 1]
            wc = barycentric[row, column, 2]
            for k in range(attributes.shape[1]):
                out[row, column, k] = (
                    wa * attributes[a, k] + wb * attributes[b, k] + wc * attributes[c, k]
                )
