"""Options of drawing a view."""

from dataclasses import dataclass


@dataclass(frozen=True)
class RenderOptions:
    """How a view is drawn. Distances between cameras are shares of the scene's depth."""

    blended: int = 4
    """Meshes of the nearest frames that are blended; more fill more holes and take longer."""
    blended_off_path: int = 24
    """The same for a view off the path, or turned away from the nearest frames: only frames further
    away saw its borders and gaps."""
    missing_most: float = 0.01
    """Share of a view, 0 to 1, outside the images of the nearest frames but inside images further away,
    up to which no more frames are drawn. Smaller fills narrower borders and takes longer."""
    off_path: float = 0.025
    """Distance from the nearest frame beyond which a view is off the path: near surfaces hide much
    from that frame, so that frames aside are drawn too."""
    aside_least: float = 0.04
    """Least distance of a frame aside; a larger value lets it see further behind near surfaces."""
    aside_best: float = 0.1
    """Distance of the frame aside that is preferred on each side of the nearest frame in time."""
    aside_most: float = 0.3
    """Largest distance of a frame aside; a larger value admits frames with coarser meshes there."""
    aside_weight: float = 0.003
    """Weight of a frame aside: less than any surface of the nearest frames, more than their faces
    across depth jumps."""
    changes_whole: float = 0.4
    """Distance from the path, in ``off_path``, up to which the grid of changes has weight 1."""
    changes_far: float = 1.0
    """Distance from the path, in ``off_path``, beyond which the weight is ``changes_least``."""
    changes_least: float = 0.5
    """Weight of the grid of changes far off the path, 0 to 1; 0 would ignore time there."""
    moment_span: int = 8
    """Frames from the heaviest frame up to which times are averaged: frames further apart show
    different times, whose mean no frame shows."""
    agreement: float = 0.03
    """Relative difference of depth up to which two meshes show the same surface; a larger value
    blends more meshes and blurs depth jumps."""
    least_share: float = 0.1
    """Share of a pixel, in the largest share of a mesh there, below which a mesh is left out; a larger
    value reads the field less often."""
    merged_cells: float = 1.0
    """Distance, in cells of the finest grid level, up to which surfaces of a pixel are read at
    a single point; a larger value is faster and less exact."""
    mover_tolerance: float = 0.15
    """Relative depth by which the background must be nearer to hide a mover; a smaller value lets
    the ground cut off feet."""
    tile_pixels: int = 1 << 13
    """Pixels of a tile, the work of a thread; more take more memory and fewer threads."""
