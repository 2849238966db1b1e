"""Scene -> files for other programs.

Files in reading order:

- ``options`` - options of the exported mesh
- ``footage`` - frames in the scene's own colours
- ``world`` - one textured mesh of the frames' meshes, and a texture of the movers
- ``gltf`` - the GLB container
- ``mesh_files`` - GLB, OBJ and PLY
- ``camera_files`` - a camera path for nerfstudio and Blender
- ``usd`` - USDZ
- ``datasets`` - a COLMAP model, a nerfstudio data set
- ``depth_maps`` - depth as EXR, PNG and video
- ``formats`` - the registry of formats; writes and scores an export
"""

from models.export.camera_files import write_camera_files
from models.export.datasets import write_colmap
from models.export.footage import gather_footage, spread
from models.export.formats import (
    FORMATS,
    ExportSource,
    export_and_score,
    parse_formats,
)
from models.export.options import ExportOptions

__all__ = [
    "FORMATS",
    "ExportOptions",
    "ExportSource",
    "export_and_score",
    "gather_footage",
    "parse_formats",
    "spread",
    "write_camera_files",
    "write_colmap",
]
