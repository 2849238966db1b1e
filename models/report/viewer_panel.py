"""The controls of the live viewer's page."""

from collections.abc import Callable

import viser

MODES = ("colour", "depth", "mesh")
Do = Callable[[str, viser.ClientHandle | None], None]


class Panel:
    """Sliders, boxes and buttons that all viewers of a server share.

    Args:
        changed: is called when what a picture shows has changed.
        do: is called with the name of a button and the viewer who pressed it.
    """

    def __init__(
        self,
        server: viser.ViserServer,
        num_frames: int,
        has_movers: bool,
        changed: Callable[[], None],
        do: Do,
    ):
        self.status = server.gui.add_markdown("")
        self._changed = changed
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
            self._buttons(server, do, {"Add key frame": "key", "Remove all": "clear"})
            self._buttons(server, do, {"Save path": "save", "Render to file": "render"})
            self.progress = server.gui.add_progress_bar(0.0, visible=False)
        with server.gui.add_folder("View"):
            self._buttons(server, do, {"Look through this camera": "look"})
        for control in (self.mode, self.background, self.movers, self.time):
            control.on_update(lambda _: changed())

    @staticmethod
    def _buttons(server: viser.ViserServer, do: Do, names: dict[str, str]) -> None:
        for label, name in names.items():
            server.gui.add_button(label).on_click(lambda event, name=name: do(name, event.client))

    def tell(self, text: str) -> None:
        """One line of status, above the controls."""
        self.status.content = text

    def key_frames(self, count: int) -> None:
        """Says how many key frames there are."""
        self.tell(f"{count} key frame{'s' * (count != 1)}")
