"""Options of depth from outside: flags that name the sources, thresholds of alignment and use."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from models.learned import (
    AUTO,
    DEPTH_MODELS,
    MASK_MODELS,
    LearnedModel,
    check_depth_model,
    check_mask_model,
    choose_mask_model,
    list_models,
)
from models.run import InputError

_DEPTH_HELP = (
    f"Learned depth: {list_models(DEPTH_MODELS)}; needs pip install -r requirements-learned.txt."
)
_MASKS_HELP = (
    f"Learned masks of what moves: {list_models(MASK_MODELS)}; {AUTO} takes one whose weights are on "
    "this machine. Masks come from motion alone if not given."
)


@dataclass(frozen=True)
class AlignmentOptions:
    """How depth maps are aligned to the points of a scene, and how far they are trusted."""

    far_shell: float = 4.0
    """Largest depth, as a multiple of the depth of the farthest points; anything beyond lies on
    this far shell. Larger values place the sky farther away."""
    turning_far_shell: float = 8.0
    """The same for a camera that only turns, in median distances of the points."""
    near_points: int = 16
    """Number of points that correct the alignment of a pixel near them. More points correct a
    smoother error: the error of a monocular map is smooth over a surface, not white."""
    near_pixels: float = 0.06
    """Standard deviation of the reach of such points in the image, as a share of its longer
    side."""
    near_depth: float = 0.1
    """Standard deviation of their reach in depth, as a difference of its logarithm."""
    outlier_limit: float = 4.0
    """Standard deviations to which the residual of a point is clipped. Larger values let outliers
    count more."""
    min_explained: float = 0.5
    """Share of the spread of the points' inverse depth that the maps must explain to be used."""
    gap: float = 3.0
    """Distance from the nearest tracked point beyond which points are added, in spacings of
    tracks. Larger values add fewer points."""
    added_spacing: float = 2.0
    """Distance between added points, in spacings of tracks."""
    agreement: float = 3.0
    """Standard deviations by which an added point may differ from the depth map of a frame in which
    the point counts as visible."""


@dataclass(frozen=True)
class MoverDepthOptions:
    """How depth from outside changes the depth of movers."""

    contact_uncertainty: float = 0.1
    """Relative standard deviation of the depth of the ground that a mover touches. Larger values
    trust depth from outside more."""
    relief: float = 1.5
    """Largest ratio between the depth of a mover's point and the middle depth of the mover, either
    way."""
    smoothing: float = 2.0
    """Standard deviation in frames of the smoothing over time."""


@dataclass(frozen=True)
class ImportOptions:
    """How another program's 3D tracks are used."""

    min_explained: float = 0.6
    """Share of the observations, movers among them, that imported cameras must explain to be
    used."""
    neighbours: int = 4
    """Number of imported points that give the depth of a pixel."""
    reach: float = 0.05
    """Largest distance of such a point from the pixel, as a share of the image's longer side."""
    uncertainty: float = 0.03
    """Relative standard deviation of imported depth, which larger values trust less."""


@dataclass(frozen=True)
class DepthOptions:
    """Depth beside the parallax of the tracks."""

    depth: Annotated[str | None, tyro.conf.arg(help=_DEPTH_HELP)] = None
    """Name of a depth model, see ``models.learned``."""
    depth_checkpoint: str | None = None
    """Weights of the depth model: a folder or a hub name; if not given submodules/<name>, or else
    the usual weights."""
    depth_path: Path | None = None
    """Depth of your own: a folder with a .npy or 16-bit PNG for each frame, depth or inverse depth
    in any unit."""
    allow_download: bool = False
    """Let learned depth and masks fetch their weights from the hub; nothing is downloaded without
    this."""
    alignment: AlignmentOptions = AlignmentOptions()
    """How depth maps are aligned and used."""
    mover_depth: MoverDepthOptions = MoverDepthOptions()
    """How they change the depth of movers."""
    imports: ImportOptions = ImportOptions()
    """How imported tracks are used."""


@dataclass(frozen=True)
class LearnedOptions(DepthOptions):
    """Depth beside the parallax of the tracks, and learned masks."""

    masks: Annotated[str | None, tyro.conf.arg(help=_MASKS_HELP)] = None
    """Name of a mask model, see ``models.learned``."""
    masks_checkpoint: str | None = None
    """Weights of the mask model: a file, a folder or a hub name; if not given submodules/<name>, or
    else the usual weights."""


def check_depth_options(options: DepthOptions) -> None:
    """Refuses options that contradict each other, before any work is spent.

    Raises:
        InputError: a model's name is not known, or options exclude each other.
    """
    if options.depth is not None and options.depth_path is not None:
        raise InputError(
            f"--depth {options.depth} and --depth_path {options.depth_path} exclude each other; give one"
        )
    if options.depth is not None:
        check_depth_model(options.depth)
    elif options.depth_checkpoint is not None:
        raise InputError(
            f"--depth_checkpoint {options.depth_checkpoint} is of no use without --depth; add its name"
        )


def check_learned_options(options: LearnedOptions, mask_path: Path | None) -> None:
    """Refuses options of depth and masks that contradict each other, or the masks that a user gave.

    Raises:
        InputError: a model's name is not known, or options exclude each other.
    """
    check_depth_options(options)
    if options.masks not in (None, AUTO):
        check_mask_model(options.masks)
        if mask_path is not None:
            raise InputError(
                f"--masks {options.masks} and --mask_path {mask_path} exclude each other; give one"
            )
    elif options.masks_checkpoint is not None:
        raise InputError(
            f"--masks_checkpoint {options.masks_checkpoint} is of no use without --masks; add its name"
        )


def list_inputs(options: DepthOptions) -> dict[str, str | Path | None]:
    """The files and folders that the results depend on, by their content; None for options that
    are not given."""
    depth = _find_weights(DEPTH_MODELS, options.depth, options.depth_checkpoint)
    files = {"depth": options.depth_path, "depth weights": depth}
    if isinstance(options, LearnedOptions):
        name = choose_mask_model(options.masks)
        files["mask weights"] = _find_weights(MASK_MODELS, name, options.masks_checkpoint)
    return files


def _find_weights(
    models: Mapping[str, LearnedModel], name: str | None, checkpoint: str | None
) -> str | Path | None:
    """Weights of a model: the given ones, or else those in the model's usual place."""
    return checkpoint or (None if name is None else models[name].weights)
