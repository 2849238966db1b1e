"""The table of benchmarks/quality.py, and the same of the differences from an older one.

A row is a dict: ``scene``, ``system``, ``views``, ``region`` name what is scored, the rest are
figures. Those of a whole run stand in the first row of its scene only.
"""

from collections.abc import Iterable

NAMES = ("scene", "system", "views", "region")
COLUMNS = (
    ("frames", "frames", 1, 0),
    ("psnr", "PSNR", 1, 2),
    ("ssim", "SSIM", 1, 3),
    ("flip", "FLIP", 1, 3),
    ("coverage", "cover %", 100, 1),
    ("spiral_coverage", "spiral %", 100, 1),
    ("flicker", "flicker", 1, 2),
    ("flicker_field", "by field", 1, 2),
    ("mover_shown", "shown %", 100, 1),
    ("camera_position_share", "path %", 100, 3),
    ("camera_rotation_degrees", "degrees", 1, 3),
    ("track_depth_error", "points %", 100, 2),
    ("rendered_depth_error", "depth %", 100, 2),
    ("seconds", "s", 1, 0),
    ("seconds_background", "tracks", 1, 0),
    ("seconds_foreground", "movers", 1, 0),
    ("seconds_demo", "render", 1, 0),
    ("peak_memory_gib", "GiB", 1, 2),
)
"""Figure, head, factor, decimals."""
LEGEND = (
    "cover: least share of a true novel view that is not filled in; spiral: the same of the novel view video.\n"
    "shown: share of movers that no background hides, 5 % of the depth beside the camera path.\n"
    "flicker: change of a surface from view to view of the spiral, levels of 255; by field: without detail.\n"
    "path, degrees: error of the cameras' places, as a share of the path's length, and of their directions.\n"
    "points, depth: median relative error of depth, of tracks and as rendered.\n"
    "s: seconds of all scripts; tracks, movers, render: of background_points, foreground_points, demo_pipeline."
)


def table(rows: Iterable[dict], signed: bool = False) -> str:
    """Lines with a head; only columns that some row has. ``signed`` writes a plus before what is
    positive."""
    rows = list(rows)
    names = [name for name in NAMES if name != "system" or len({row["system"] for row in rows}) > 1]
    columns = [column for column in COLUMNS if any(row.get(column[0]) is not None for row in rows)]
    cells = [[*names, *(head for _, head, _, _ in columns)]]
    for row in rows:
        figures = [
            _cell(row.get(key), factor, digits, signed) for key, _, factor, digits in columns
        ]
        cells.append([*(row.get(name) or "" for name in names), *figures])
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [_line(line, widths, len(names)) for line in cells]
    return "\n".join(
        [*lines, *(f"{row['scene']}: {row['error']}" for row in rows if row.get("error"))]
    )


def _cell(value: float | None, factor: float, digits: int, signed: bool) -> str:
    return "" if value is None else f"{factor * value:{'+' if signed else ''}.{digits}f}"


def _line(cells: list[str], widths: list[int], num_names: int) -> str:
    padded = [
        c.ljust(w) if i < num_names else c.rjust(w)
        for i, (c, w) in enumerate(zip(cells, widths, strict=True))
    ]
    return "  ".join(padded).rstrip()


def differences(new: Iterable[dict], old: Iterable[dict]) -> list[dict]:
    """New less old, of each figure that both have; rows and figures that only one has are left
    out."""
    before = {_key(row): row for row in old}
    rows = []
    for row in new:
        if (other := before.get(_key(row))) is not None:
            both = [
                key
                for key, *_ in COLUMNS
                if row.get(key) is not None and other.get(key) is not None
            ]
            rows.append(
                {
                    **{name: row.get(name) for name in NAMES},
                    **{key: row[key] - other[key] for key in both},
                }
            )
    return rows


def unpaired(rows: Iterable[dict], others: Iterable[dict]) -> list[str]:
    """Scene, system and views of the rows that the others lack, each once."""
    there = {_key(row) for row in others}
    return list(
        dict.fromkeys(
            " ".join(filter(None, _key(row)[:3])) for row in rows if _key(row) not in there
        )
    )


def _key(row: dict) -> tuple:
    return tuple(row.get(name) for name in NAMES)
