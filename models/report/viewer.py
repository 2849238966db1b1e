"""The live viewer: fly through a scene in a browser, and make camera paths.

The thread that calls ``step`` or ``run`` draws all pictures; the threads of pages only note their
requests. The same thread can therefore train the scene on the pages, without locks.
"""

import math
import queue
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
import viser
from jaxtyping import UInt8
from numpy import ndarray

from models.cameras import Cameras, find_middle_frame
from models.clip import VideoWriter, choose_evenly
from models.paths import CameraPath, K_from_fov, pose_from_wxyz
from models.render import Scene
from models.report.live import check_address
from models.report.pictures import RenderFunction, make_render_function
from models.report.viewer_keys import KeyFrameEditor
from models.report.viewer_panel import Panel
from models.run import InputError, settle_stop
from models.tracks import Tracks

# Seconds that a picture may take while the view moves; the picture's size is steered by it.
_MOVING_SECONDS = 0.065
# Pixels; height of the first picture of a moving view.
_FIRST_HEIGHT = 180
# Pixels; pictures of a moving view do not become lower.
_MIN_HEIGHT = 100
# Seconds without movement after which the picture is drawn at full size.
_STILL_AFTER = 0.2
# Cameras of the clip that are drawn as frusta.
_MAX_FRUSTA = 30
# JPEG quality of pictures of a resting and of a moving view, 0 to 100.
_STILL_QUALITY = 92
_MOVING_QUALITY = 75
# Colour of the clip's cameras, RGB.
_CAMERA_COLOR = (90, 140, 240)


@dataclass
class OpenPage:
    """A browser page with the scene."""

    client: viser.ClientHandle
    stale: bool = True
    """The picture on the page shows an earlier view or time."""
    sharp: bool = False
    """The picture on the page has full size."""
    moved: float = field(default_factory=time.perf_counter)
    """Time of the last change of the view, seconds of ``time.perf_counter``."""


