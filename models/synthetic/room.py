"""What stands in the synthetic room, of what it is made, and how the carts and the camera move."""

import math

import numpy as np
import torch
from jaxtyping import Float

from models.cameras import Cameras, look_at
from models.run import InputError
from models.synthetic.rays import BOX, CYLINDER, ELLIPSOID, ROOM
from models.synthetic.textures import DOTS, GRID, PLAIN, POSTER, STONES, TRIANGLES

MAX_MOVERS = 3
_CART_LANES = ((0.0, -0.05), (0.0, 0.85), (-0.35, -0.95))

# name: pattern, cell width and height, row offset (over 0.6: random), joint, grain along u and v, strength, tint,
# two colours of the cells, colour of the joints (discs, other triangle); colours as in the web
_MATERIALS = {
    "brick": (GRID, 0.26, 0.10, 0.5, 0.008, 22, 30, 0.5, 0.14, "a86e5c", "cc997d", "ccc4b5"),
    "plaster": (PLAIN, 1, 1, 0, 0, 7, 9, 0.35, 0, "b0bda8", "bdc7ad", "000000"),
    "floor": (GRID, 0.95, 0.14, 1, 0.004, 5, 55, 0.55, 0.07, "946b45", "bd8f5e", "382417"),
    "wainscot": (GRID, 0.16, 1.4, 1, 0.006, 45, 4, 0.5, 0.05, "4c666e", "5e7d85", "1f292e"),
    "walnut": (PLAIN, 1, 1, 0, 0, 6, 60, 0.8, 0, "734a2e", "664026", "000000"),
    "oak": (GRID, 0.7, 0.12, 1, 0.004, 6, 60, 0.7, 0.05, "b88a54", "cfa36b", "54381f"),
    "crate": (GRID, 2, 0.105, 1, 0.007, 7, 50, 0.8, 0.06, "a17a4c", "c29c66", "2e1c12"),
    "books": (GRID, 0.045, 2, 0, 0.003, 9, 6, 0.5, 0.85, "615c54", "9e856b", "14120f"),
    "rug": (TRIANGLES, 0.16, 0.16, 0, 0, 60, 60, 0.5, 0.45, "ad3d38", "c7854c", "293d5c"),
    "barrel": (GRID, 0.09, 2, 0, 0.005, 40, 5, 0.8, 0.08, "85542e", "a36e40", "24170d"),
    "hoop": (PLAIN, 1, 1, 0, 0, 40, 40, 0.7, 0, "47474c", "545457", "000000"),
    "ball": (DOTS, 0.13, 0.13, 0, 0, 20, 20, 0.3, 0.3, "edc74c", "f5d670", "bf332e"),
    "stone": (STONES, 0.15, 0.15, 0, 0.007, 25, 25, 0.7, 0.12, "858078", "b2a899", "42403d"),
    "vase": (TRIANGLES, 0.07, 0.07, 0, 0, 40, 40, 0.2, 0.1, "e0decc", "f0ebde", "244c94"),
    "dark": (DOTS, 0.07, 0.07, 0, 0, 30, 30, 0.5, 0.2, "2e3338", "424547", "bfb28c"),
    "cart": (TRIANGLES, 0.115, 0.115, 0, 0, 28, 28, 0.4, 0.55, "db9433", "edc254", "1a6b78"),
    "mosaic": (STONES, 0.10, 0.10, 0, 0.006, 30, 30, 0.3, 0.7, "9e998c", "e0cca8", "1f1f21"),
    "ceiling": (GRID, 1.2, 0.3, 0.5, 0.005, 8, 30, 0.4, 0.04, "ccc7ba", "dbd6cc", "6b665c"),
}  # fmt: skip
_PAPERS = (("eddeb8", "d96642"), ("cce0e6", "33597a"),
           ("f2ede0", "f0bd47"), ("47705c", "e6d6a8"))  # fmt: skip


