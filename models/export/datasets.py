"""Cameras, images and points as other tools read them: a COLMAP model, a nerfstudio data set."""

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
from models.tracks import Tracks


def write_colmap(folder: Path, footage: Footage, tracks: Tracks) -> None:
    """``images/%05d.png`` and ``sparse/0/{cameras,images,points3D}.txt`` of the footage's
    frames."""
    write_images(
        make_subfolder(folder, "images"), (footage.frames[t] for t in footage.times), footage.times
    )
    xyz, rgb = track_points(footage, tracks)
    model = make_subfolder(folder, "sparse", "0")
    unfinished = make_subfolder(model, "model.part")
    xy = tracks.xy.numpy()
    visible = tracks.visible.numpy() & np.isfinite(xyz).all(1)
    write_model(unfinished, footage.cameras, footage.times, xyz, rgb, xy, visible)
    for path in sorted(unfinished.iterdir()):
        take_place(path, model / path.name)
    unfinished.rmdir()


def write_nerfstudio(folder: Path, footage: Footage, tracks: Tracks) -> None:
    """``transforms.json``, ``images``, ``points.ply``, and ``masks`` (white = still) where
    something moves."""
    times = footage.times
    write_images(make_subfolder(folder, "images"), (footage.frames[t] for t in times), times)
    names = [f"images/{t:05d}.png" for t in times]
    save_transforms(folder / "transforms.json", footage.cameras[times], times, names)
    xyz, rgb = track_points(footage, tracks)
    used = np.isfinite(xyz).all(1) & (tracks.visible.numpy()[times].sum(0) >= 2)
    write_ply(folder / "points.ply", xyz[used], rgb[used])
    meta = json.loads((folder / "transforms.json").read_text())
    meta |= {"camera_model": "PINHOLE", "ply_file_path": "points.ply"}
    if footage.masks is not None:
        write_images(
            make_subfolder(folder, "masks"),
            (footage.still(t).astype(np.uint8) * 255 for t in times),
            times,
        )
        for frame in meta["frames"]:
            frame["mask_path"] = frame["file_path"].replace("images/", "masks/")
    write_json(folder / "transforms.json", meta)


def track_points(
    footage: Footage, tracks: Tracks
) -> tuple[Float[np.ndarray, "N 3"], UInt8[np.ndarray, "N 3"]]:
    """World point of each background track, and its mean colour in the frames that see it; grey
    where none does."""
    total = np.zeros((tracks.num_tracks, 3))
    count = np.zeros(tracks.num_tracks)
    for t in footage.times:
        seen = torch.nonzero(tracks.visible[t])[:, 0].numpy()
        column, row = np.floor(tracks.xy[t, seen].numpy()).astype(np.int64).T
        total[seen] += footage.frames[t][
            row.clip(0, footage.cameras.height - 1), column.clip(0, footage.cameras.width - 1)
        ]
        count[seen] += 1
    mean = np.where(count[:, None] > 0, total / np.maximum(count, 1)[:, None], 128)
    return tracks.xyz[0].double().numpy(), (mean + 0.5).astype(np.uint8)
