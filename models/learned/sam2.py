"""Masks by SAM 2 (Ravi et al., 2024), prompted by the masks that motion gave, so that nobody
clicks.

Each mover is prompted in the frame that shows it best and followed from there to both ends. Frames
are handed over one by one and what the model cannot look back at is dropped, so memory does not
grow with the clip.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as functional
from jaxtyping import Bool, Float, UInt8
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from models.learned.depth import IMAGENET_MEAN, IMAGENET_STD
from models.learned.pretrained import Pretrained, open_pretrained
from models.run import InputError

MaskModel = Callable[
    [UInt8[np.ndarray, "F H W 3"], UInt8[np.ndarray, "F H W"], Callable[[int, int], None]],
    UInt8[np.ndarray, "F H W"],
]
"""(RGB frames, labels of movers, progress of (done, total)) -> labels of the same movers."""
SAM2 = Pretrained("--masks", "sam2", "Sam2VideoModel", "facebook/sam2.1-hiera-small")
MASK_MODELS = {SAM2.name: SAM2}
SAME_OBJECT = 0.5
"""Overlap (intersection over union) of the model's mask with the prompt below which its answer is
another thing."""
STILL_THAT = 0.3
"""The same over the clip, median: below it the motion masks are kept."""
INSIDE_POINTS = 3
"""Points inside the mask that go with its box."""


def check_mask_model(name: str) -> None:
    """Raises InputError where there is no mask model of that name."""
    if name not in MASK_MODELS:
        raise InputError(
            f"mask model '{name}' is not known; choose one of {', '.join(sorted(MASK_MODELS))}"
        )


def open_mask_model(
    name: str, checkpoint: str | None = None, allow_download: bool = False, device: str = "cpu"
) -> MaskModel:
    """The mask model of that name with its weights on a device.

    Raises:
        InputError: no such model; its package or weights are missing or wrong.
    """
    check_mask_model(name)
    model = open_pretrained(MASK_MODELS[name], checkpoint, allow_download).to(device)
    return lambda frames, labels, progress: follow_movers(model, frames, labels, progress)


@torch.inference_mode()
def follow_movers(
    model: Any,
    frames: UInt8[np.ndarray, "F H W 3"],
    labels: UInt8[np.ndarray, "F H W"],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> UInt8[np.ndarray, "F H W"]:
    """Labels with the model's outlines; a mover that the model does not follow keeps the mask that
    it has."""
    movers = [int(m) for m in np.unique(labels) if m]
    done = 0
    total = len(movers) * (len(frames) + 1)
    score = np.zeros(labels.shape, np.float32)
    out = np.zeros_like(labels)
    for mover in movers:
        mask = labels == mover
        start = best_frame(mask)
        prompt = _prompt(model, frames[start], mask[start])
        logits = np.zeros(mask.shape, np.float32)
        for order in (range(start, len(frames)), range(start, -1, -1)):
            for t, found in zip(
                order, _follow(model, (frames[t] for t in order), prompt), strict=True
            ):
                logits[t] = found
                done += 1
                progress(done, total)
        if not followed(logits > 0, mask):
            logits = np.where(mask, 1.0, -1.0).astype(np.float32)
        won = logits > np.maximum(score, 0)
        out[won] = mover
        score[won] = logits[won]
    return out


def best_frame(mask: Bool[np.ndarray, "F H W"]) -> int:
    """The frame that shows a mover best: large, about as large as its neighbours in time, and not
    cut by the border."""
    area = mask.sum((1, 2)).astype(np.float64)
    near = np.stack([np.roll(area, 1), np.roll(area, -1)])
    near[0, 0] = area[0]
    near[1, -1] = area[-1]
    steady = np.minimum(near, area).min(0) / np.maximum(np.maximum(near, area).max(0), 1)
    border = mask[:, [0, -1]].any((1, 2)) | mask[:, :, [0, -1]].any((1, 2))
    return int((area * steady * np.where(border, 0.25, 1.0)).argmax())


def followed(found: Bool[np.ndarray, "F H W"], mask: Bool[np.ndarray, "F H W"]) -> bool:
    """Whether masks still show the same thing in most of the frames in which motion saw it."""
    present = mask.any((1, 2))
    overlap = (found & mask)[present].sum((1, 2)) / np.maximum(
        (found | mask)[present].sum((1, 2)), 1
    )
    return bool(np.median(overlap) > STILL_THAT)


def _prompt(model: Any, frame: np.ndarray, mask: Bool[np.ndarray, "H W"]) -> dict[str, Any]:
    """Box and inner points where the model's answer is what the mask shows, and has its own
    outline; else the mask."""
    side = int(model.config.image_size)
    small = cv2.resize(mask.astype(np.uint8), (side, side), interpolation=cv2.INTER_AREA)
    points = _box_and_points(
        small > 0 if small.any() else cv2.resize(mask.astype(np.uint8), (side, side)) > 0
    )
    asked = {
        "point_coords": torch.tensor(points, dtype=torch.float32)[None, None],
        "point_labels": torch.tensor([2, 3, *[1] * (len(points) - 2)], dtype=torch.int32)[
            None, None
        ],
    }
    found = next(_follow(model, [frame], asked)) > 0
    overlap = (found & mask).sum() / max((found | mask).sum(), 1)
    if overlap > SAME_OBJECT:
        return asked
    whole = torch.from_numpy(mask.astype(np.float32))[None, None]
    whole = functional.interpolate(whole, (side, side), mode="bilinear", antialias=True)
    return {"mask": (whole >= 0.5).float()}


def _box_and_points(mask: Bool[np.ndarray, "S S"]) -> list[tuple[float, float]]:
    """Corners of the box (labels 2 and 3 of the prompt encoder) and the points deepest inside, far
    from one another."""
    rows, columns = np.nonzero(mask)
    points = [(columns.min(), rows.min()), (columns.max() + 1, rows.max() + 1)]
    depth = distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    for _ in range(INSIDE_POINTS):
        y, x = np.unravel_index(depth.argmax(), depth.shape)
        reach = depth[y, x]
        if reach <= 0:
            break
        points.append((x + 0.5, y + 0.5))
        yy, xx = np.ogrid[: mask.shape[0], : mask.shape[1]]
        depth = np.where((yy - y) ** 2 + (xx - x) ** 2 < (2 * reach) ** 2, 0, depth)
    return [(float(x), float(y)) for x, y in points]


def _follow(
    model: Any, frames: Iterable[np.ndarray], prompt: dict[str, Any]
) -> Iterator[Float[np.ndarray, "H W"]]:
    """Logits of the prompted thing in each frame, the first being the one that is prompted."""
    from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoInferenceSession

    device = next(model.parameters()).device
    session = Sam2VideoInferenceSession(
        inference_device=device, inference_state_device=device, dtype=torch.float32
    )
    session.obj_id_to_idx(1)
    if "mask" in prompt:
        session.add_mask_inputs(0, 0, prompt["mask"])
    else:
        session.add_point_inputs(0, 0, prompt)
    session.obj_with_new_inputs = [1]
    for t, frame in enumerate(frames):
        with torch.inference_mode():
            answer = model(session, frame=_pixels(frame, int(model.config.image_size)), frame_idx=t)
        there = bool(answer.object_score_logits.max() > 0)
        logits = functional.interpolate(
            answer.pred_masks.float(), frame.shape[:2], mode="bilinear"
        )[0, 0]
        yield logits.cpu().numpy() if there else np.full(frame.shape[:2], -1.0, np.float32)
        _forget(
            session,
            t,
            int(max(model.config.num_maskmem, model.config.max_object_pointers_in_encoder)),
        )


def _pixels(frame: UInt8[np.ndarray, "H W 3"], side: int) -> Float[Tensor, "1 3 S S"]:
    image = torch.from_numpy(frame.copy()).permute(2, 0, 1)[None].float() / 255
    image = functional.interpolate(image, (side, side), mode="bilinear", antialias=True)
    return (image - torch.tensor(IMAGENET_MEAN)[:, None, None]) / torch.tensor(IMAGENET_STD)[
        :, None, None
    ]


def _forget(session: Any, t: int, memory: int) -> None:
    """Drops what the session keeps of frames that the model does not look back at."""
    session.processed_frames.clear()
    for outputs in session.output_dict_per_obj[0].values():
        for output in outputs.values():
            output.pop("high_res_masks", None)
    later = session.output_dict_per_obj[0]["non_cond_frame_outputs"]
    for old in [k for k in later if k <= t - memory]:
        del later[old]
    session.frames_tracked_per_obj[0].clear()
