"""Masks by SAM 2, prompted by the masks that motion gives in place of a user's clicks.

Source: Ravi et al., "SAM 2: segment anything in images and videos", 2024.

Each mover is prompted in its best frame and followed from there to both ends of the clip. Frames are
handed over singly, and frames that the model cannot look back at are dropped, so that memory does
not grow with the clip.
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
from models.run import SILENT, Progress

MaskModel = Callable[
    [UInt8[np.ndarray, "F H W 3"], UInt8[np.ndarray, "F H W"], Progress],
    UInt8[np.ndarray, "F H W"],
]
"""(RGB frames, labels of movers, 0 = none, progress) -> labels of the same movers."""
# Intersection over union with the prompt below which the model's mask is another object.
_SAME_OBJECT = 0.5
# Median intersection over union with the motion masks, over the clip, below which these are kept.
_FOLLOWED = 0.3
# Points inside the mask that accompany its box in a prompt.
_INSIDE_POINTS = 3
# Score of a frame cut by the image border, relative to other frames.
_CUT_SCORE = 0.25
# Labels of the two corners of a box, and of an inner point, in SAM 2's prompt encoder.
_CORNER_LABELS = (2, 3)
_POINT_LABEL = 1


def open_sam2(checkpoint: str | None, allow_download: bool, device: str) -> MaskModel:
    """SAM 2 on a device; see ``open_pretrained`` for arguments and errors."""
    model = open_pretrained(SAM2, checkpoint, allow_download).to(device)
    return lambda frames, labels, progress: follow_movers(model, frames, labels, progress)


SAM2 = Pretrained(
    option="--masks",
    name="sam2",
    title="SAM 2",
    licence="Apache-2.0",
    open=open_sam2,
    model_class="Sam2VideoModel",
    hub_name="facebook/sam2.1-hiera-small",
)


@torch.inference_mode()
def follow_movers(
    model: Any,
    frames: UInt8[np.ndarray, "F H W 3"],
    labels: UInt8[np.ndarray, "F H W"],
    progress: Progress = SILENT,
) -> UInt8[np.ndarray, "F H W"]:
    """Labels with the model's outlines; a mover that the model does not follow keeps its mask.

    In a pixel of several movers the largest logit wins.
    """
    movers = [int(m) for m in np.unique(labels) if m]
    done = 0
    total = len(movers) * (len(frames) + 1)
    score = np.zeros(labels.shape, np.float32)
    out = np.zeros_like(labels)
    for mover in movers:
        mask = labels == mover
        start = best_frame(mask)
        prompt = _make_prompt(model, frames[start], mask[start])
        logits = np.zeros(mask.shape, np.float32)
        for order in (range(start, len(frames)), range(start, -1, -1)):
            followed = _follow(model, (frames[t] for t in order), prompt)
            for t, found in zip(order, followed, strict=True):
                logits[t] = found
                done += 1
                progress.step("learned masks", done, total)
        if not is_followed(logits > 0, mask):
            logits = np.where(mask, 1.0, -1.0).astype(np.float32)
        won = logits > np.maximum(score, 0)
        out[won] = mover
        score[won] = logits[won]
    return out


def best_frame(mask: Bool[np.ndarray, "F H W"]) -> int:
    """The frame that shows a mover best: large, about as large as in the frames before and after,
    and not cut by the image border."""
    area = mask.sum((1, 2)).astype(np.float64)
    near = np.stack([np.roll(area, 1), np.roll(area, -1)])
    near[0, 0] = area[0]
    near[1, -1] = area[-1]
    steady = np.minimum(near, area).min(0) / np.maximum(np.maximum(near, area).max(0), 1)
    border = mask[:, [0, -1]].any((1, 2)) | mask[:, :, [0, -1]].any((1, 2))
    return int((area * steady * np.where(border, _CUT_SCORE, 1.0)).argmax())


def is_followed(found: Bool[np.ndarray, "F H W"], mask: Bool[np.ndarray, "F H W"]) -> bool:
    """Whether the model's masks still show the mover in most frames that have a motion mask."""
    present = mask.any((1, 2))
    overlap = (found & mask)[present].sum((1, 2)) / np.maximum(
        (found | mask)[present].sum((1, 2)), 1
    )
    return bool(np.median(overlap) > _FOLLOWED)


