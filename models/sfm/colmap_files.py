"""COLMAP model folders: cameras of others read, our cameras and tracks written.

Beside ``colmap``, which maps and adjusts, this file imports pycolmap.
"""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pycolmap
import torch
from jaxtyping import Bool, Float, UInt8

from models.cameras import Cameras
from models.clip import MODELS, Lens, sort_naturally
from models.run import InputError
from models.tracks import PointTracks

# Frames of the model that must see a point, as COLMAP's viewers expect.
_MIN_OBSERVATIONS = 2
# Files of a model that hold its cameras and poses; old models have no rigs and frames.
_FILES = ("cameras", "images", "rigs", "frames")
# A file of no points, by suffix: a binary file begins with their number.
_NO_POINTS = {".bin": bytes(8), ".txt": b""}


def write_model(
    folder: Path,
    cameras: Cameras,
    frames: list[int],
    xyz: Float[np.ndarray, "N 3"],
    rgb: UInt8[np.ndarray, "N 3"],
    tracks: PointTracks,
) -> None:
    """Writes cameras, images and points3D of some frames into a folder, as .txt and as .bin; images
    are named %05d.png.

    Points that fewer than two of the frames see are left out. Each image has a camera of its own
    if intrinsics differ between frames.
    """
    seen = tracks.visible & (tracks.visible[frames].sum(0) >= _MIN_OBSERVATIONS)
    model = pycolmap.Reconstruction()
    _add_images(model, cameras, frames, tracks, seen)
    # Index of each observation among its image's keypoints.
    row = np.cumsum(seen, 1) - 1
    for n in np.flatnonzero(seen[frames].any(0)):
        elements = [pycolmap.TrackElement(t + 1, int(row[t, n])) for t in frames if seen[t, n]]
        model.add_point3D(xyz[n], pycolmap.Track(elements), rgb[n])
    model.update_point_3d_errors()
    model.write_text(folder)
    # Some programs read only binary files.
    model.write_binary(folder)


def _add_images(
    model: pycolmap.Reconstruction,
    cameras: Cameras,
    frames: list[int],
    tracks: PointTracks,
    seen: Bool[np.ndarray, "F N"],
) -> None:
    """Adds the frames with their cameras and the keypoints of the observations ``seen``."""
    K = cameras.K.double().numpy()
    shared = bool((K[frames] == K[frames[0]]).all())
    poses = cameras.cam_from_world.double().numpy()
    for t in frames:
        own = frames[0] if shared else t
        if t == own:
            camera = pycolmap.Camera(
                model="PINHOLE",
                width=cameras.width,
                height=cameras.height,
                params=[K[t, 0, 0], K[t, 1, 1], K[t, 0, 2], K[t, 1, 2]],
                camera_id=t + 1,
            )
            model.add_camera_with_trivial_rig(camera)
        keypoints = np.ascontiguousarray(tracks.xy[t, seen[t]], np.float64)
        # COLMAP's numbers begin at 1.
        image = pycolmap.Image(
            name=f"{t:05d}.png", keypoints=keypoints, camera_id=own + 1, image_id=t + 1
        )
        model.add_image_with_trivial_frame(image, pycolmap.Rigid3d(poses[t, :3]))


def read_model(path: Path) -> tuple[Cameras, list[str], list[Lens]]:
    """Cameras without their lens distortion, image names and lenses of a COLMAP model folder, in
    natural name order.

    Args:
        path: folder of the model; or a folder above, see ``_find_models``.

    Raises:
        InputError: no such folder, no image is registered, images are of unlike sizes, or a lens
            model is not known.
    """
    images = max((_read_images(folder) for folder in _find_models(path)), key=len)
    used = {image.camera_id: image.camera for image in images}
    sizes = sorted({(camera.width, camera.height) for camera in used.values()})
    if len(sizes) > 1:
        listed = ", ".join(f"{w}x{h}" for w, h in sizes)
        raise InputError(
            f"{path}: the COLMAP model has images of {listed}; give one of images of one size"
        )
    K = torch.from_numpy(np.stack([image.camera.calibration_matrix() for image in images]))
    pose = np.tile(np.eye(4), (len(images), 1, 1))
    pose[:, :3] = [image.cam_from_world().inverse().matrix() for image in images]
    lenses = {key: _read_lens(camera, path) for key, camera in used.items()}
    return (
        Cameras(K, torch.from_numpy(pose), *sizes[0]),
        [image.name for image in images],
        [lenses[image.camera_id] for image in images],
    )


def _find_models(path: Path) -> list[Path]:
    """Model folders at ``path``, in it, or in its folder ``sparse``; ``path`` itself if none is
    found."""
    for folder in (path, path / "sparse", path / "colmap" / "sparse"):
        inside = sorted(folder.iterdir()) if folder.is_dir() else []
        found = [place for place in (folder, *inside) if _holds_model(place)]
        if found:
            return found
    return [path]


def _holds_model(folder: Path) -> bool:
    return any((folder / f"images{suffix}").is_file() for suffix in (".bin", ".txt"))


def _read_images(path: Path) -> list[pycolmap.Image]:
    """The registered images of a model folder, in natural name order."""
    try:
        with _add_points_file(path) as folder:
            model = pycolmap.Reconstruction(folder)
    except (RuntimeError, ValueError, LookupError, OSError) as error:
        raise InputError(
            f"{path}: not a COLMAP model (cameras and images as .bin or .txt)"
        ) from error
    images = [model.image(i) for i in model.reg_image_ids()]
    if not images:
        raise InputError(f"{path}: the COLMAP model has no registered image")
    return sort_naturally(images, lambda image: image.name)


@contextmanager
def _add_points_file(path: Path) -> Iterator[Path]:
    """The model folder, or a copy with a file of no points where it holds none: COLMAP reads no model
    without that file."""
    for suffix, no_points in _NO_POINTS.items():
        files = [path / f"{name}{suffix}" for name in _FILES]
        found = [file for file in files if file.is_file()]
        if {file.stem for file in found} >= {"cameras", "images"}:
            if (path / f"points3D{suffix}").is_file():
                break
            with tempfile.TemporaryDirectory() as copy:
                for file in found:
                    shutil.copy(file, copy)
                Path(copy, f"points3D{suffix}").write_bytes(no_points)
                yield Path(copy)
            return
    yield path


def _read_lens(camera: pycolmap.Camera, path: Path) -> Lens:
    if camera.model_name not in MODELS:
        raise InputError(
            f"{path}: lens model {camera.model_name} is not read; undistort the images first "
            "(colmap image_undistorter) and give OUT/images and OUT/sparse"
        )
    params = tuple(map(float, camera.params))
    return Lens(camera.model_name, params, camera.width, camera.height)
