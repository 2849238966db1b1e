"""For a person to look at: videos, charts, the results page, the live viewer.

Files in reading order:

- ``drawing`` - tracks, meshes, masks and depth drawn over frames
- ``pictures`` - pictures of a scene in colour, as depth or as mesh, for videos and viewer
- ``videos`` - the videos of a results folder and the scores of its frames
- ``world`` - points and cameras for the page's 3D canvas
- ``charts`` - charts as PNG and SVG
- ``tables`` - the values of the page's tables and headlines
- ``page`` - index.html from ``templates/`` and ``assets/``
- ``live`` - opens the viewer, and imports viser no sooner
- ``viewer`` - the server of the live viewer
- ``viewer_panel`` - the controls on the viewer's page
- ``viewer_keys`` - key frames of a camera path
"""

from models.report.charts import write_charts
from models.report.drawing import draw_mask, draw_tracks
from models.report.live import LiveViewer, open_viewer
from models.report.page import Report, make_environment, read_style, write_report
from models.report.videos import reconstruct, render_video, write_track_overlay
from models.report.world import gather_world

__all__ = [
    "LiveViewer",
    "Report",
    "draw_mask",
    "draw_tracks",
    "gather_world",
    "make_environment",
    "open_viewer",
    "read_style",
    "reconstruct",
    "render_video",
    "write_charts",
    "write_report",
    "write_track_overlay",
]
