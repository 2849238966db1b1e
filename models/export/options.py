"""Options of the exported mesh."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ExportOptions:
    """How the static mesh of the world, its texture and its points are made."""

    keyframes: int = 12
    """Frames, evenly spread, that may become key frames of the mesh, and that test whether its
    faces hide a surface; more close more holes and take longer."""
    keyframe_gain: float = 0.001
    """Share of its image that a key frame must add; a larger value gives fewer key frames."""
    margin: float = 0.2
    """Border by which images are widened, as a share of the longer side; a larger value keeps more
    surface outside the images."""
    unfilmed: float = 0.02
    """Width of the border outside all images that the mesh keeps, as a share of the longer side; its
    colours are guesses."""
    edge_on: float = 10.0
    """Least angle in degrees between a face that closes a hole and some frame's line of sight; a
    larger value leaves fewer streaks between near and far surfaces, and more holes."""
    agreement: float = 0.02
    """Relative difference of depth up to which two faces show the same surface; a larger value
    leaves out more faces."""
    hidden_share: float = 0.4
    """Share of a face's pixels in other frames that may hide a surface there, 0 to 1; a larger
    value keeps more faces."""
    open_share: float = 0.05
    """Share of a face that must lie on no surface yet, 0 to 1; a smaller value overlaps key frames
    more and leaves fewer cracks."""
    rim_gain: float = 0.02
    """Mean gain in colour (0 to 1) of a pixel that keeps a face of a rim; a larger value keeps
    fewer faces."""
    witnesses: int = 24
    """Frames, evenly spread, that vote on the rims of near surfaces."""
    fitted: int = 48
    """Frames, evenly spread, that the texture is fitted to; more are sharper and take longer."""
    fit_rounds: int = 2
    """Rounds of the fit of the texture."""
    outlier: float = 0.2
    """Error in colour (0 to 1) at which a pixel counts half: it may show another surface."""
    texture_side: int = 4096
    """Texels along a side of a texture; 4096 is the most that every viewer takes."""
    mover_texels: int = 2_500_000
    """Texels of the movers' texture, a PNG of about 2.4 bytes a texel."""
    points: int = 500_000
    """Points of the PLY file at most."""
    jpeg_quality: int = 95
    """Quality of the static texture, 0 to 100; a larger value gives larger files."""
