"""index.html of a results folder: one page that opens from disk, with no server and no network.

The page names the folder's videos by relative links and carries all else itself. What it shows is
escaped: names of clips and folders are the user's.
"""

import base64
import functools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template
from urllib.parse import quote

from matplotlib.figure import Figure
from trimesh import resources, util

from models.report.charts import svg
from models.report.tables import files_table, metrics_table, seconds_table, settings_table, tiles
from models.report.world import World, world_json
from models.run import find_shown, write_bytes

ASSETS = Path(__file__).parent / "assets"
MAX_GLB = 20 * 2**20
"""Bytes of the largest exported surface that the page carries; a larger one is only linked."""


@dataclass(frozen=True)
class Report:
    """What a page tells beside the files of its folder."""

    title: str
    """Name of the clip."""
    world: World
    """Cameras and points for the 3D canvas."""
    depth: float
    """Typical z-depth of the scene, world units."""
    metrics: Mapping
    """Content of metrics.json."""
    config: Mapping
    """Content of config.json."""
    background: Mapping
    """Content of background_metrics.json; may be empty."""
    held_out: Sequence[int]
    """Frames kept out of training."""
    figures: Mapping[str, Figure]
    """Charts under their titles."""


def write_report(out: Path, report: Report) -> Path:
    """Writes ``out``/index.html under a temporary name, then renames; returns its path.

    Raises:
        InputError: the file cannot be written.
    """
    path = out / "index.html"
    three = three_js()
    world = report.world
    cameras = report.world.cameras
    glb = _surface(out)
    data = {
        "fps": world.fps,
        "psnr": [min(frame["psnr"], 99.0) for frame in report.metrics.get("frames", [])],
        "held_out": list(report.held_out),
        "world": world_json(world, report.depth),
    }
    aspect = f"{cameras.width + cameras.width % 2} / {cameras.height + cameras.height % 2}"
    page = Template(_asset("template.html")).substitute(
        title=escape(report.title),
        subtitle=escape(_subtitle(report)),
        css=f":root {{ --aspect: {aspect}; }}\n" + _asset("report.css"),
        tiles=tiles(report.metrics, report.background),
        compare=_compare(out, len(cameras)),
        world=_world(report, glb is not None),
        videos=_videos(out),
        charts=_charts(report.figures),
        numbers=_numbers(report, out),
        data=_as_script(data),
        glb="" if glb is None else base64.b64encode(glb.read_bytes()).decode(),
        three=three,
        three_revision=re.search(r'const e="(\d+)"', three)[1],
        script=_asset("report.js") + _asset("scene3d.js"),
    )
    write_bytes(path, page.encode(errors="replace"))
    return path


