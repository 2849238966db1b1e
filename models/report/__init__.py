"""For a person to look at: videos, charts, the results page, the live viewer."""

from models.report.charts import write_charts
from models.report.drawing import draw_tracks, mask_overlay
from models.report.page import Report, write_report
from models.report.videos import reconstruct, render_video, track_overlay
from models.report.world import gather_world

__all__ = [
    "Report",
    "draw_tracks",
    "gather_world",
    "mask_overlay",
    "reconstruct",
    "render_video",
    "track_overlay",
    "write_charts",
    "write_report",
]
