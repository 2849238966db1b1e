"""Opens the live viewer, whose packages load slowly, only if a person asks for it."""

import socket
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from models.run import InputError
from models.tracks import Tracks

# A type alone: scripts that render nothing do not load the room behind it.
if TYPE_CHECKING:
    from models.render import Scene


class LiveViewer(Protocol):
    """A server of the pictures of a scene; see ``viewer.Viewer``."""

    url: str

    def show(self, scene: "Scene") -> None:
        """Draws this scene from now on."""

    def tell(self, text: str) -> None:
        """Shows a line of status, and draws the scene in its present state."""

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
    # the import of viser takes 0.3 s
    from models.report.viewer import Viewer

    return Viewer(tracks, output_dir, host=host, port=port, has_movers=has_movers)


def check_address(host: str, port: int) -> None:
    """Proves that a server can listen at an address: viser's server waits for ever if it cannot.

    A taken port is accepted, since the server goes on to the next free port.

    Raises:
        InputError: the address does not belong to this machine, or the port is out of range.
    """
    if not 0 < port < 65536:
        raise InputError(f"port {port} cannot be listened at; give one from 1 to 65535")
    try:
        socket.create_server((host, 0)).close()
    except (OSError, UnicodeError) as error:
        reason = (getattr(error, "strerror", None) or str(error)).split(" (while")[0]
        raise InputError(
            f"{host}: is no address of this machine ({reason}); give 127.0.0.1 or 0.0.0.0"
        ) from error