@functools.cache
def _asset(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")


@functools.cache
def three_js() -> str:
    """three.js with its GLTFLoader and licence, as the trimesh package carries them for its own
    viewer."""
    archive = util.decompress(resources.get_bytes("templates/viewer.zip"), file_type="zip")
    page = archive["viewer.html.template"].read().decode("utf-8")
    end = "THREE.GLTFLoader=GLTFLoader;})();"  # what follows is that viewer
    return page[page.index("<script>") + len("<script>") : page.index(end) + len(end)]


def _as_script(data: object) -> str:
    """JSON that no string in it can end: HTML knows no escapes inside a script."""
    return json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def _subtitle(report: Report) -> str:
    cameras = report.world.cameras
    movers = len(report.world.mover_paths)
    layers = "a static background" + (f" and {movers} mover{'s' * (movers > 1)}" if movers else "")
    return (
        f"{len(cameras)} frames, {cameras.width} x {cameras.height}, {report.world.fps:.4g} per second; "
        f"{layers}. {len(report.held_out) or 'No'} frames were held out of training."
    )


def _compare(out: Path, num_frames: int) -> str:
    if not all((out / name).is_file() for name in ("input.mp4", "reconstruction.mp4")):
        return ""
    return f"""<h2>Input and reconstruction</h2>
<p class="lead">Drag the divider. The bars are the PSNR of each frame, the lowest the worst; held-out frames are orange.
</p>
<section class="card" id="compare">
<div class="well"><div class="stage">
<video src="input.mp4" muted playsinline preload="auto"></video>
<video src="reconstruction.mp4" muted playsinline preload="auto"></video>
<span class="tag left">input</span><span class="tag right">rebuilt</span>
<div class="divider" role="slider" tabindex="0" aria-label="Divider between input and reconstruction"
 aria-valuemin="0" aria-valuemax="100" aria-valuenow="50"></div>
</div></div>
<div class="bar"><button class="play" aria-label="Play"></button>
<input type="range" min="0" max="{num_frames - 1}" value="0" aria-label="Frame"><output></output></div>
<div class="strip"></div>
</section>"""


def _surface(out: Path) -> Path | None:
    """The exported surface that the canvas shows: with its movers where that file is small
    enough."""
    paths = (out / "scene_animated.glb", out / "scene.glb")
    return next((path for path in paths if path.is_file() and path.stat().st_size <= MAX_GLB), None)


def _world(report: Report, carried: bool) -> str:
    chips = [("surface", "Surface", True)] if carried else []
    chips += [("points", "Points", not carried), ("cameras", "Cameras", True)]
    chips += [("movers", "Tracks of movers", not carried)] if len(report.world.mover_labels) else []
    boxes = "".join(
        f'<label class="chip"><input type="checkbox" name="{name}"{" checked" * on}>{label}</label>'
        for name, label, on in chips
    )
    last = len(report.world.cameras) - 1
    return f"""<h2>The scene in 3D</h2>
<p class="lead">{"The exported surface, the" if carried else "The"} points that carry the scene, and the cameras that
filmed it.</p>
<section class="card space" id="world">
<div class="well" style="position:relative"><canvas tabindex="0" aria-label="3D view of the scene"></canvas>
<p class="hint">drag to turn, wheel or pinch to zoom<span>, right drag to shift</span></p></div>
<div class="chips">{boxes}<label class="chip"><input type="checkbox" name="through">Through the camera</label>
<button name="reset">Reset view</button></div>
<div class="bar"><button class="play" aria-label="Play"></button>
<input type="range" min="0" max="{last}" value="0" aria-label="Time"><output></output></div>
</section>"""


def _videos(out: Path) -> str:
    cards = []
    for path, output in find_shown(out, "videos").items():
        kind = path.stem.removeprefix("novel_view").strip("_").replace("_", " ")
        name = f"{output.title}: {kind}" if path.match("novel_view?*.mp4") else output.title
        cards.append(
            f'<figure class="card"><video src="{quote(path.name)}#t=0.001" muted loop playsinline controls '
            f'preload="metadata"></video><figcaption><h3>{escape(name)}</h3>'
            f"<p>{escape(output.text)}</p></figcaption></figure>"
        )
    return f'<h2>Videos</h2>\n<div class="grid">{"".join(cards)}</div>' if cards else ""


def _charts(figures: Mapping[str, Figure]) -> str:
    cards = [
        f'<figure class="card"><figcaption><h3>{escape(title)}</h3></figcaption>{svg(figure)}</figure>'
        for title, figure in figures.items()
    ]
    return f'<h2>Charts</h2>\n<div class="grid charts">{"".join(cards)}</div>' if cards else ""


def _numbers(report: Report, out: Path) -> str:
    cards = [
        ("Quality", metrics_table(report.metrics)),
        ("Seconds per stage", seconds_table(report.metrics, report.background)),
        ("Settings", settings_table(report.config)),
        ("Files", files_table(out)),
    ]
    return (
        '<h2>Numbers</h2>\n<div class="pair">'
        + "".join(
            f'<section class="card"><div class="pad"><h3>{title}</h3></div><div class="scroll">{table}</div></section>'
            for title, table in cards
            if table
        )
        + "</div>"
    )
