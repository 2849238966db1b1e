"""Procedural textures of the synthetic room: band-limited patterns with corners at several scales;
numba kernels.

A material is a row of ``materials`` (M, 18): pattern, cell width and height, row offset, joint
width, grain frequency along u and v, grain strength, tint of single cells, three linear RGB colours
(cells mix the first two, the third is that of joints). Lengths are metres on the surface. In the
kernels m is the row of a material, u and v the place on the surface, w the width of the sample.
"""

import math

import numpy as np
from jaxtyping import Float
from numba import prange

from models.run import njit

PATTERNS = "plain", "grid", "dots", "triangles", "stones", "poster"
PLAIN, GRID, DOTS, TRIANGLES, STONES, POSTER = range(len(PATTERNS))


def shade(
    materials: Float[np.ndarray, "M 18"], surface: Float[np.ndarray, "H W S 8"], gamma: float = 2.2
) -> Float[np.ndarray, "H W 3"]:
    """Pixels from 0 to 255, not rounded: texture times light, mean of S samples, gamma encoded.

    Args:
        surface: of each sample material, seed, u and v on the surface, width of the sample there,
            light (RGB); see ``rays.trace``.
    """
    rgb = np.empty((*surface.shape[:2], 3), np.float32)
    _shade(materials, surface, 1 / gamma, rgb)
    return rgb


@njit(parallel=True, cache=True)
def _shade(materials, surface, power, rgb):
    height, width, samples, _ = surface.shape
    for row in prange(height):
        for column in range(width):
            r = 0.0
            g = 0.0
            b = 0.0
            for k in range(samples):
                s = surface[row, column, k]
                red, green, blue = _draw_texture(
                    materials, int(s[0]), float(s[2]), float(s[3]), float(s[4]), int(s[1])
                )
                r = r + red * s[5]
                g = g + green * s[6]
                b = b + blue * s[7]
            rgb[row, column, 0] = 255 * _clip(r / samples) ** power
            rgb[row, column, 1] = 255 * _clip(g / samples) ** power
            rgb[row, column, 2] = 255 * _clip(b / samples) ** power


@njit(cache=True)
def _hash_cell(i, j, seed):
    """Pseudo-random number in [0, 1) of a lattice cell."""
    h = (int(i) * 374761393 + int(j) * 668265263 + int(seed) * 144664909) & 0xFFFFFFFF
    h = ((h ^ (h >> 13)) * 1274126177) & 0xFFFFFFFF
    h = ((h ^ (h >> 15)) * 1103515245) & 0xFFFFFFFF
    return (h ^ (h >> 16)) / 4294967296.0


@njit(cache=True)
def _clip(x):
    return min(max(x, 0.0), 1.0)


@njit(cache=True)
def _interpolate_noise(u, v, seed):
    """Value noise in [0, 1]: a random value at each lattice point, smooth between."""
    i, j = math.floor(u), math.floor(v)
    a, b = u - i, v - j
    a, b = a * a * (3 - 2 * a), b * b * (3 - 2 * b)
    low = _hash_cell(i, j, seed) * (1 - a) + _hash_cell(i + 1, j, seed) * a
    high = _hash_cell(i, j + 1, seed) * (1 - a) + _hash_cell(i + 1, j + 1, seed) * a
    return low * (1 - b) + high * b


@njit(cache=True)
def _add_octaves(u, v, w, fu, fv, seed):
    """Three octaves of noise around 0; an octave fades out before samples alias it."""
    total = 0.0
    weight = 1.0
    for octave in range(3):
        fade = _clip(2 - 4 * w * max(fu, fv))
        if fade <= 0:
            break
        total += fade * weight * (_interpolate_noise(u * fu, v * fv, seed + octave) - 0.5)
        weight = weight * 0.7
        fu = fu * 2.3
        fv = fv * 2.3
    return total


@njit(cache=True)
def _cover_line(distance, half, w):
    """Share of a sample of width w that a line covers; distance: from the middle of the line."""
    return max(min(distance + w / 2, half) - max(distance - w / 2, -half), 0.0) / w


@njit(cache=True)
def _draw_grid(materials, m, u, v, w, seed):
    """Bricks, tiles, planks, books: coverage of the joint and the cell's two indices."""
    width = materials[m, 1]
    height = materials[m, 2]
    joint = materials[m, 4]
    v += height / 2
    j = math.floor(v / height)
    u += width * materials[m, 3] * (_hash_cell(j, 7, seed) if materials[m, 3] > 0.6 else j % 2)
    i = math.floor(u / width)
    du = min(u - i * width, (i + 1) * width - u)
    dv = min(v - j * height, (j + 1) * height - v)
    covered = 1 - (1 - _cover_line(du, joint, w)) * (1 - _cover_line(dv, joint, w))
    return covered, i, j


@njit(cache=True)
def _draw_dots(materials, m, u, v, w, seed):
    """A disc of random radius in each cell."""
    size = materials[m, 1]
    i, j = math.floor(u / size), math.floor(v / size)
    radius = size * (0.2 + 0.22 * _hash_cell(i, j, seed + 3))
    distance = math.hypot(u - (i + 0.5) * size, v - (j + 0.5) * size)
    return _clip((radius - distance) / w + 0.5), i, j


