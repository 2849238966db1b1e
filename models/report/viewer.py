"""The live viewer: fly through a scene in a browser, and make camera paths.

All pictures are drawn by the thread that calls ``step`` or ``run``: what a page asks for is only
noted meanwhile. So a scene can be watched while that same thread trains it, and nothing needs a
lock.
"""

import math
import queue
import socket
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
import viser
from jaxtyping import Float, UInt8
from numpy import ndarray
from scipy.spatial.transform import Rotation

from models.cameras import Cameras, find_middle_frame
from models.clip import VideoWriter, save_transforms
from models.paths import K_from_fov, KeyFrame, interpolate_keys, pose_from_wxyz
from models.render import Scene
from models.report.videos import picture_function
from models.report.viewer_panel import Panel
from models.run import InputError

MOVING_SECONDS = 0.065
"""Seconds that a picture may take while the view moves; its size is steered by it."""
FIRST_HEIGHT = 180
"""Pixels; height of the first moving picture."""
STILL_AFTER = 0.2
"""Seconds without movement after which the picture is drawn at full size."""
LEAST_HEIGHT = 100
"""Pixels below which a moving picture's height does not fall."""
MOST_CAMERAS = 30
"""Input cameras drawn."""


class RenderFunction(Protocol):
    """Draws what the one camera of ``view`` sees at ``time`` (frame of the clip) as ``mode`` of
    viewer_panel.MODES."""

    def __call__(
        self, view: Cameras, time: float, mode: str, background: bool, movers: bool
    ) -> UInt8[ndarray, "H W 3"]: ...


@dataclass
class Watcher:
    """One open page."""

    client: viser.ClientHandle
    stale: bool = True
    """The picture shown is not of the present view."""
    sharp: bool = False
    """The picture shown is of full size."""
    moved: float = field(default_factory=time.perf_counter)
    """When the view last changed."""


