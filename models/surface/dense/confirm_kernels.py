"""numba kernels that clean depth maps: agreement of views, weighted median along colours."""

import numpy as np

from models.run import njit


@njit(cache=True, nogil=True, error_model="numpy")
def count_agreement(rho, others, A, T, region, tolerance, top, bottom, out):
    """Counts the source views whose inverse depth maps ``others`` (S, H, W) confirm each pixel's
    surface, in rows [top, bottom).

    tolerance: largest relative difference of depth.
    """
    height, width = rho.shape
    for y in range(top, bottom):
        for x in range(width):
            out[y, x] = 0
            if not region[y, x]:
                continue
            px = x + 0.5
            py = y + 0.5
            r = rho[y, x]
            for s in range(len(A)):
                X = A[s, 0, 0] * px + A[s, 0, 1] * py + A[s, 0, 2] + T[s, 0] * r
                Y = A[s, 1, 0] * px + A[s, 1, 1] * py + A[s, 1, 2] + T[s, 1] * r
                Z = A[s, 2, 0] * px + A[s, 2, 1] * py + A[s, 2, 2] + T[s, 2] * r
                if Z > 0 and 0 <= X < Z * width and 0 <= Y < Z * height:
                    # z-depth in the source view: Z / r; its map holds 1 / z
                    out[y, x] += abs(others[s, int(Y / Z), int(X / Z)] * Z / r - 1) < tolerance


@njit(cache=True, nogil=True)
def filter_median(rho, sure, rgb, region, radius, sigma, top, bottom, out):
    """Weighted median (H, W) of the sure inverse depths within ``radius`` pixels, in rows [top,
    bottom); of every second pixel, as on a checkerboard, which takes half the time.

    Weights fall with the distance and with the colour difference; sigma in grey levels.

    Source: Ma et al., "Constant time weighted median filtering for stereo matching and beyond",
    2013.
    """
    height, width = rho.shape
    size = (2 * radius + 1) ** 2
    value = np.empty(size, np.float32)
    weight = np.empty(size, np.float32)
    for y in range(top, bottom):
        for x in range(width):
            out[y, x] = rho[y, x]
            if not region[y, x]:
                continue
            n = 0
            total = np.float32(0)
            for j in range(max(0, y - radius), min(height, y + radius + 1)):
                for i in range(max(0, x - radius), min(width, x + radius + 1)):
                    if (i + j + x + y) % 2 == 0 and sure[j, i]:
                        apart = np.float32(0)
                        for c in range(3):
                            apart += (rgb[j, i, c] - rgb[y, x, c]) ** 2
                        away = ((j - y) ** 2 + (i - x) ** 2) / np.float32(radius * radius)
                        value[n] = rho[j, i]
                        weight[n] = np.exp(-apart / (sigma * sigma) - away)
                        total += weight[n]
                        n += 1
            # no sure pixel of similar colour
            if not total > 1e-3:
                continue
            below = np.float32(0)
            for k in np.argsort(value[:n]):
                below += weight[k]
                if below >= total / 2:
                    out[y, x] = value[k]
                    break
