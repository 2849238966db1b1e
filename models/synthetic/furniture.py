"""Tables of the synthetic room: its materials and its solids.

Lengths in metres, angles in radians, z up; the floor is z = 0 and the back wall y = 2.2.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

from models.synthetic.solids import BOX, CYLINDER, ELLIPSOID, ROOM
from models.synthetic.textures import DOTS, GRID, PLAIN, POSTER, STONES, TRIANGLES


class Material(NamedTuple):
    """Texture of a surface; see ``textures``."""

    pattern: int
    """PLAIN, GRID, DOTS, TRIANGLES, STONES or POSTER."""
    cell_u: float
    """Cell width; half the width of a poster."""
    cell_v: float
    """Cell height; half the height of a poster."""
    offset: float
    """Shift of every second row, as a share of the cell width; above 0.6 rows shift at random."""
    joint: float
    """Half the width of the joints between cells."""
    grain_u: float
    """Frequency of the grain along u, in 1/m."""
    grain_v: float
    """Frequency of the grain along v, in 1/m."""
    strength: float
    """Relative strength of the grain."""
    tint: float
    """Relative difference of colour between cells."""
    first: str
    """First colour of the cells, sRGB in hexadecimal."""
    second: str
    """Second colour of the cells."""
    third: str
    """Colour of the joints, discs, second triangles or print."""

    def as_row(self) -> list[float]:
        """Row of the table of ``textures``: the numbers, and the colours as linear RGB."""
        colours = self.first, self.second, self.third
        linear = [(byte / 255) ** 2.2 for colour in colours for byte in bytes.fromhex(colour)]
        return [*self[:-3], *linear]


@dataclass(frozen=True)
class Solid:
    """A convex body."""

    kind: int
    """BOX, ELLIPSOID, CYLINDER or ROOM."""
    center: tuple[float, float, float]
    half: tuple[float, float, float]
    """Half extents along its own x, y and z."""
    materials: str | tuple[str, str, str]
    """Material, or the materials of the faces across x, y and z."""
    yaw: float = 0.0
    """Turn about z."""

    def move(self, x: float = 0.0, y: float = 0.0, yaw: float = 0.0) -> "Solid":
        """This solid shifted in x and y and turned about its own centre."""
        center = self.center[0] + x, self.center[1] + y, self.center[2]
        return replace(self, center=center, yaw=self.yaw + yaw)


# columns: pattern, cell_u, cell_v, offset, joint, grain_u, grain_v, strength, tint, three colours
MATERIALS = {
    "brick": Material(GRID, 0.26, 0.10, 0.5, 0.008, 22, 30, 0.5, 0.14, "a86e5c", "cc997d", "ccc4b5"),
    "plaster": Material(PLAIN, 1, 1, 0, 0, 7, 9, 0.35, 0, "b0bda8", "bdc7ad", "000000"),
    "floor": Material(GRID, 0.95, 0.14, 1, 0.004, 5, 55, 0.55, 0.07, "946b45", "bd8f5e", "382417"),
    "wainscot": Material(GRID, 0.16, 1.4, 1, 0.006, 45, 4, 0.5, 0.05, "4c666e", "5e7d85", "1f292e"),
    "walnut": Material(PLAIN, 1, 1, 0, 0, 6, 60, 0.8, 0, "734a2e", "664026", "000000"),
    "oak": Material(GRID, 0.7, 0.12, 1, 0.004, 6, 60, 0.7, 0.05, "b88a54", "cfa36b", "54381f"),
    "crate": Material(GRID, 2, 0.105, 1, 0.007, 7, 50, 0.8, 0.06, "a17a4c", "c29c66", "2e1c12"),
    "books": Material(GRID, 0.045, 2, 0, 0.003, 9, 6, 0.5, 0.85, "615c54", "9e856b", "14120f"),
    "rug": Material(TRIANGLES, 0.16, 0.16, 0, 0, 60, 60, 0.5, 0.45, "ad3d38", "c7854c", "293d5c"),
    "barrel": Material(GRID, 0.09, 2, 0, 0.005, 40, 5, 0.8, 0.08, "85542e", "a36e40", "24170d"),
    "hoop": Material(PLAIN, 1, 1, 0, 0, 40, 40, 0.7, 0, "47474c", "545457", "000000"),
    "ball": Material(DOTS, 0.13, 0.13, 0, 0, 20, 20, 0.3, 0.3, "edc74c", "f5d670", "bf332e"),
    "stone": Material(STONES, 0.15, 0.15, 0, 0.007, 25, 25, 0.7, 0.12, "858078", "b2a899", "42403d"),
    "vase": Material(TRIANGLES, 0.07, 0.07, 0, 0, 40, 40, 0.2, 0.1, "e0decc", "f0ebde", "244c94"),
    "dark": Material(DOTS, 0.07, 0.07, 0, 0, 30, 30, 0.5, 0.2, "2e3338", "424547", "bfb28c"),
    "cart": Material(TRIANGLES, 0.115, 0.115, 0, 0, 28, 28, 0.4, 0.55, "db9433", "edc254", "1a6b78"),
    "mosaic": Material(STONES, 0.10, 0.10, 0, 0.006, 30, 30, 0.3, 0.7, "9e998c", "e0cca8", "1f1f21"),
    "ceiling": Material(GRID, 1.2, 0.3, 0.5, 0.005, 8, 30, 0.4, 0.04, "ccc7ba", "dbd6cc", "6b665c"),
}  # fmt: skip
"""All materials but the posters', by name."""


