"""Scene -> files for other programs.

Files in reading order:

- ``options`` - options of the exported mesh
- ``footage`` - frames in the scene's own colours
- ``world_mesh`` - the frames' meshes joined to a mesh of the world
- ``silhouettes`` - faces added at the rims of near surfaces
- ``atlas`` - charts packed into a texture
- ``texture`` - the texture, baked and fitted to the frames
- ``mover_atlas`` - the movers' meshes in a texture
- ``gltf`` - the GLB container
- ``mesh_files`` - GLB, OBJ and PLY
- ``datasets`` - a COLMAP model, a nerfstudio data set
- ``formats`` - the registry of formats; writes and scores an export
"""

from models.export.datasets import write_colmap
from models.export.footage import gather_footage, spread
from models.export.formats import (
    FORMATS,
    ExportSource,
    describe_formats,
    export_and_score,
    parse_formats,
)
from models.export.options import ExportOptions

__all__ = [
    "FORMATS",
    "ExportOptions",
    "ExportSource",
    "describe_formats",
    "export_and_score",
    "gather_footage",
    "parse_formats",
    "spread",
    "write_colmap",
]
