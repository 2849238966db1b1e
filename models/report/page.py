"""index.html of a results folder: a page that opens from disk, without server and network.

The page names the folder's videos by relative links and carries all else itself. Templates escape
every text, since names of clips and folders are the user's.
"""

import base64
import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from models.report import tables
from models.report.world import World, pack_world
from models.run import find_shown, write_bytes

# Packages of templates take 0.1 s to import, and only pages need them.
if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

_ASSETS = Path(__file__).parent / "assets"
_TEMPLATES = Path(__file__).parent / "templates"
# Bytes of the largest exported surface that the page carries; browsers open larger pages slowly.
_MAX_GLB = 20 * 2**20
# dB; equal images have an infinite PSNR, which JSON cannot hold.
_MAX_PSNR = 99.0


@dataclass(frozen=True)
class Report:
    """The content of a page, beside the files of its folder."""

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
    charts: Mapping[str, str]
    """SVG elements under their titles; see ``write_charts``."""
    foreground: Mapping = field(default_factory=dict)
    """Content of foreground_metrics.json; may be empty."""


@dataclass(frozen=True)
class ShownVideo:
    """A video with its heading and sentence."""

    name: str
    title: str
    text: str


def write_report(out: Path, report: Report) -> Path:
    """Writes ``out``/index.html under a temporary name, then renames; returns its path.

    Raises:
        InputError: the file cannot be written.
    """
    path = out / "index.html"
    page = make_environment().get_template("page.html")
    # lone surrogates of file names become question marks
    text = page.render(**_describe_clip(report), **_list_sections(out, report), **_load_assets(out))
    write_bytes(path, text.encode(errors="replace"))
    return path


@functools.cache
def make_environment(templates: Path = _TEMPLATES) -> "Environment":
    """Templates of a folder; they escape every text and refuse names without a value."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(templates),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # compact, and strict: browsers refuse NaN in JSON
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
    return environment


def _describe_clip(report: Report) -> dict:
    """Variables of the page's head and of its script."""
    cameras = report.world.cameras
    return {
        "title": report.title,
        "subtitle": _write_subtitle(report),
        # videos are padded to even sizes
        "even_width": cameras.width + cameras.width % 2,
        "even_height": cameras.height + cameras.height % 2,
        "last_frame": len(cameras) - 1,
        "has_movers": len(report.world.mover_labels) > 0,
        "data": {
            "fps": report.world.fps,
            "psnr": [min(frame["psnr"], _MAX_PSNR) for frame in report.metrics.get("frames", [])],
            "held_out": list(report.held_out),
            "world": pack_world(report.world, report.depth),
        },
    }


def _write_subtitle(report: Report) -> str:
    cameras = report.world.cameras
    movers = len(report.world.mover_paths)
    layers = "a static background" + (f" and {movers} mover{'s' * (movers > 1)}" if movers else "")
    size = f"{len(cameras)} frames, {cameras.width} x {cameras.height}"
    held_out = f"{len(report.held_out) or 'No'} frames were held out of training."
    return f"{size}, {report.world.fps:.4g} per second; {layers}. {held_out}"


def _list_sections(out: Path, report: Report) -> dict:
    """Variables of the sections below the canvas."""
    from markupsafe import Markup

    compared = ("input.mp4", "reconstruction.mp4")
    return {
        "is_rebuilt": all((out / name).is_file() for name in compared),
        "videos": _list_videos(out),
        "charts": {title: Markup(svg) for title, svg in report.charts.items()},
        "tiles": tables.make_tiles(report.metrics, report.background),
        "quality": tables.tabulate_quality(report.metrics),
        "seconds": tables.tabulate_seconds(report.metrics, report.background),
        "totals": tables.tabulate_totals(report.metrics, report.background),
        "movers": tables.tabulate_movers(report.foreground),
        "settings": tables.tabulate_settings(report.config),
        "files": tables.list_files(out),
    }


def _list_videos(out: Path) -> list[ShownVideo]:
    videos = []
    for path, output in find_shown(out, "videos").items():
        # the variant stands behind the title: novel_view_spiral.mp4 is "New viewpoints: spiral"
        prefix, star, _ = output.name.partition("*")
        variant = path.name.removeprefix(prefix).removesuffix(".mp4").strip("_") if star else ""
        title = f"{output.title}: {variant.replace('_', ' ')}" if variant else output.title
        videos.append(ShownVideo(path.name, title, output.text))
    return videos


def _load_assets(out: Path) -> dict[str, str]:
    """Style, scripts and the exported surface, as the page carries them."""
    from markupsafe import Markup

    three = extract_three_js()
    # empty without an exported surface
    surface = _find_surface(out)
    glb = "" if surface is None else base64.b64encode(surface.read_bytes()).decode()
    return {
        "css": read_style(),
        "script": Markup(_read_asset("report.js") + _read_asset("scene3d.js")),
        "three": Markup(three),
        "three_revision": re.search(r'const e="(\d+)"', three)[1],
        "glb": glb,
    }


def read_style() -> "Markup":
    """The style sheet of the pages."""
    from markupsafe import Markup

    return Markup(_read_asset("report.css"))


@functools.cache
def _read_asset(name: str) -> str:
    return (_ASSETS / name).read_text(encoding="utf-8")


def _find_surface(out: Path) -> Path | None:
    """The exported surface for the canvas; without movers if the file with movers is too large."""
    paths = (out / "scene_animated.glb", out / "scene.glb")
    small = (path for path in paths if path.is_file() and path.stat().st_size <= _MAX_GLB)
    return next(small, None)


@functools.cache
def extract_three_js() -> str:
    """three.js with its GLTFLoader and licence, out of the archive of trimesh's own viewer.

    trimesh is a pinned package, so that no JavaScript is stored in this repository and none is
    loaded from the network.
    """
    from trimesh import resources, util  # 0.25 s to import, and only pages need the archive

    archive = util.decompress(resources.get_bytes("templates/viewer.zip"), file_type="zip")
    page = archive["viewer.html.template"].read().decode("utf-8")
    # the script of trimesh's viewer follows the loader
    end = "THREE.GLTFLoader=GLTFLoader;})();"
    return page[page.index("<script>") + len("<script>") : page.index(end) + len(end)]
