"""Settings of meshes and of dense stereo that a user may tune."""

from dataclasses import dataclass


@dataclass(frozen=True)
class MeshOptions:
    """How a frame's mesh is built from the points that the frame sees."""

    jump_ratio: float = 1.12
    """Ratio of the farthest to the nearest vertex depth of a face from which the face counts as a
    depth jump; larger values bridge more jumps."""
    fine_jump_ratio: float = 1.05
    """Same ratio for faces with a vertex from stereo: vertices are denser there, so a surface
    changes less within a face."""
    border_share: float = 0.2
    """Width of the mesh's margin past the image border, as a share of the longer image side."""
    border_gap: int = 12
    """Frames before or after which the track of a point past the border must be visible; larger
    values add older points to the margin."""
    hidden_cell: int = 10
    """Cell size in pixels of the grid that thins points outside the frame's view to a point a
    cell; larger values keep fewer points."""
    extrapolation_neighbours: int = 96
    """Nearest points that the plane of a border vertex is fitted to; more smooth the margin."""
    spike_ratio: float = 1.08
    """Ratio of a point's depth to its neighbours' depths from which they disagree; larger values
    keep more outliers. A point stays if at least two of its seven nearest neighbours agree."""
    crowd: int = 25
    """Size of the wider neighbourhood in points, the point itself included."""
    crowd_ratio: float = 1.3
    """Ratio of depths up to which a neighbour in the wider neighbourhood agrees; a sixth of
    ``crowd`` must."""
    near_percentile: float = 6.0
    """Percentile of the frame's depths that stands for its nearest real surface."""
    near_ratio: float = 0.4
    """Share of that depth below which a point is dropped. A few points much nearer than all others
    are slipped tracks (shadows, glints) and would hide the whole view."""


@dataclass(frozen=True)
class StereoOptions:
    """Which frames dense stereo matches, in which regions, and which depths are kept."""

    longest_side: int = 480
    """Pixels of the longer side of the matched images; time grows with its square."""
    baselines: tuple[float, ...] = (0.03, 0.08)
    """Wanted distances to the source views, before and after the frame, as a share of the scene's
    depth."""
    least_parallax: float = 10.0
    """Pixels that a point at the scene's depth must move by between a frame and a source view;
    with less parallax matches are noise."""
    longest_span: int = 60
    """Frames between a frame and its source views at most; memory grows with it."""
    least_shared: float = 0.3
    """Share of the frame's visible tracks that a source view must see too."""
    bend: float = 0.04
    """Change of slope of the mesh's inverse depth over 6 pixels, relative to the inverse depth,
    from which the mesh's depth is in doubt; larger values match less of the image."""
    gain: float = 0.1
    """Fall of the unlikeness (1 - correlation) of a pixel's patch at another depth from which the
    mesh's depth is in doubt; larger values match less of the image."""
    doubt_reach: int = 4
    """Pixels by which regions in doubt are widened; more are matched as it grows."""
    tolerance: float = 0.02
    """Relative difference of depth up to which two frames agree on a surface."""
    confirmed: int = 2
    """Source views whose depth must agree for a pixel's depth to be kept."""
    median_radius: int = 5
    """Radius in pixels of the weighted median that carries confirmed depths to other pixels; time
    grows with its square."""
    median_sigma: float = 20.0
    """Colour difference in grey levels at which a pixel's weight in that median falls to 1/e."""
    edge_ratio: float = 1.04
    """Ratio of neighbouring pixels' depths from which an outline runs between them."""
    edge_reach: int = 3
    """Pixels to either side of an outline that get the finer vertex spacing."""
    edge_spacing: int = 2
    """Vertex spacing in pixels along outlines; smaller values give more faces."""
    inner_spacing: int = 5
    """Vertex spacing in pixels in the rest of the region in doubt."""