class Room:
    """The solids of one room; the same seed builds the same room.

    Raises:
        InputError: the room has no lane for so many movers.
    """

    def __init__(self, seed: int, num_movers: int):
        if not 0 <= num_movers <= MAX_MOVERS:
            raise InputError(
                f"num_movers is {num_movers}; the room has lanes for 0 to {MAX_MOVERS} carts: choose one of these"
            )
        self._random = np.random.default_rng(seed)
        self._names = list(_MATERIALS)
        self._materials = [_material_row(*row) for row in _MATERIALS.values()]
        self._solids: list[list] = []
        self._turn = self._random.uniform(-0.25, 0.25, MAX_MOVERS)
        self._add(ROOM, (0, -1, 1.5), (3.3, 3.2, 1.5), ("plaster", "brick", "floor"))
        self._build_shell()
        self._build_pictures()
        self._build_shelf(-1.75, 2.0)
        self._build_table(1.55, 1.62)
        self._build_loose_things()
        for mover in range(1, num_movers + 1):
            self._build_cart(mover)
        self.materials: Float[np.ndarray, "M 18"] = np.array(self._materials, np.float64)
        self._rows: Float[np.ndarray, "P 15"] = np.array(self._solids, np.float64)

    @property
    def mover_of_solid(self) -> np.ndarray:
        """For each solid the number of the cart that it is part of, 0 where it is static."""
        return self._rows[:, 9].astype(np.int64)

    def solids_at(self, progress: float) -> Float[np.ndarray, "P 15"]:
        """The table of solids at a moment; progress runs from 0 at the first frame to 1 at the
        last."""
        rows = self._rows.copy()
        for mover in range(1, self.mover_of_solid.max() + 1):
            part = self.mover_of_solid == mover
            pose = self.mover_pose(mover, progress)
            rows[part, 1:4] = rows[part, 1:4] @ pose[:3, :3].T + pose[:3, 3]
            rows[part, 7:9] = rows[part, 7:9] @ pose[:2, :2].T
        return rows

    def mover_pose(self, mover: int, progress: float) -> Float[np.ndarray, "4 4"]:
        """world_from_cart: the cart's origin is on the floor below its middle."""
        side = 1 if mover % 2 else -1
        s = progress - 0.5
        yaw = side * (1.9 * s + 0.25 * math.sin(4 * s)) + self._turn[mover - 1]
        pose = np.eye(4)
        pose[:2, :2] = [[math.cos(yaw), -math.sin(yaw)], [math.sin(yaw), math.cos(yaw)]]
        x, y = _CART_LANES[mover - 1]
        pose[:2, 3] = x + side * 1.9 * s, y + 0.22 * math.cos(3 * s) - 0.1
        return pose

    def _add(self, kind, center, half, materials, yaw=0.0, mover=0):
        ids = [
            self._names.index(name)
            for name in ((materials,) * 3 if isinstance(materials, str) else materials)
        ]
        radius = (
            math.hypot(*half)
            if kind in (BOX, ROOM)
            else max(half)
            if kind == ELLIPSOID
            else math.hypot(*half[1:])
        )
        seed = int(self._random.integers(1, 1 << 16)) * 16
        self._solids.append(
            [kind, *center, *half, math.cos(yaw), math.sin(yaw), mover, *ids, seed, radius]
        )

    def _build_shell(self):
        """Wainscot, rails, beams and a pillar, standing out of the walls."""
        for y, depth, name in ((2.18, 0.02, "wainscot"), (2.16, 0.04, "walnut")):
            low, high = (0.0, 0.85) if name == "wainscot" else (0.85, 0.92)
            self._add(BOX, (0, y, (low + high) / 2), (3.3, depth, (high - low) / 2), name)
        self._add(BOX, (0, 2.17, 0.06), (3.3, 0.035, 0.06), "walnut")
        for side in (-1, 1):
            self._add(BOX, (3.28 * side, -0.5, 0.42), (0.02, 2.7, 0.42), "wainscot")
            self._add(BOX, (3.26 * side, -0.5, 0.885), (0.04, 2.7, 0.035), "walnut")
        self._add(BOX, (0, -1, 2.98), (3.3, 3.2, 0.02), "ceiling")
        for x in (-2.1, -0.1, 1.9):
            self._add(BOX, (x, -1, 2.86), (0.09, 3.2, 0.1), "walnut")
        self._add(BOX, (2.95, 1.9, 1.5), (0.22, 0.3, 1.5), "stone")

    def _build_pictures(self):
        """Framed posters on the back wall."""
        places = (
            (-0.55, 1.62, 0.40, 0.52),
            (0.45, 1.78, 0.42, 0.30),
            (1.32, 1.60, 0.30, 0.42),
            (2.2, 1.72, 0.36, 0.28),
        )
        for k, (x, z, half_u, half_v) in enumerate(places):
            x += self._random.uniform(-0.06, 0.06)
            self._names.append(f"poster{k}")
            self._materials.append(
                _material_row(POSTER, half_u, half_v, 0, 0, 18, 18, 0.12, 0, *_PAPERS[k], "1a1a1f")
            )
            self._add(
                BOX,
                (x, 2.18, z),
                (half_u + 0.05, 0.03, half_v + 0.05),
                "walnut" if k % 2 else "oak",
            )
            self._add(BOX, (x, 2.165, z), (half_u, 0.03, half_v), f"poster{k}")

    def _build_shelf(self, x, y):
        """A bookcase with four rows of books, each row of its own height and depth."""
        for side in (-1, 1):
            self._add(BOX, (x + 0.62 * side, y, 0.95), (0.025, 0.18, 0.95), "walnut")
        self._add(BOX, (x, y + 0.15, 0.95), (0.6, 0.02, 0.95), "walnut")
        for z in (0.06, 0.50, 0.94, 1.38, 1.88):
            self._add(BOX, (x, y, z), (0.6, 0.18, 0.02), "oak")
        for z in (0.08, 0.52, 0.96, 1.40):
            half = self._random.uniform(0.34, 0.5)
            tall = self._random.uniform(0.13, 0.175)
            left = self._random.choice((-1.0, 1.0)) * (0.59 - half)
            self._add(BOX, (x + left, y - 0.01, z + tall), (half, 0.13, tall), "books")
        self._add(CYLINDER, (x + 0.3, y, 2.02), (0.1, 0.1, 0.12), "vase")
        self._add(BOX, (x - 0.25, y, 1.99), (0.2, 0.12, 0.09), "dark", yaw=0.3)

    def _build_table(self, x, y):
        """A table with a vase, a globe and boxes on it."""
        self._add(BOX, (x, y, 0.76), (0.75, 0.36, 0.025), "oak")
        for dx in (-0.68, 0.68):
            for dy in (-0.3, 0.3):
                self._add(BOX, (x + dx, y + dy, 0.37), (0.035, 0.035, 0.37), "walnut")
        self._add(ELLIPSOID, (x - 0.5, y, 0.965), (0.12, 0.12, 0.18), "vase")
        self._add(CYLINDER, (x - 0.5, y, 1.15), (0.05, 0.05, 0.05), "vase")
        self._add(BOX, (x - 0.05, y + 0.05, 0.885), (0.16, 0.11, 0.10), "mosaic", yaw=0.4)
        self._add(ELLIPSOID, (x + 0.42, y - 0.05, 0.96), (0.175, 0.175, 0.175), "mosaic")
        self._add(BOX, (x + 0.05, y + 0.1, 0.2), (0.35, 0.22, 0.2), "crate", yaw=-0.1)

    def _build_loose_things(self):
        """Rug, barrel, crates, ball, a block near the camera and a lamp post."""
        shift = self._random.uniform(-0.08, 0.08, 6)
        self._add(
            BOX, (0.05 + shift[0], 0.15, 0.004), (1.45, 0.95, 0.004), "rug", yaw=0.06 + shift[1]
        )
        self._add(CYLINDER, (0.35 + shift[2], 1.78, 0.36), (0.25, 0.25, 0.36), "barrel")
        for z in (0.1, 0.6):
            self._add(CYLINDER, (0.35 + shift[2], 1.78, z), (0.257, 0.257, 0.03), "hoop")
        self._add(BOX, (-2.35, 0.75, 0.3), (0.34, 0.3, 0.3), "crate", yaw=0.35 + shift[3])
        self._add(BOX, (-2.4, 0.78, 0.8), (0.22, 0.24, 0.2), "crate", yaw=-0.2 + shift[4])
        self._add(ELLIPSOID, (-0.62, 1.55 + shift[5], 0.27), (0.27, 0.27, 0.27), "ball")
        self._add(BOX, (2.35, 0.35, 0.24), (0.26, 0.26, 0.24), "dark", yaw=0.5 + shift[0])
        self._add(BOX, (2.3, 0.38, 0.54), (0.3, 0.3, 0.06), "brick", yaw=0.45)
        self._add(BOX, (1.5, -1.35, 0.3), (0.2, 0.2, 0.3), "stone", yaw=0.3 + shift[3])

    def _build_cart(self, mover):
        """A box on four wheels with a crate and a ball on top, around the origin; solids_at puts it
        in its place."""
        self._add(BOX, (0, 0, 0.34), (0.36, 0.24, 0.2), "cart", mover=mover)
        self._add(BOX, (0, 0, 0.12), (0.40, 0.27, 0.03), "walnut", mover=mover)
        for x in (-0.27, 0.27):
            for y in (-0.29, 0.29):
                self._add(ELLIPSOID, (x, y, 0.11), (0.11, 0.035, 0.11), "dark", mover=mover)
        self._add(
            BOX,
            (-0.14, 0, 0.68),
            (0.15, 0.15, 0.14),
            "mosaic" if mover % 2 else "crate",
            yaw=0.2,
            mover=mover,
        )
        self._add(ELLIPSOID, (0.2, 0, 0.66), (0.12, 0.12, 0.12), "vase", mover=mover)


