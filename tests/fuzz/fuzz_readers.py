"""Coverage-guided fuzzing of the readers of track files, camera paths and masks: no error but the
project's own.

Needs ``pip install atheris==3.0.0`` (Linux, macOS). Runs until stopped, or for so many seconds::

    python tests/fuzz/fuzz_readers.py tracks tests/fuzz/seeds/tracks -max_total_time=600

Targets: tracks, npz, camera_path, masks. Seeds are made again by ``python
tests/fuzz/fuzz_readers.py seeds``.
"""

import json
import os
import random
import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent.parent))

import atheris

with atheris.instrument_imports(include=["models"]):
    from models import tracks
    from models.clip import frames_of, masks, transforms
    from models.run.errors import InputError

import cv2
import numpy as np
import torch

SEEDS = Path(__file__).parent / "seeds"
FOLDER = Path(tempfile.mkdtemp(prefix="fuzz_"))
FRAMES, POINTS = 3, 4


def good_state() -> dict:
    """A small track file's content."""
    return {
        "format_version": 1,
        "xy": torch.rand(FRAMES, POINTS, 2) * 30,
        "visible": torch.ones(FRAMES, POINTS, dtype=torch.bool),
        "confidence": torch.ones(FRAMES, POINTS),
        "xyz": torch.rand(1, POINTS, 3).expand(FRAMES, -1, -1),
        "K": torch.tensor([[40.0, 0, 16], [0, 40, 12], [0, 0, 1]]).double().repeat(FRAMES, 1, 1),
        "world_from_cam": torch.eye(4).double().repeat(FRAMES, 1, 1),
        "width": 32,
        "height": 24,
        "fps": 30.0,
        "frame_indices": torch.arange(FRAMES),
        "layer": "background",
        "video_path": "clip",
    }


def odd_value(take: atheris.FuzzedDataProvider, value: object) -> object:
    """Another value in the place of one of a track file."""
    kind = take.ConsumeIntInRange(0, 9)
    if isinstance(value, torch.Tensor) and kind < 6:
        if kind == 0:
            shape = [take.ConsumeIntInRange(0, 5) for _ in range(take.ConsumeIntInRange(0, 4))]
            return torch.zeros(shape, dtype=value.dtype)
        if kind == 1:
            types = (
                torch.float16,
                torch.float64,
                torch.int8,
                torch.bool,
                torch.complex64,
                torch.bfloat16,
            )
            return value.to(take.PickValueInList(list(types)))
        if kind == 2:
            row = torch.atleast_1d(value)[:1]
            return row.expand(take.ConsumeIntInRange(1, 1 << 40), *row.shape[1:])
        if kind == 3:
            return value.transpose(0, -1)
        changed = value.clone().flatten()
        at = take.ConsumeIntInRange(0, max(len(changed) - 1, 0))
        changed[at : at + 1] = take.PickValueInList([0, 1]) if kind == 4 else take.ConsumeFloat()
        return changed.reshape(value.shape)
    options = [
        None,
        True,
        take.ConsumeInt(8),
        take.ConsumeFloat(),
        take.ConsumeUnicode(20),
        [1, 2],
        {"a": 1},
        (),
    ]
    return take.PickValueInList(options)


def fuzz_tracks(data: bytes) -> None:
    """Bytes as a file, or a good file with some odd values."""
    path = FOLDER / "t.pt"
    take = atheris.FuzzedDataProvider(data)
    if data[:2] == b"PK" or take.ConsumeBool():
        path.write_bytes(data)
    else:
        state = good_state()
        for _ in range(take.ConsumeIntInRange(1, 3)):
            key = take.PickValueInList([*state, "canonical", "label", take.ConsumeUnicode(5)])
            try:
                state[key] = odd_value(take, state.get(key))
            except (RuntimeError, OverflowError):
                return
            if take.ConsumeIntInRange(0, 5) == 0:
                state.pop(take.PickValueInList(list(state)))
        torch.save(state, path)
    tracks.load_tracks(path)


def fuzz_npz(data: bytes) -> None:
    """Bytes as an archive of arrays."""
    path = FOLDER / "t.npz"
    path.write_bytes(data)
    tracks.load_tracks(path)


def fuzz_camera_path(data: bytes) -> None:
    """Bytes as JSON, which is written again where it is a camera path."""
    path = FOLDER / "path.json"
    path.write_bytes(data)
    found, times, names = transforms.load_transforms(path)
    transforms.save_transforms(FOLDER / "again.json", found, times, names)
    again, _, _ = transforms.load_transforms(FOLDER / "again.json")
    assert len(again) == len(found)


def fuzz_masks(data: bytes) -> None:
    """Bytes as one of three mask images."""
    folder = FOLDER / "masks"
    (folder / "1.png").write_bytes(data)
    found = masks.read_masks(folder, frames_of.ClipFrames.in_order(3, (24, 16)))
    assert found.shape == (3, 16, 24) and found.dtype == bool


def write_seeds() -> None:
    """Good inputs to begin with, in ``seeds``."""
    torch.manual_seed(0)
    for name in ("tracks", "npz", "camera_path", "masks"):
        (SEEDS / name).mkdir(parents=True, exist_ok=True)
    torch.save(good_state(), SEEDS / "tracks" / "good")
    (SEEDS / "tracks" / "odd").write_bytes(random.Random(0).randbytes(60))
    K = np.tile(np.array([[40, 0, 16], [0, 40, 12], [0, 0, 1.0]]), (FRAMES, 1, 1))
    arrays = {"intrinsics": K, "extrinsics": np.tile(np.eye(4), (FRAMES, 1, 1))}
    arrays["visibs"] = np.ones((FRAMES, POINTS), bool)
    with (SEEDS / "npz" / "good").open("wb") as stream:
        np.savez(stream, coords=np.ones((FRAMES, POINTS, 3), np.float32), **arrays)
    pose = np.eye(4).tolist()
    frames = [{"file_path": "0.png", "transform_matrix": pose, "time": 0.5}]
    text = {"w": 32, "h": 24, "fl_x": 40.0, "fl_y": 40.0, "cx": 16, "cy": 12, "frames": frames}
    (SEEDS / "camera_path" / "good").write_text(json.dumps(text))
    (SEEDS / "camera_path" / "angle").write_text(
        json.dumps({"w": 8, "h": 8, "camera_angle_x": 1.0, "frames": frames})
    )
    image = np.zeros((16, 24), np.uint8)
    image[4:9, 3:9] = 255
    for suffix in (".png", ".jpg", ".webp", ".bmp"):
        (SEEDS / "masks" / f"good{suffix}").write_bytes(cv2.imencode(suffix, image)[1].tobytes())


def main() -> None:
    if sys.argv[1:] == ["seeds"]:
        write_seeds()
        return
    targets = {
        "tracks": fuzz_tracks,
        "npz": fuzz_npz,
        "camera_path": fuzz_camera_path,
        "masks": fuzz_masks,
    }
    target = targets[sys.argv.pop(1)]
    (FOLDER / "masks").mkdir()
    for name in ("0.png", "2.png"):
        shutil.copy(SEEDS / "masks" / "good.png", FOLDER / "masks" / name)

    def one(data: bytes) -> None:
        try:
            target(data)
        except InputError as error:
            assert "\n" not in str(error) and len(str(error)) < 5000

    corpus = [
        tempfile.mkdtemp(prefix="corpus_")
    ]  # what is found goes there, the seeds stay as they are
    atheris.Setup([sys.argv[0], *corpus, *sys.argv[1:], f"-artifact_prefix={FOLDER}{os.sep}"], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
