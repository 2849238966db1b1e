"""The controls of the live viewer's page."""

from collections.abc import Callable

import viser

from models.report.pictures import MODES

Request = Callable[[str, viser.ClientHandle | None], None]


class Panel:
    """Sliders, boxes and buttons that all pages of a server share.

    Args:
        num_frames: of the clip.
        has_movers: show the box that hides movers.
        mark_stale: is called when a control changes the pictures.
        request: is called with the name of a button and the page that pressed it.
    """

    def __init__(
        self,
        server: viser.ViserServer,
        num_frames: int,
        has_movers: bool,
        mark_stale: Callable[[], None],
        request: Request,
    ):
        self.status = server.gui.add_markdown("")
        with server.gui.add_folder("Time"):
            self.time = server.gui.add_slider("Frame", 0, max(1, num_frames - 1), 1, 0)
            self.playing = server.gui.add_checkbox("Play", False)
        with server.gui.add_folder("Show"):
            self.mode = server.gui.add_dropdown("Picture", MODES, initial_value=MODES[0])
            self.background = server.gui.add_checkbox("Background", True)
            self.movers = server.gui.add_checkbox("Movers", True, visible=has_movers)
            self.cameras = server.gui.add_checkbox("Input cameras", False)
        with server.gui.add_folder("Camera path"):
            self.seconds = server.gui.add_slider("Seconds per key", 0.1, 10.0, 0.1, 1.0)
            self._add_buttons(server, request, {"Add key frame": "key", "Remove all": "clear"})
            self._add_buttons(server, request, {"Save path": "save", "Render to file": "render"})
            self.progress = server.gui.add_progress_bar(0.0, visible=False)
        with server.gui.add_folder("View"):
            self._add_buttons(server, request, {"Look through this camera": "look"})
        for control in (self.mode, self.background, self.movers, self.time):
            control.on_update(lambda _: mark_stale())

    @staticmethod
    def _add_buttons(server: viser.ViserServer, request: Request, names: dict[str, str]) -> None:
        """Adds buttons, given as label -> name of the request."""
        for label, name in names.items():
            button = server.gui.add_button(label)
            button.on_click(lambda event, name=name: request(name, event.client))

    def tell(self, text: str) -> None:
        """Shows a line of status above the controls."""
        self.status.content = text

    def tell_key_frames(self, count: int) -> None:
        """Shows the number of key frames."""
        self.tell(f"{count} key frame{'s' * (count != 1)}")
