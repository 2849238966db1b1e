"""Cameras, images and points for other programs: a COLMAP model, a nerfstudio data set."""

import json
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8

from models.clip import save_transforms, write_images
from models.export.footage import Footage
from models.export.mesh_files import write_ply
from models.run import make_subfolder, take_place, write_json
from models.sfm import write_model
from models.tracks import PointTracks, Tracks

# Grey level of a point without observations.
_UNSEEN = 128
# Training frames that must show a point of a nerfstudio data set.
_MIN_OBSERVATIONS = 2


def write_colmap(folder: Path, footage: Footage, tracks: Tracks) -> None:
    """Writes ``images/%05d.png`` and ``sparse/0/{cameras,images,points3D}`` (.txt and .bin) of the
    footage's frames."""
    times = footage.times
    write_images(make_subfolder(folder, "images"), (footage.frames[t] for t in times), times)
    xyz, rgb = color_points(footage, tracks)
    model = make_subfolder(folder, "sparse", "0")
    unfinished = make_subfolder(model, "model.part")
    xy = tracks.xy.numpy()
    visible = tracks.visible.numpy() & np.isfinite(xyz).all(1)
    points = PointTracks(xy, visible, tracks.width, tracks.height)
    write_model(unfinished, footage.cameras, times, xyz, rgb, points)
    for path in sorted(unfinished.iterdir()):
        take_place(path, model / path.name)
    unfinished.rmdir()


def write_nerfstudio(folder: Path, footage: Footage, tracks: Tracks) -> None:
    """Writes ``transforms.json``, ``images``, ``points.ply``, and ``masks`` (white = still) if
    something moves."""
    times = footage.times
    write_images(make_subfolder(folder, "images"), (footage.frames[t] for t in times), times)
    names = [f"images/{t:05d}.png" for t in times]
    save_transforms(folder / "transforms.json", footage.cameras[times], times, names)
    xyz, rgb = color_points(footage, tracks)
    used = np.isfinite(xyz).all(1) & (tracks.visible.numpy()[times].sum(0) >= _MIN_OBSERVATIONS)
    write_ply(folder / "points.ply", xyz[used], rgb[used])
    meta = json.loads((folder / "transforms.json").read_text())
    meta |= {"camera_model": "PINHOLE", "ply_file_path": "points.ply"}
    if footage.masks is not None:
        masks = (footage.still(t).astype(np.uint8) * 255 for t in times)
        write_images(make_subfolder(folder, "masks"), masks, times)
        for frame in meta["frames"]:
            frame["mask_path"] = frame["file_path"].replace("images/", "masks/")
    write_json(folder / "transforms.json", meta)


def color_points(
    footage: Footage, tracks: Tracks
) -> tuple[Float[np.ndarray, "N 3"], UInt8[np.ndarray, "N 3"]]:
    """World point of each background track, and its mean colour over its observations; grey
    without observations."""
    total = np.zeros((tracks.num_tracks, 3))
    count = np.zeros(tracks.num_tracks)
    height = footage.cameras.height
    width = footage.cameras.width
    for t in footage.times:
        visible = torch.nonzero(tracks.visible[t])[:, 0].numpy()
        column, row = np.floor(tracks.xy[t, visible].numpy()).astype(np.int64).T
        total[visible] += footage.frames[t][row.clip(0, height - 1), column.clip(0, width - 1)]
        count[visible] += 1
    mean = np.where(count[:, None] > 0, total / np.maximum(count, 1)[:, None], _UNSEEN)
    return tracks.xyz[0].double().numpy(), (mean + 0.5).astype(np.uint8)
