"""A camera path for other programs: nerfstudio's viewer, and an animated camera in glTF."""

import math
from pathlib import Path

from models.cameras import OPENGL_FROM_OPENCV
from models.export.gltf import AnimationWriter, GltfWriter, compute_camera_motion
from models.paths import CameraPath
from models.run import write_json


def write_camera_files(stem: Path, path: CameraPath, fps: float) -> None:
    """Writes ``stem``.json as nerfstudio's viewer does, and ``stem``.glb with an animated camera
    in the axes of scene.glb, so that it fits that scene in Blender.

    Both formats put the principal point into the middle of the image, and the GLB holds the field of
    view of the first camera.

    Args:
        fps: frames per second of the video.
    """
    cameras, _ = path
    shift, turn = compute_camera_motion(cameras)
    gltf = GltfWriter()
    animation = AnimationWriter(gltf)
    node = gltf.add_camera(stem.name, cameras, 0)
    seconds = [i / fps for i in range(len(cameras))]
    animation.animate(node, "translation", seconds, shift, "LINEAR")
    animation.animate(node, "rotation", seconds, turn, "LINEAR")
    animation.finish("path")
    gltf.write(stem.with_name(f"{stem.name}.glb"))
    write_json(stem.with_name(f"{stem.name}.json"), describe_for_nerfstudio(path, fps))


def describe_for_nerfstudio(path: CameraPath, fps: float) -> dict:
    """Content of camera_path.json: camera_to_world in OpenGL axes row by row, vertical field of
    view in degrees; and ``time`` in frames of the clip, which nerfstudio does not read."""
    cameras, times = path
    poses = cameras.world_from_cam.double() @ OPENGL_FROM_OPENCV
    views = []
    for i, pose in enumerate(poses):
        fov = 2 * math.degrees(math.atan(cameras.height / 2 / float(cameras.K[i, 1, 1])))
        views.append(
            {
                "camera_to_world": pose.flatten().tolist(),
                "fov": fov,
                "aspect": cameras.width / cameras.height,
                "time": float(times[i]),
            }
        )
    return {
        "camera_type": "perspective",
        "render_width": cameras.width,
        "render_height": cameras.height,
        "fps": fps,
        "seconds": len(views) / fps,
        "is_cycle": False,
        "smoothness_value": 0,
        "keyframes": [],
        "camera_path": views,
    }