class Picture(NamedTuple):
    """A framed poster on the back wall."""

    x: float
    z: float
    half_u: float
    """Half the width of the print."""
    half_v: float
    """Half the height of the print."""
    frame: str
    """Material of the frame."""
    upper: str
    """Colour of the upper part of the paper, sRGB in hexadecimal."""
    lower: str
    """Colour of the lower part of the paper."""

    @property
    def poster(self) -> Material:
        """The print."""
        return Material(
            POSTER, self.half_u, self.half_v, 0, 0, 18, 18, 0.12, 0, self.upper, self.lower, "1a1a1f"
        )  # fmt: skip

    @property
    def frame_solid(self) -> Solid:
        """The frame, 5 cm wider than the print on each side."""
        half = self.half_u + 0.05, 0.03, self.half_v + 0.05
        return Solid(BOX, (self.x, 2.18, self.z), half, self.frame)

    def print_solid(self, material: str) -> Solid:
        """The print in front of the frame, of the material of that name."""
        return Solid(BOX, (self.x, 2.165, self.z), (self.half_u, 0.03, self.half_v), material)


SOLIDS: dict[str, tuple[Solid, ...]] = {
    # the room itself, seen from inside
    "room": (Solid(ROOM, (0, -1, 1.5), (3.3, 3.2, 1.5), ("plaster", "brick", "floor")),),
    # solids that stand out of the walls
    "shell": (
        # wainscot and rail of the back wall: z from 0 to 0.85 and to 0.92
        Solid(BOX, (0, 2.18, (0.0 + 0.85) / 2), (3.3, 0.02, (0.85 - 0.0) / 2), "wainscot"),
        Solid(BOX, (0, 2.16, (0.85 + 0.92) / 2), (3.3, 0.04, (0.92 - 0.85) / 2), "walnut"),
        # skirting board
        Solid(BOX, (0, 2.17, 0.06), (3.3, 0.035, 0.06), "walnut"),
        # wainscot and rail of the side walls
        Solid(BOX, (-3.28, -0.5, 0.42), (0.02, 2.7, 0.42), "wainscot"),
        Solid(BOX, (-3.26, -0.5, 0.885), (0.04, 2.7, 0.035), "walnut"),
        Solid(BOX, (3.28, -0.5, 0.42), (0.02, 2.7, 0.42), "wainscot"),
        Solid(BOX, (3.26, -0.5, 0.885), (0.04, 2.7, 0.035), "walnut"),
        Solid(BOX, (0, -1, 2.98), (3.3, 3.2, 0.02), "ceiling"),
        # beams
        *(Solid(BOX, (x, -1, 2.86), (0.09, 3.2, 0.1), "walnut") for x in (-2.1, -0.1, 1.9)),
        # pillar in the corner
        Solid(BOX, (2.95, 1.9, 1.5), (0.22, 0.3, 1.5), "stone"),
    ),
    # a bookcase, around its middle
    "shelf": (
        # sides, back and boards
        *(Solid(BOX, (x, 0, 0.95), (0.025, 0.18, 0.95), "walnut") for x in (-0.62, 0.62)),
        Solid(BOX, (0, 0.15, 0.95), (0.6, 0.02, 0.95), "walnut"),
        *(Solid(BOX, (0, 0, z), (0.6, 0.18, 0.02), "oak") for z in (0.06, 0.50, 0.94, 1.38, 1.88)),
    ),
    # solids on top of the bookcase, around its middle
    "on shelf": (
        Solid(CYLINDER, (0.3, 0, 2.02), (0.1, 0.1, 0.12), "vase"),
        Solid(BOX, (-0.25, 0, 1.99), (0.2, 0.12, 0.09), "dark", 0.3),
    ),
    # a table with the solids on and below it, around its middle
    "table": (
        # top and legs
        Solid(BOX, (0, 0, 0.76), (0.75, 0.36, 0.025), "oak"),
        *(
            Solid(BOX, (x, y, 0.37), (0.035, 0.035, 0.37), "walnut")
            for x in (-0.68, 0.68)
            for y in (-0.3, 0.3)
        ),
        # vase and its neck
        Solid(ELLIPSOID, (-0.5, 0, 0.965), (0.12, 0.12, 0.18), "vase"),
        Solid(CYLINDER, (-0.5, 0, 1.15), (0.05, 0.05, 0.05), "vase"),
        Solid(BOX, (-0.05, 0.05, 0.885), (0.16, 0.11, 0.10), "mosaic", 0.4),
        # globe
        Solid(ELLIPSOID, (0.42, -0.05, 0.96), (0.175, 0.175, 0.175), "mosaic"),
        # crate below the table
        Solid(BOX, (0.05, 0.1, 0.2), (0.35, 0.22, 0.2), "crate", -0.1),
    ),
    # a cart, around the point of the floor below its middle
    "cart": (
        # body and chassis
        Solid(BOX, (0, 0, 0.34), (0.36, 0.24, 0.2), "cart"),
        Solid(BOX, (0, 0, 0.12), (0.40, 0.27, 0.03), "walnut"),
        # wheels
        *(
            Solid(ELLIPSOID, (x, y, 0.11), (0.11, 0.035, 0.11), "dark")
            for x in (-0.27, 0.27)
            for y in (-0.29, 0.29)
        ),
    ),
    # crate and ball on the cart
    "cart load": (
        Solid(BOX, (-0.14, 0, 0.68), (0.15, 0.15, 0.14), "mosaic", 0.2),
        Solid(ELLIPSOID, (0.2, 0, 0.66), (0.12, 0.12, 0.12), "vase"),
    ),
}
"""Groups of solids, by name."""