def camera_path(num_frames: int, width: int, height: int, motion: str) -> Cameras:
    """The camera of the clip: carried sideways, turned about a fixed centre, or standing still.

    Raises:
        InputError: motion is none of "sideways", "turn" and "still".
    """
    if motion not in ("sideways", "turn", "still"):
        raise InputError(f'motion is "{motion}"; it must be "sideways", "turn" or "still"')
    poses = []
    for s in np.linspace(-0.5, 0.5, num_frames) if num_frames > 1 else [0.0]:
        # slow sines that share no period stand for a hand
        sway = [math.sin(7 * s), math.sin(11 * s + 1), math.sin(5 * s + 2)]
        eye = [0.0, -3.3, 1.35]
        target = [0.0, 1.2, 0.78]
        if motion == "sideways":
            eye = [-1.25 * s, -3.25 + 0.12 * sway[0], 1.35 + 0.05 * sway[1]]
            target = [-0.1 * s + 0.05 * sway[2], 1.2, 0.80 + 0.03 * sway[0]]
        elif motion == "turn":
            target = [0.9 * math.sin(2.4 * s), 1.2, 0.80 + 0.1 * sway[0]]
        up = [0.02 * sway[1] if motion != "still" else 0.0, 0.0, 1.0]
        poses.append(look_at(*(torch.tensor(v, dtype=torch.float64) for v in (eye, target, up))))
    focal = width * 5 / 6
    K = torch.tensor(
        [[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]], dtype=torch.float64
    )
    return Cameras(K.repeat(num_frames, 1, 1), torch.stack(poses), width, height)


def _material_row(
    pattern, cell_u, cell_v, offset, joint, grain_u, grain_v, strength, tint, *colours
) -> list:
    linear = [(byte / 255) ** 2.2 for colour in colours for byte in bytes.fromhex(colour)]
    return [pattern, cell_u, cell_v, offset, joint, grain_u, grain_v, strength, tint, *linear]