@njit(cache=True)
def _draw_triangles(materials, m, u, v, w, seed):
    """Each cell is cut along a random diagonal."""
    size = materials[m, 1]
    i, j = math.floor(u / size), math.floor(v / size)
    a, b = u / size - i, v / size - j
    across = a - b if _hash_cell(i, j, seed + 5) < 0.5 else a + b - 1
    return _clip(across * size / (1.4 * w) + 0.5), i, j


@njit(cache=True)
def _draw_stones(materials, m, u, v, w, seed):
    """Voronoi cells around jittered centres, with joints between them."""
    size = materials[m, 1]
    i0 = math.floor(u / size)
    j0 = math.floor(v / size)
    first = 1e9
    second = 1e9
    i1 = i0
    j1 = j0
    for j in range(j0 - 1, j0 + 2):
        for i in range(i0 - 1, i0 + 2):
            du = i + 0.15 + 0.7 * _hash_cell(i, j, seed) - u / size
            dv = j + 0.15 + 0.7 * _hash_cell(i, j, seed + 1) - v / size
            distance = math.hypot(du, dv)
            if distance < first:
                first, second, i1, j1 = distance, first, i, j
            elif distance < second:
                second = distance
    return _cover_line((second - first) * size / 2, materials[m, 4], w), i1, j1


@njit(cache=True)
def _draw_pattern(materials, m, u, v, w, seed):
    """Coverage of the third colour and the indices of the cell."""
    kind = materials[m, 0]
    if kind == GRID:
        return _draw_grid(materials, m, u, v, w, seed)
    if kind == DOTS:
        return _draw_dots(materials, m, u, v, w, seed)
    if kind == TRIANGLES:
        return _draw_triangles(materials, m, u, v, w, seed)
    if kind == STONES:
        return _draw_stones(materials, m, u, v, w, seed)
    return 0.0, 0, 0


@njit(cache=True)
def _cover_type(half_u, half_v, u, v, w, seed):
    """Share of a sample that type covers: three lines, with gaps between words."""
    row = math.floor((v + half_v) / (half_v * 0.09))
    word = math.floor(u / (half_u * 0.05))
    if 1 < row < 7 and _hash_cell(word, row, seed) < 0.62 and row % 2 == 0:
        typed = _cover_line((v + half_v) - (row + 0.5) * half_v * 0.09, half_v * 0.035, w)
        return typed * _clip((half_u * 0.8 - abs(u)) / w)
    return 0.0


@njit(cache=True)
def _draw_poster(materials, m, u, v, w, seed, c):
    """Colour channel c of a print: discs, blocks and rings over two-tone paper, and type."""
    half_u = materials[m, 1]
    half_v = materials[m, 2]
    paper = _clip((u * 0.4 + v - half_v * (_hash_cell(1, 1, seed) - 0.4)) / w + 0.5)
    colour = materials[m, 9 + c] * paper + materials[m, 12 + c] * (1 - paper)
    # nine shapes: below 0.2 a ring, below 0.5 a disc, else a block
    for k in range(9):
        du = u - half_u * (1.6 * _hash_cell(k, 2, seed) - 0.8)
        dv = v - half_v * (1.2 * _hash_cell(k, 3, seed) - 0.4)
        radius = min(half_u, half_v) * (0.12 + 0.4 * _hash_cell(k, 4, seed))
        shape = _hash_cell(k, 5, seed)
        distance = (
            math.hypot(du, dv) if shape < 0.5 else max(abs(du + 0.5 * dv), abs(dv - 0.5 * du)) / 1.1
        )
        covered = _clip((radius - distance) / w + 0.5)
        if shape < 0.2:
            covered = _cover_line(distance - radius, radius * 0.18, w)
        ink = 0.04 + 0.45 * _hash_cell(k, 6 + c, seed) ** 2 + 0.2 * _hash_cell(k, 9, seed)
        colour += covered * (ink - colour)
    return colour + _cover_type(half_u, half_v, u, v, w, seed) * (materials[m, 15 + c] - colour)


@njit(cache=True)
def _draw_texture(materials, m, u, v, w, seed):
    """Linear RGB of a material at a sample."""
    grain = 1 + materials[m, 7] * _add_octaves(u, v, w, materials[m, 5], materials[m, 6], seed + 11)
    if materials[m, 0] == POSTER:
        r = _draw_poster(materials, m, u, v, w, seed, 0)
        g = _draw_poster(materials, m, u, v, w, seed, 1)
        b = _draw_poster(materials, m, u, v, w, seed, 2)
        return r * grain, g * grain, b * grain
    joint, i, j = _draw_pattern(materials, m, u, v, w, seed)
    # cells smaller than a sample take the mean colour of all cells
    fade = _clip(2 - 2.5 * w / min(materials[m, 1], materials[m, 2]))
    mix = 0.5 + fade * (_hash_cell(i, j, seed + 17) - 0.5)
    tint = materials[m, 8] * fade
    r = materials[m, 9] * (1 - mix) + materials[m, 12] * mix
    g = materials[m, 10] * (1 - mix) + materials[m, 13] * mix
    b = materials[m, 11] * (1 - mix) + materials[m, 14] * mix
    r *= 1 + tint * (2 * _hash_cell(i, j, seed + 18) - 1)
    g *= 1 + tint * (2 * _hash_cell(i, j, seed + 19) - 1)
    b *= 1 + tint * (2 * _hash_cell(i, j, seed + 20) - 1)
    r += joint * (materials[m, 15] - r)
    g += joint * (materials[m, 16] - g)
    b += joint * (materials[m, 17] - b)
    return r * grain, g * grain, b * grain
