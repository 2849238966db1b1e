"""spacelayer: one ordinary video -> a layered scene of triangle meshes with a neural colour field.

Letters in shapes: F frames, N points or tracks, V vertices, T triangles, S samples (pixels), H and
W image height and width, L levels of the hash grid.

Conventions. Camera axes are OpenCV's: x right, y down, z forward. Pixels are continuous and the
centre of the top-left pixel is (0.5, 0.5), as in COLMAP; OpenCV's own (0, 0) origin is converted at
the call. Names say the frames of reference: ``world_from_cam`` maps camera axes to world axes.
Images are uint8 RGB, (H, W, 3).

The package has four nouns (``cameras``, ``tracks``, ``pipeline``, ``tools``; ``tracks`` is a folder)
and sixteen rooms. A room is a change of state of the data, and its ``__init__.py`` is its door: its
job, its files in reading order, and the names that other rooms may take. Data flows one way:
``IMPORTS`` is the table of allowed imports, which ``tests/test_layout.py`` reads.
"""

IMPORTS: dict[str, str] = {
    "run": "",
    "cameras": "",
    "clip": "run cameras",
    "learned": "run",
    "tracks": "run clip cameras",
    "tracking": "run clip learned tracks",
    "sfm": "run clip tracking cameras tracks",
    "motion": "run clip learned tracking sfm cameras tracks",
    "depth": "run clip learned sfm cameras tracks",
    "surface": "run cameras",
    "field": "run cameras",
    "pipeline": "run surface field cameras tracks",
    "tools": "run clip surface field cameras tracks pipeline",
    "movers": "run clip tracking sfm surface cameras tracks pipeline tools",
    "render": "run clip surface field movers cameras tracks pipeline",
    "paths": "run clip cameras",
    "training": "run clip surface field movers render cameras tracks pipeline tools",
    "export": "run clip sfm surface render paths cameras tracks pipeline",
    "report": "run clip sfm render paths training cameras tracks",
    "synthetic": "run clip cameras tracks",
}
"""Rooms and nouns in the order of the data, and the other rooms and nouns that each may import."""
