"""scene.usdz for Quick Look, Vision Pro and other readers of USD: the static mesh, movers frame by
frame, and the clip's camera.

Source: the USD specification of UsdPreviewSurface, and Apple's "Validating feature support for USD
files": one package of a binary layer and its textures.
"""

import importlib.util
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from models.cameras import Cameras
from models.export.gltf import bytes_from_colors, compute_camera_motion, encode_image
from models.export.mesh_files import find_span
from models.export.options import ExportOptions
from models.export.world.atlas import Atlas
from models.export.world.mover_atlas import MoverMeshes
from models.export.world.texture import TexturedMesh
from models.run import InputError, make_write_error, replace_file

# Size of a mover's mesh at times at which it does not show: readers refuse a size of 0.
_HIDDEN = 1e-5
# Frames before a step of a size at which the old size still holds: readers interpolate linearly.
_STEP = 1e-3
# Width of the film of the camera in millimetres: any value, as the focal length is scaled to it.
_FILM = 36.0


def check_usd() -> None:
    """Refuses the format where the library is missing.

    Raises:
        InputError: usd-core is not installed.
    """
    if importlib.util.find_spec("pxr") is None:
        raise InputError("--export usdz needs USD; pip install -r requirements-export.txt")


def write_usdz(
    path: Path,
    world: TexturedMesh,
    movers: MoverMeshes | None,
    cameras: Cameras,
    fps: float,
    options: ExportOptions = ExportOptions(),
) -> None:
    """Writes the package; the animation plays the clip at its own speed.

    Raises:
        InputError: usd-core is not installed, or the file cannot be written.
    """
    check_usd()
    from pxr import Sdf, UsdUtils

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        layer = folder / "scene.usdc"
        stage = _open_stage(layer, len(cameras), fps)
        image = encode_image(bytes_from_colors(world.texture), options.jpeg_quality)
        (folder / "world.jpg").write_bytes(image)
        material = _add_material(stage, "world", "world.jpg", has_alpha=False)
        _add_mesh(stage, "/scene/background", world.atlas, material)
        if movers is not None:
            (folder / "movers.png").write_bytes(_encode_movers(movers, options))
            material = _add_material(stage, "movers", "movers.png", has_alpha=True)
            _add_movers(stage, movers, material, len(cameras))
        _add_camera(stage, cameras)
        stage.GetRootLayer().Save()
        package = folder / "scene.usdz"
        if not UsdUtils.CreateNewUsdzPackage(Sdf.AssetPath(str(layer)), str(package)):
            raise make_write_error(path, "USD cannot make the package")
        with replace_file(path) as temporary:
            temporary.write_bytes(package.read_bytes())


def _encode_movers(movers: MoverMeshes, options: ExportOptions) -> bytes:
    rgba: UInt8[np.ndarray, "h w 4"] = bytes_from_colors(movers.texture)
    return encode_image(rgba, options.jpeg_quality)


def _open_stage(path: Path, num_frames: int, fps: float) -> Any:
    """A stage with y up whose root turns the scene's own world to it."""
    from pxr import Gf, Usd, UsdGeom

    stage = Usd.Stage.CreateNew(str(path))
    UsdGeom.SetStageUpAxis(stage, UsdGeom.Tokens.y)
    UsdGeom.SetStageMetersPerUnit(stage, 1.0)
    stage.SetTimeCodesPerSecond(fps)
    stage.SetFramesPerSecond(fps)
    stage.SetStartTimeCode(0)
    stage.SetEndTimeCode(num_frames - 1)
    root = UsdGeom.Xform.Define(stage, "/scene")
    stage.SetDefaultPrim(root.GetPrim())
    # half a turn about x
    root.AddOrientOp().Set(Gf.Quatf(0.0, 1.0, 0.0, 0.0))
    return stage


