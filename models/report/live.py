"""The way to the live viewer for scripts that open it seldom."""

from pathlib import Path
from typing import Protocol

from models.render import Scene
from models.tracks import Tracks


class LiveViewer(Protocol):
    """A server of one scene's pictures; see ``viewer.Viewer``."""

    url: str

    def show(self, scene: Scene) -> None:
        """Draws this scene from now on."""

    def tell(self, text: str) -> None:
        """Shows one line of status, and draws the scene in its present state."""

    def run(self) -> None:
        """Serves until the process is interrupted."""


def open_viewer(
    tracks: Tracks, output_dir: Path, *, host: str, port: int, has_movers: bool
) -> LiveViewer:
    """Starts the live viewer, which shows pictures once ``show`` gave it a scene.

    Args:
        tracks: of the background; they give the cameras, frame rate and depth of the scene.
        output_dir: folder for camera_path.json and novel_view.mp4.
        host: address to listen at; 127.0.0.1 is reached from this machine only.
        port: the first port to try.
        has_movers: show the control that hides movers.

    Raises:
        InputError: the address cannot be listened at.
    """
    # viser's import takes 0.3 s and starts no sooner than a person asks for the viewer
    from models.report.viewer import Viewer

    return Viewer(tracks, output_dir, host=host, port=port, has_movers=has_movers)
