"""The synthetic room at any moment: static solids, and carts that travel and turn on the floor."""

import math

import numpy as np
from jaxtyping import Float, Int

from models.run import InputError
from models.synthetic.furniture import LOOSE, MATERIALS, PICTURES, PLACES, SOLIDS, Material, Solid
from models.synthetic.solids import BOX, ELLIPSOID, ROOM

# x and y in metres of the middle of each cart's way
_CART_LANES = ((0.0, -0.05), (0.0, 0.85), (-0.35, -0.95))

MAX_MOVERS = len(_CART_LANES)
"""Number of carts for which the room has a lane."""

# metres that a cart travels during the clip, and radians that it turns
_CART_WAY = 1.9
_CART_TURN = 1.9
# half width in radians of the random turn of each cart
_CART_SPREAD = 0.25
# half width of the random shift of pictures (metres) and of loose solids (metres or radians)
_PICTURE_SPREAD = 0.06
_LOOSE_SPREAD = 0.08
# height in metres of the foot of each row of books
_BOOK_ROWS = (0.08, 0.52, 0.96, 1.40)
# half the length of the board that a row of books stands on
_BOARD = 0.59
# metres from the middle of the bookcase to the middle of the books, and half their depth
_BOOKS_FORWARD = 0.01
_BOOKS_DEPTH = 0.13


class Room:
    """The solids of a room; the same seed builds the same room."""

    def __init__(self, seed: int, num_movers: int):
        """Builds the room.

        Raises:
            InputError: the room has no lane for so many carts.
        """
        _check_movers(num_movers)
        # the order of the draws is the seed's meaning: keep it
        self._random = np.random.default_rng(seed)
        self._names: list[str] = []
        self._materials: list[list[float]] = []
        self._solids: list[list[float]] = []
        for name, material in MATERIALS.items():
            self._add_material(name, material)
        self._turn = self._random.uniform(-_CART_SPREAD, _CART_SPREAD, MAX_MOVERS)
        self._add_solids((*SOLIDS["room"], *SOLIDS["shell"]))
        self._hang_pictures()
        self._add_shelf()
        self._add_solids([s.move(*PLACES["table"]) for s in SOLIDS["table"]])
        self._add_loose_solids()
        for mover in range(1, num_movers + 1):
            self._add_cart(mover)
        self.materials: Float[np.ndarray, "M 18"] = np.array(self._materials, np.float64)
        self._rows: Float[np.ndarray, "P 15"] = np.array(self._solids, np.float64)

    @property
    def mover_of_solid(self) -> Int[np.ndarray, "P"]:
        """Number of the cart that each solid is part of, 0 if it is static."""
        return self._rows[:, 9].astype(np.int64)

    def place_solids(self, progress: float) -> Float[np.ndarray, "P 15"]:
        """The table of solids at a moment; see ``solids``.

        Args:
            progress: 0 at the first frame, 1 at the last.
        """
        rows = self._rows.copy()
        for mover in range(1, self.mover_of_solid.max() + 1):
            part = self.mover_of_solid == mover
            pose = self.place_mover(mover, progress)
            rows[part, 1:4] = rows[part, 1:4] @ pose[:3, :3].T + pose[:3, 3]
            rows[part, 7:9] = rows[part, 7:9] @ pose[:2, :2].T
        return rows

    def place_mover(self, mover: int, progress: float) -> Float[np.ndarray, "4 4"]:
        """world_from_cart; the cart's origin is the point of the floor below its middle."""
        side = 1 if mover % 2 else -1
        s = progress - 0.5
        yaw = side * (_CART_TURN * s + 0.25 * math.sin(4 * s)) + self._turn[mover - 1]
        pose = np.eye(4)
        pose[:2, :2] = [[math.cos(yaw), -math.sin(yaw)], [math.sin(yaw), math.cos(yaw)]]
        x, y = _CART_LANES[mover - 1]
        pose[:2, 3] = x + side * _CART_WAY * s, y + 0.22 * math.cos(3 * s) - 0.1
        return pose

    def _add_material(self, name: str, material: Material) -> None:
        self._names.append(name)
        self._materials.append(material.as_row())

    def _add_solids(self, solids: "list[Solid] | tuple[Solid, ...]", mover: int = 0) -> None:
        """Appends rows to the table of solids; each draws a random seed for its texture."""
        for solid in solids:
            given = solid.materials
            names = (given,) * 3 if isinstance(given, str) else given
            ids = [self._names.index(name) for name in names]
            seed = int(self._random.integers(1, 1 << 16)) * 16
            turn = math.cos(solid.yaw), math.sin(solid.yaw)
            self._solids.append(
                [solid.kind, *solid.center, *solid.half, *turn, mover, *ids, seed, _bound_radius(solid)]
            )  # fmt: skip

    def _hang_pictures(self) -> None:
        for k, picture in enumerate(PICTURES):
            shift = self._random.uniform(-_PICTURE_SPREAD, _PICTURE_SPREAD)
            picture = picture._replace(x=picture.x + shift)
            self._add_material(f"poster{k}", picture.poster)
            self._add_solids((picture.frame_solid, picture.print_solid(f"poster{k}")))

    def _add_shelf(self) -> None:
        """A bookcase; each row of books has a random length and height and stands at the left or
        the right end of its board."""
        place = PLACES["shelf"]
        self._add_solids([s.move(*place) for s in SOLIDS["shelf"]])
        for z in _BOOK_ROWS:
            half = self._random.uniform(0.34, 0.5)
            tall = self._random.uniform(0.13, 0.175)
            left = self._random.choice((-1.0, 1.0)) * (_BOARD - half)
            size = half, _BOOKS_DEPTH, tall
            books = Solid(BOX, (left, -_BOOKS_FORWARD, z + tall), size, "books")
            self._add_solids([books.move(*place)])
        self._add_solids([s.move(*place) for s in SOLIDS["on shelf"]])

    def _add_loose_solids(self) -> None:
        shifts = self._random.uniform(-_LOOSE_SPREAD, _LOOSE_SPREAD, 6)
        for solid, numbers in LOOSE:
            own = {coordinate: shifts[k] for coordinate, k in numbers.items()}
            self._add_solids([solid.move(**own)])

    def _add_cart(self, mover: int) -> None:
        """A cart around the origin, which ``place_solids`` moves to its place."""
        crate, ball = SOLIDS["cart load"]
        if mover % 2 == 0:
            crate = Solid(crate.kind, crate.center, crate.half, "crate", crate.yaw)
        self._add_solids((*SOLIDS["cart"], crate, ball), mover)


def _check_movers(num_movers: int) -> None:
    if not 0 <= num_movers <= MAX_MOVERS:
        raise InputError(
            f"num_movers is {num_movers}; the room has lanes for 0 to {MAX_MOVERS} carts: "
            "choose one of these"
        )


def _bound_radius(solid: Solid) -> float:
    """Radius of a sphere around the centre that holds the solid."""
    if solid.kind in (BOX, ROOM):
        return math.hypot(*solid.half)
    return max(solid.half) if solid.kind == ELLIPSOID else math.hypot(*solid.half[1:])