class Viewer:
    """A server of one scene's pictures.

    Args:
        cameras: of the clip.
        points: of the scene, world units; they tell how far it is.
        fps: of the clip, frames per second.
        output_dir: where camera_path.json and novel_view.mp4 are written.
        host: address to listen at; 127.0.0.1 is reached from this machine only.

    Raises:
        InputError: the address cannot be listened at.
    """

    def __init__(
        self,
        cameras: Cameras,
        points: Float[torch.Tensor, "N 3"],
        fps: float,
        output_dir: Path,
        *,
        host: str = "127.0.0.1",
        port: int = 8080,
        has_movers: bool = False,
    ):
        self.render: RenderFunction | None = None
        self.cameras = cameras
        self.fps = fps
        self.output_dir = output_dir
        depth = cameras[[find_middle_frame(cameras)]].to_camera(points.double())[0, :, 2]
        self.depth = float(depth[depth > 0].median())
        self._watchers: dict[int, Watcher] = {}
        self._asked: queue.SimpleQueue[tuple[str, viser.ClientHandle | None]] = queue.SimpleQueue()
        self._wake = threading.Event()
        self._keys: list[KeyFrame] = []
        self._moving_height = float(FIRST_HEIGHT)
        self._played_at = 0.0
        check_address(host, port)
        self.server = viser.ViserServer(host=host, port=port, label="spacelayer", verbose=False)
        self.server.gui.configure_theme(
            dark_mode=True, show_share_button=False, control_width="small"
        )
        self.url = f"http://{host}:{self.server.get_port()}"
        self.panel = Panel(self.server, len(cameras), has_movers, self._changed, self._ask)
        self.panel.cameras.on_update(
            lambda _: setattr(self._frusta, "visible", self.panel.cameras.value)
        )
        self._place_cameras()
        self.server.on_client_connect(self._arrive)
        self.server.on_client_disconnect(lambda client: self._watchers.pop(client.client_id, None))

    def _place_cameras(self) -> None:
        """The first view, which way is up, and frusta of the input's cameras."""
        middle = find_middle_frame(self.cameras)
        first = self.server.initial_camera
        pose = self.cameras.world_from_cam[middle].double().numpy()
        self.server.scene.set_up_direction(-pose[:3, 1])
        first.position = pose[:3, 3]
        first.look_at = pose[:3, 3] + self.depth * pose[:3, 2]
        first.up = -pose[:3, 1]
        first.fov = self._fov(middle)
        first.near = 0.01 * self.depth
        first.far = 1000 * self.depth
        self._frusta = self.server.scene.add_frame("/cameras", show_axes=False, visible=False)
        for t in np.unique(np.linspace(0, len(self.cameras) - 1, MOST_CAMERAS).astype(int)):
            pose = self.cameras.world_from_cam[t].double().numpy()
            self._frustum(f"/cameras/{t:05d}", pose, self._fov(int(t)), (90, 140, 240))

    def _frustum(self, name: str, pose: ndarray, fov: float, color: tuple[int, int, int]) -> None:
        wxyz = Rotation.from_matrix(pose[:3, :3]).as_quat(scalar_first=True)
        shape = self.cameras.width / self.cameras.height
        scale = 0.02 * self.depth
        self.server.scene.add_camera_frustum(
            name, fov, shape, scale=scale, thickness=1.5, thickness_units="screen", color=color,
            wxyz=wxyz, position=pose[:3, 3],
        )  # fmt: skip

    def _fov(self, t: int) -> float:
        return 2 * math.atan(self.cameras.height / 2 / float(self.cameras.K[t, 1, 1]))

    # What the page's threads call: they only note what is wanted.

    def _arrive(self, client: viser.ClientHandle) -> None:
        watcher = self._watchers[client.client_id] = Watcher(client)

        def moved(_: object) -> None:
            watcher.stale = True
            watcher.moved = time.perf_counter()
            self._wake.set()

        client.camera.on_update(moved)
        moved(None)

    def _changed(self) -> None:
        for watcher in list(self._watchers.values()):
            watcher.stale = True
            watcher.moved = time.perf_counter()
        self._wake.set()

    def _ask(self, name: str, client: viser.ClientHandle | None) -> None:
        self._asked.put((name, client))
        self._wake.set()

    # What the scene's thread does.

    def run(self) -> None:
        """Serves until the process is interrupted."""
        self.panel.tell("")
        self._changed()
        try:
            while True:
                if not self.step():
                    self._wake.wait(STILL_AFTER / 4)
                    self._wake.clear()
        except KeyboardInterrupt:
            self.close()

    def show(self, scene: Scene) -> None:
        """Draws this scene from now on."""
        self.render = picture_function(scene)

    def tell(self, text: str) -> None:
        """Shows one line of status, and draws the scene as it is now."""
        self.panel.tell(text)
        self.step(refresh=True)

    def close(self) -> None:
        """Ends the server."""
        self.server.stop()

    def step(self, refresh: bool = False) -> bool:
        """Does what the pages ask for and draws at most one picture for each; False if nothing was
        to be done.

        Args:
            refresh: the scene itself has changed, as in training.
        """
        if refresh:
            for watcher in list(self._watchers.values()):
                watcher.sharp = False
        asked = not self._asked.empty()
        while not self._asked.empty():
            self._obey(*self._asked.get())
        self._play()
        return any([self._draw(watcher) for watcher in list(self._watchers.values())]) or asked

    def _play(self) -> None:
        """Moves time on by what has passed."""
        now = time.perf_counter()
        panel = self.panel
        if not panel.playing.value:
            self._played_at = now
            return
        frames = int((now - self._played_at) * self.fps)
        if frames:
            self._played_at += frames / self.fps
            panel.time.value = (int(panel.time.value) + frames) % len(self.cameras)
            self._changed()

    def _draw(self, watcher: Watcher) -> bool:
        still = time.perf_counter() - watcher.moved > STILL_AFTER
        if self.render is None or not (watcher.stale or (still and not watcher.sharp)):
            return False
        watcher.stale = False
        watcher.sharp = still
        camera = watcher.client.camera
        pose = pose_from_wxyz(camera.wxyz, camera.position)
        width, height = self._size(camera, still)
        view = Cameras(
            K_from_fov(camera.fov, width, height)[None], torch.from_numpy(pose)[None], width, height
        )
        start = time.perf_counter()
        rgb = self._picture(view, float(self.panel.time.value))
        if not still:
            self._steer(time.perf_counter() - start)
        watcher.client.scene.set_background_image(
            rgb, format="jpeg", jpeg_quality=92 if still else 75
        )
        watcher.client.flush()
        return True

    def _picture(self, view: Cameras, at: float) -> UInt8[ndarray, "H W 3"]:
        panel = self.panel
        return self.render(view, at, panel.mode.value, panel.background.value, panel.movers.value)

    def _size(self, camera: viser.CameraHandle, still: bool) -> tuple[int, int]:
        """Width and height of the next picture, of the page's own shape."""
        shape = camera.image_width / max(1, camera.image_height)
        full = max(1, min(camera.image_height, self.cameras.height))
        height = full if still else min(full, round(self._moving_height))
        return max(1, round(height * shape)), height

    def _steer(self, taken: float) -> None:
        """Changes the size of moving pictures towards one that takes MOVING_SECONDS, a little at a
        time."""
        change = min(1.15, max(0.8, math.sqrt(MOVING_SECONDS / max(taken, 1e-4))))
        self._moving_height = min(
            float(self.cameras.height), max(LEAST_HEIGHT, change * self._moving_height)
        )

    def _obey(self, name: str, client: viser.ClientHandle | None) -> None:
        """What a button asks for; what goes wrong is told on the page."""
        try:
            if name == "clear":
                self._keys.clear()
                self.server.scene.remove_by_name("/keys")
                self.panel.key_frames(0)
            elif name == "save":
                self.panel.tell(f"saved {self._save_path()[0]}")
            elif name == "render":
                self._render_path()
            elif client is not None:
                self._look(client) if name == "look" else self._add_key(client)
        except InputError as error:
            self.panel.tell(f"**{error}**")

    def _add_key(self, client: viser.ClientHandle) -> None:
        pose = pose_from_wxyz(client.camera.wxyz, client.camera.position)
        self._keys.append(KeyFrame(pose, client.camera.fov, float(self.panel.time.value)))
        self._frustum(f"/keys/{len(self._keys):03d}", pose, client.camera.fov, (255, 140, 60))
        self.panel.key_frames(len(self._keys))

    def _look(self, client: viser.ClientHandle) -> None:
        """Puts a page's view where the camera of the present frame was."""
        t = int(self.panel.time.value)
        pose = self.cameras.world_from_cam[t].double().numpy()
        with client.atomic():
            client.camera.position = pose[:3, 3]
            client.camera.up_direction = -pose[:3, 1]
            client.camera.look_at = pose[:3, 3] + self.depth * pose[:3, 2]
            client.camera.fov = self._fov(t)

    def _save_path(self) -> tuple[Path, Cameras, list[float]]:
        steps = max(1, round(self.panel.seconds.value * self.fps))
        views, times = interpolate_keys(self._keys, steps, self.cameras.width, self.cameras.height)
        path = self.output_dir / "camera_path.json"
        try:
            save_transforms(path, views, times)
        except OSError as error:
            raise InputError(
                f"{path}: cannot be written ({error.strerror}); give a folder that exists"
            ) from error
        return path, views, times

    def _render_path(self) -> None:
        _, views, times = self._save_path()
        path = self.output_dir / "novel_view.mp4"
        bar = self.panel.progress
        bar.visible = True
        try:
            with VideoWriter(path, self.fps) as video:
                for i in range(len(views)):
                    video.add(self._picture(views[[i]], times[i]))
                    bar.value = 100 * (i + 1) / len(views)
        finally:
            bar.visible = False
        self.panel.tell(f"wrote {path}")


def check_address(host: str, port: int) -> None:
    """Looks whether a server can listen: viser's would wait for ever where it cannot. A taken port
    is no hindrance.

    Raises:
        InputError: the address is not this machine's, or the port is no port.
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