class Viewer:
    """A server of the pictures of a scene.

    Args:
        tracks: of the background; they give the cameras, frame rate and depth of the scene.
        output_dir: folder for camera_path.json and novel_view.mp4.
        host: address to listen at; 127.0.0.1 is reached from this machine only.
        port: the first port to try.
        has_movers: show the control that hides movers.

    Raises:
        InputError: the address cannot be listened at.
    """

    def __init__(
        self,
        tracks: Tracks,
        output_dir: Path,
        *,
        host: str = "127.0.0.1",
        port: int = 8080,
        has_movers: bool = False,
    ):
        self.render: RenderFunction | None = None
        self.cameras = tracks.cameras
        self.fps = tracks.fps
        self.output_dir = output_dir
        middle = self.cameras[find_middle_frame(self.cameras)]
        depth = middle.to_camera(tracks.xyz[0].double())[0, :, 2]
        self.depth = float(depth[depth > 0].median())
        self._pages: dict[int, OpenPage] = {}
        self._requests: queue.SimpleQueue[tuple[str, viser.ClientHandle | None]] = (
            queue.SimpleQueue()
        )
        self._wake = threading.Event()
        self._moving_height = float(_FIRST_HEIGHT)
        self._played_at = 0.0
        check_address(host, port)
        self.server = viser.ViserServer(host=host, port=port, label="spacelayer", verbose=False)
        self.url = f"http://{host}:{self.server.get_port()}"
        self.panel = Panel(
            self.server, len(self.cameras), has_movers, self._mark_stale, self._request
        )
        self._keys = KeyFrameEditor(self.server, self.cameras, 0.02 * self.depth)
        self._fill_page()

    def _fill_page(self) -> None:
        """Theme, first view, frusta of the clip's cameras, and the calls of pages."""
        server = self.server
        server.gui.configure_theme(dark_mode=True, show_share_button=False, control_width="small")
        self._place_cameras()
        self.panel.cameras.on_update(
            lambda _: setattr(self._frusta, "visible", self.panel.cameras.value)
        )
        server.on_client_connect(self._add_page)
        server.on_client_disconnect(lambda client: self._pages.pop(client.client_id, None))

    def _place_cameras(self) -> None:
        """Sets the first view and the up direction, and adds frusta of the clip's cameras."""
        middle = find_middle_frame(self.cameras)
        first = self.server.initial_camera
        pose = self.cameras.world_from_cam[middle].double().numpy()
        self.server.scene.set_up_direction(-pose[:3, 1])
        first.position = pose[:3, 3]
        first.look_at = pose[:3, 3] + self.depth * pose[:3, 2]
        first.up = -pose[:3, 1]
        first.fov = self._field_of_view(middle)
        first.near = 0.01 * self.depth
        first.far = 1000 * self.depth
        self._frusta = self.server.scene.add_frame("/cameras", show_axes=False, visible=False)
        for t in choose_evenly(len(self.cameras), _MAX_FRUSTA).tolist():
            pose = self.cameras.world_from_cam[t].double().numpy()
            fov = self._field_of_view(t)
            self._keys.add_frustum(f"/cameras/{t:05d}", pose, fov, _CAMERA_COLOR)

    def _field_of_view(self, t: int) -> float:
        """Vertical field of view of the clip's camera t, radians."""
        return 2 * math.atan(self.cameras.height / 2 / float(self.cameras.K[t, 1, 1]))

    # The threads of pages call the next three functions, which only note requests.

    def _add_page(self, client: viser.ClientHandle) -> None:
        page = self._pages[client.client_id] = OpenPage(client)

        def note_move(_: object) -> None:
            page.stale = True
            page.moved = time.perf_counter()
            self._wake.set()

        client.camera.on_update(note_move)
        note_move(None)

    def _mark_stale(self) -> None:
        for page in list(self._pages.values()):
            page.stale = True
            page.moved = time.perf_counter()
        self._wake.set()

    def _request(self, name: str, client: viser.ClientHandle | None) -> None:
        self._requests.put((name, client))
        self._wake.set()

    # The scene's thread calls the functions from here on.

    def run(self) -> None:
        """Serves until the process is interrupted."""
        self.panel.tell("")
        self._mark_stale()
        try:
            while True:
                if not self.step():
                    self._wake.wait(_STILL_AFTER / 4)
                    self._wake.clear()
        except KeyboardInterrupt:
            self.close()
            settle_stop()

    def show(self, scene: Scene) -> None:
        """Draws this scene from now on."""
        self.render = make_render_function(scene)

    def tell(self, text: str) -> None:
        """Shows a line of status, and draws the scene in its present state."""
        self.panel.tell(text)
        self.step(refresh=True)

    def close(self) -> None:
        """Ends the server."""
        self.server.stop()

    def step(self, refresh: bool = False) -> bool:
        """Handles the requests of pages and draws at most one picture for each page.

        Args:
            refresh: the scene itself has changed, as in training.

        Returns:
            False if nothing was to be done.
        """
        if refresh:
            for page in list(self._pages.values()):
                page.sharp = False
        was_asked = not self._requests.empty()
        while not self._requests.empty():
            self._handle(*self._requests.get())
        self._advance_time()
        return any([self._draw(page) for page in list(self._pages.values())]) or was_asked

    def _advance_time(self) -> None:
        """Moves the shown time on by the time since the last call, while the clip plays."""
        now = time.perf_counter()
        panel = self.panel
        if not panel.playing.value:
            self._played_at = now
            return
        frames = int((now - self._played_at) * self.fps)
        if frames:
            self._played_at += frames / self.fps
            panel.time.value = (int(panel.time.value) + frames) % len(self.cameras)
            self._mark_stale()

    def _draw(self, page: OpenPage) -> bool:
        """Draws the picture of a page if it is out of date, or small after a movement."""
        still = time.perf_counter() - page.moved > _STILL_AFTER
        if self.render is None or not (page.stale or (still and not page.sharp)):
            return False
        page.stale = False
        page.sharp = still
        camera = page.client.camera
        width, height = self._choose_size(camera, still)
        K = K_from_fov(camera.fov, width, height)[None]
        pose = torch.from_numpy(pose_from_wxyz(camera.wxyz, camera.position))[None]
        start = time.perf_counter()
        rgb = self._draw_view(Cameras(K, pose, width, height), float(self.panel.time.value))
        if not still:
            self._steer_size(time.perf_counter() - start)
        quality = _STILL_QUALITY if still else _MOVING_QUALITY
        page.client.scene.set_background_image(rgb, format="jpeg", jpeg_quality=quality)
        page.client.flush()
        return True

    def _draw_view(self, view: Cameras, time: float) -> UInt8[ndarray, "H W 3"]:
        panel = self.panel
        return self.render(view, time, panel.mode.value, panel.background.value, panel.movers.value)

    def _choose_size(self, camera: viser.CameraHandle, still: bool) -> tuple[int, int]:
        """Width and height of the next picture, in the proportions of the page."""
        shape = camera.image_width / max(1, camera.image_height)
        full = max(1, min(camera.image_height, self.cameras.height))
        height = full if still else min(full, round(self._moving_height))
        return max(1, round(height * shape)), height

    def _steer_size(self, seconds: float) -> None:
        """Changes the size of a moving view's pictures a little towards ``_MOVING_SECONDS`` each.

        Args:
            seconds: that the last picture took.
        """
        change = min(1.15, max(0.8, math.sqrt(_MOVING_SECONDS / max(seconds, 1e-4))))
        height = max(_MIN_HEIGHT, change * self._moving_height)
        self._moving_height = min(float(self.cameras.height), height)

    def _handle(self, name: str, client: viser.ClientHandle | None) -> None:
        """Handles the press of a button; the page shows the text of an error."""
        try:
            if name == "clear":
                self._keys.clear()
                self.panel.tell_key_frames(0)
            elif name == "save":
                self.panel.tell(f"saved {self._save_path()[0]}")
            elif name == "render":
                self._render_path()
            elif client is not None:
                self._obey(name, client)
        except InputError as error:
            self.panel.tell(f"**{error}**")

    def _obey(self, name: str, client: viser.ClientHandle) -> None:
        """Handles the press of a button that concerns the view of the page."""
        if name == "look":
            self._move_to_camera(client)
        else:
            self._keys.add(client.camera, float(self.panel.time.value))
            self.panel.tell_key_frames(len(self._keys))

    def _save_path(self) -> tuple[Path, CameraPath]:
        """Writes the path through the key frames to camera_path.json; returns file and path."""
        steps = max(1, round(self.panel.seconds.value * self.fps))
        path = self.output_dir / "camera_path.json"
        return path, self._keys.save(path, steps)

    def _move_to_camera(self, client: viser.ClientHandle) -> None:
        """Moves a page's view to the clip's camera of the present frame."""
        t = int(self.panel.time.value)
        pose = self.cameras.world_from_cam[t].double().numpy()
        with client.atomic():
            client.camera.position = pose[:3, 3]
            client.camera.up_direction = -pose[:3, 1]
            client.camera.look_at = pose[:3, 3] + self.depth * pose[:3, 2]
            client.camera.fov = self._field_of_view(t)

    def _render_path(self) -> None:
        """Saves the path and renders its video."""
        _, (views, times) = self._save_path()
        path = self.output_dir / "novel_view.mp4"
        bar = self.panel.progress
        bar.visible = True
        try:
            with VideoWriter(path, self.fps) as video:
                for i in range(len(views)):
                    video.add(self._draw_view(views[i], times[i]))
                    bar.value = 100 * (i + 1) / len(views)
        finally:
            bar.visible = False
        self.panel.tell(f"wrote {path}")
