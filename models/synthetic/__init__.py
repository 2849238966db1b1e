"""A clip with known ground truth; ``python -m models.synthetic FOLDER`` writes it.

Files, in reading order:

- ``sample`` - options -> rendered clip and its ground truth
- ``folder`` - clip -> files, with novel views
- ``room`` - a seed -> the table of solids at any moment
- ``furniture`` - tables of materials and solids
- ``camera`` - the camera of each frame
- ``rays`` - solids + camera -> surface samples, depth
- ``solids`` - intersections of rays and solids
- ``lighting`` - light on a surface point
- ``textures`` - surface samples -> colours
"""

from models.synthetic.sample import RoomOptions, render_room

__all__ = ["RoomOptions", "render_room"]