def _make_prompt(model: Any, frame: np.ndarray, mask: Bool[np.ndarray, "H W"]) -> dict[str, Any]:
    """Box and inner points of the mask, if the model's answer to them shows the same object; the
    model then draws its own outline. Else the mask itself."""
    side = int(model.config.image_size)
    small = cv2.resize(mask.astype(np.uint8), (side, side), interpolation=cv2.INTER_AREA)
    if not small.any():
        small = cv2.resize(mask.astype(np.uint8), (side, side))
    points = _choose_points(small > 0)
    labels = [*_CORNER_LABELS, *[_POINT_LABEL] * (len(points) - 2)]
    prompt = {
        "point_coords": torch.tensor(points, dtype=torch.float32)[None, None],
        "point_labels": torch.tensor(labels, dtype=torch.int32)[None, None],
    }
    found = next(_follow(model, [frame], prompt)) > 0
    overlap = (found & mask).sum() / max((found | mask).sum(), 1)
    if overlap > _SAME_OBJECT:
        return prompt
    whole = torch.from_numpy(mask.astype(np.float32))[None, None]
    whole = functional.interpolate(whole, (side, side), mode="bilinear", antialias=True)
    return {"mask": (whole >= 0.5).float()}


def _choose_points(mask: Bool[np.ndarray, "S S"]) -> list[tuple[float, float]]:
    """Two opposite corners of the mask's box, and the points deepest inside the mask, far from each
    other; pixels x, y."""
    rows, columns = np.nonzero(mask)
    points = [(columns.min(), rows.min()), (columns.max() + 1, rows.max() + 1)]
    depth = distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    for _ in range(_INSIDE_POINTS):
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
    """Logits of the prompted object in each frame; the first frame is the prompted one."""
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
    memory = int(max(model.config.num_maskmem, model.config.max_object_pointers_in_encoder))
    for t, frame in enumerate(frames):
        image = _prepare_image(frame, int(model.config.image_size))
        with torch.inference_mode():
            answer = model(session, frame=image, frame_idx=t)
        is_visible = bool(answer.object_score_logits.max() > 0)
        masks = answer.pred_masks.float()
        logits = functional.interpolate(masks, frame.shape[:2], mode="bilinear")[0, 0]
        yield logits.cpu().numpy() if is_visible else np.full(frame.shape[:2], -1.0, np.float32)
        _forget(session, t, memory)


def _prepare_image(frame: UInt8[np.ndarray, "H W 3"], side: int) -> Float[Tensor, "1 3 S S"]:
    """A frame, resized and normalised for the encoder."""
    image = torch.from_numpy(frame.copy()).permute(2, 0, 1)[None].float() / 255
    image = functional.interpolate(image, (side, side), mode="bilinear", antialias=True)
    mean, std = (torch.tensor(v)[:, None, None] for v in (IMAGENET_MEAN, IMAGENET_STD))
    return (image - mean) / std


def _forget(session: Any, t: int, memory: int) -> None:
    """Drops the session's values of frames that the model does not look back at.

    Args:
        t: the latest frame.
        memory: number of frames that the model looks back.
    """
    session.processed_frames.clear()
    for outputs in session.output_dict_per_obj[0].values():
        for output in outputs.values():
            output.pop("high_res_masks", None)
    later = session.output_dict_per_obj[0]["non_cond_frame_outputs"]
    for old in [k for k in later if k <= t - memory]:
        del later[old]
    session.frames_tracked_per_obj[0].clear()
