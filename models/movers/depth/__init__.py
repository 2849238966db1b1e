"""Tracks of a mover -> their z-depths: first up to a common scale, then in world units.

- ``contact``: where a mover meets the ground, and what it hides.
- ``rigid``: relative depths by structure from motion on the mover's own tracks.
- ``apparent_size``: relative depths of a mover that is not rigid.
- ``scale``: the scale that contact, hidden background and the path in the world agree on.
"""

from models.movers.depth.apparent_size import follow_size
from models.movers.depth.contact import BackgroundCues, find_contact, read_cues
from models.movers.depth.rigid import RelativeDepth, solve_rigid
from models.movers.depth.scale import Scale, find_scale

__all__ = [
    "BackgroundCues",
    "RelativeDepth",
    "Scale",
    "find_contact",
    "find_scale",
    "follow_size",
    "read_cues",
    "solve_rigid",
]