def _add_material(stage: Any, name: str, file: str, has_alpha: bool) -> Any:
    """A surface that shows its texture without light, cut out by its alpha."""
    from pxr import Sdf, UsdShade

    place = f"/scene/materials/{name}"
    material = UsdShade.Material.Define(stage, place)
    surface = UsdShade.Shader.Define(stage, f"{place}/surface")
    surface.CreateIdAttr("UsdPreviewSurface")
    reader = UsdShade.Shader.Define(stage, f"{place}/coordinates")
    reader.CreateIdAttr("UsdPrimvarReader_float2")
    reader.CreateInput("varname", Sdf.ValueTypeNames.String).Set("st")
    texture = UsdShade.Shader.Define(stage, f"{place}/texture")
    texture.CreateIdAttr("UsdUVTexture")
    texture.CreateInput("file", Sdf.ValueTypeNames.Asset).Set(file)
    texture.CreateInput("sourceColorSpace", Sdf.ValueTypeNames.Token).Set("sRGB")
    for axis in ("wrapS", "wrapT"):
        texture.CreateInput(axis, Sdf.ValueTypeNames.Token).Set("clamp")
    source = reader.CreateOutput("result", Sdf.ValueTypeNames.Float2)
    texture.CreateInput("st", Sdf.ValueTypeNames.Float2).ConnectToSource(source)
    rgb = texture.CreateOutput("rgb", Sdf.ValueTypeNames.Float3)
    # colours hold the light of the video already
    surface.CreateInput("diffuseColor", Sdf.ValueTypeNames.Color3f).Set((0.0, 0.0, 0.0))
    surface.CreateInput("roughness", Sdf.ValueTypeNames.Float).Set(1.0)
    surface.CreateInput("specularColor", Sdf.ValueTypeNames.Color3f).Set((0.0, 0.0, 0.0))
    surface.CreateInput("useSpecularWorkflow", Sdf.ValueTypeNames.Int).Set(1)
    surface.CreateInput("emissiveColor", Sdf.ValueTypeNames.Color3f).ConnectToSource(rgb)
    if has_alpha:
        alpha = texture.CreateOutput("a", Sdf.ValueTypeNames.Float)
        surface.CreateInput("opacity", Sdf.ValueTypeNames.Float).ConnectToSource(alpha)
        surface.CreateInput("opacityThreshold", Sdf.ValueTypeNames.Float).Set(0.5)
    out = surface.CreateOutput("surface", Sdf.ValueTypeNames.Token)
    material.CreateSurfaceOutput().ConnectToSource(out)
    return material


def _add_mesh(stage: Any, place: str, atlas: Atlas, material: Any) -> Any:
    """A triangle mesh with texture coordinates."""
    from pxr import Sdf, UsdGeom, UsdShade, Vt

    mesh = UsdGeom.Mesh.Define(stage, place)
    points = Vt.Vec3fArray.FromNumpy(np.ascontiguousarray(atlas.vertices, np.float32))
    mesh.CreatePointsAttr(points)
    mesh.CreateFaceVertexCountsAttr(Vt.IntArray.FromNumpy(np.full(len(atlas.faces), 3, np.int32)))
    indices = np.ascontiguousarray(atlas.faces.ravel(), np.int32)
    mesh.CreateFaceVertexIndicesAttr(Vt.IntArray.FromNumpy(indices))
    mesh.CreateSubdivisionSchemeAttr(UsdGeom.Tokens.none)
    mesh.CreateDoubleSidedAttr(True)
    mesh.CreateExtentAttr(UsdGeom.PointBased.ComputeExtent(points))
    # v of USD grows upwards
    uv = atlas.uv / np.array([atlas.width, atlas.height]) * [1, -1] + [0, 1]
    st = UsdGeom.PrimvarsAPI(mesh).CreatePrimvar(
        "st", Sdf.ValueTypeNames.TexCoord2fArray, UsdGeom.Tokens.vertex
    )
    st.Set(Vt.Vec2fArray.FromNumpy(np.ascontiguousarray(uv, np.float32)))
    UsdShade.MaterialBindingAPI.Apply(mesh.GetPrim()).Bind(material)
    return mesh


def _add_movers(stage: Any, movers: MoverMeshes, material: Any, num_frames: int) -> None:
    """The mesh of each frame's movers, of full size at its time only."""
    for i, (t, atlas) in enumerate(zip(movers.times, movers.meshes, strict=True)):
        mesh = _add_mesh(stage, f"/scene/mover_{t:05d}", atlas, material)
        size = mesh.AddScaleOp()
        start, stop = find_span(movers.times, i)
        steps = [(start - _STEP, _HIDDEN), (start, 1.0)]
        if stop < num_frames:
            steps += [(stop - _STEP, 1.0), (stop, _HIDDEN)]
        for time, value in steps:
            size.Set((value, value, value), time)
        size.Set((1.0, 1.0, 1.0) if i == 0 else (_HIDDEN,) * 3)


def _add_camera(stage: Any, cameras: Cameras) -> None:
    """The clip's camera; the principal point is an offset of the film."""
    from pxr import Gf, UsdGeom

    camera = UsdGeom.Camera.Define(stage, "/scene/camera")
    scale = _FILM / cameras.width
    shift, turn = compute_camera_motion(cameras)
    place = camera.AddTranslateOp(UsdGeom.XformOp.PrecisionDouble)
    orient = camera.AddOrientOp()
    focal = camera.CreateFocalLengthAttr()
    across = camera.CreateHorizontalApertureOffsetAttr()
    along = camera.CreateVerticalApertureOffsetAttr()
    camera.CreateHorizontalApertureAttr(_FILM)
    camera.CreateVerticalApertureAttr(cameras.height * scale)
    camera.CreateClippingRangeAttr(Gf.Vec2f(1e-3, 1e6))
    for t in range(len(cameras)):
        place.Set(Gf.Vec3d(*shift[t].tolist()), t)
        x, y, z, w = turn[t].tolist()
        orient.Set(Gf.Quatf(w, x, y, z), t)
        focal.Set(float(cameras.K[t, 0, 0]) * scale, t)
        aside, down = cameras.K[t, :2, 2].tolist()
        across.Set((cameras.width / 2 - aside) * scale, t)
        along.Set((down - cameras.height / 2) * scale, t)