PLACES = {"shelf": (-1.75, 2.0), "table": (1.55, 1.62)}
"""x and y of the middle of a group."""

LOOSE = (
    (Solid(BOX, (0.05, 0.15, 0.004), (1.45, 0.95, 0.004), "rug", 0.06), {"x": 0, "yaw": 1}),
    (Solid(CYLINDER, (0.35, 1.78, 0.36), (0.25, 0.25, 0.36), "barrel"), {"x": 2}),
    (Solid(CYLINDER, (0.35, 1.78, 0.1), (0.257, 0.257, 0.03), "hoop"), {"x": 2}),
    (Solid(CYLINDER, (0.35, 1.78, 0.6), (0.257, 0.257, 0.03), "hoop"), {"x": 2}),
    (Solid(BOX, (-2.35, 0.75, 0.3), (0.34, 0.3, 0.3), "crate", 0.35), {"yaw": 3}),
    (Solid(BOX, (-2.4, 0.78, 0.8), (0.22, 0.24, 0.2), "crate", -0.2), {"yaw": 4}),
    (Solid(ELLIPSOID, (-0.62, 1.55, 0.27), (0.27, 0.27, 0.27), "ball"), {"y": 5}),
    (Solid(BOX, (2.35, 0.35, 0.24), (0.26, 0.26, 0.24), "dark", 0.5), {"yaw": 0}),
    (Solid(BOX, (2.3, 0.38, 0.54), (0.3, 0.3, 0.06), "brick", 0.45), {}),
    (Solid(BOX, (1.5, -1.35, 0.3), (0.2, 0.2, 0.3), "stone", 0.3), {"yaw": 3}),
)
"""Solids that stand loose, and for each coordinate that the seed moves the number of its random
shift."""

PICTURES = (
    Picture(-0.55, 1.62, 0.40, 0.52, "oak", "eddeb8", "d96642"),
    Picture(0.45, 1.78, 0.42, 0.30, "walnut", "cce0e6", "33597a"),
    Picture(1.32, 1.60, 0.30, 0.42, "oak", "f2ede0", "f0bd47"),
    Picture(2.2, 1.72, 0.36, 0.28, "walnut", "47705c", "e6d6a8"),
)
"""From left to right."""
