"""Key frames of a camera path, set on the live viewer's pages."""

from pathlib import Path

import viser
from numpy import ndarray
from scipy.spatial.transform import Rotation

from models.cameras import Cameras
from models.clip import save_transforms
from models.paths import CameraPath, KeyFrame, interpolate_keys, pose_from_wxyz
from models.run import InputError

# Colour of key frames, RGB.
_KEY_COLOR = (255, 140, 60)
# Pixels; width of the lines of a frustum.
_THICKNESS = 1.5


class KeyFrameEditor:
    """The key frames that all pages share, with their frusta in the 3D scene.

    Args:
        cameras: of the clip; they give the size of the views.
        size: of a frustum, world units.
    """

    def __init__(self, server: viser.ViserServer, cameras: Cameras, size: float):
        self._server = server
        self._cameras = cameras
        self._size = size
        self._keys: list[KeyFrame] = []

    def __len__(self) -> int:
        return len(self._keys)

    def add(self, camera: viser.CameraHandle, time: float) -> None:
        """Adds the present view of a page.

        Args:
            time: of the clip, frames.
        """
        pose = pose_from_wxyz(camera.wxyz, camera.position)
        self._keys.append(KeyFrame(pose, camera.fov, time))
        self.add_frustum(f"/keys/{len(self._keys):03d}", pose, camera.fov, _KEY_COLOR)

    def clear(self) -> None:
        """Removes all key frames."""
        self._keys.clear()
        self._server.scene.remove_by_name("/keys")

    def save(self, path: Path, steps: int) -> CameraPath:
        """Writes a smooth path through the key frames; returns the path.

        Args:
            steps: views from a key frame to the next.

        Raises:
            InputError: there are fewer than two key frames, or the file cannot be written.
        """
        camera_path = interpolate_keys(self._keys, steps, self._cameras.width, self._cameras.height)
        try:
            save_transforms(path, *camera_path)
        except OSError as error:
            raise InputError(
                f"{path}: cannot be written ({error.strerror}); give a folder that exists"
            ) from error
        return camera_path

    def add_frustum(
        self, name: str, pose: ndarray, fov: float, color: tuple[int, int, int]
    ) -> None:
        """Draws a camera in the 3D scene.

        Args:
            pose: world_from_cam, (4, 4).
            fov: vertical field of view, radians.
        """
        self._server.scene.add_camera_frustum(
            name,
            fov,
            self._cameras.width / self._cameras.height,
            scale=self._size,
            thickness=_THICKNESS,
            thickness_units="screen",
            color=color,
            # viser's quaternions start with the scalar
            wxyz=Rotation.from_matrix(pose[:3, :3]).as_quat(scalar_first=True),
            position=pose[:3, 3],
        )
