"""A corpus of hostile and damaged files.

Each case is a function of a folder that holds a good clip (frames, video.mp4, given masks, t.pt,
path.json, model.pt); it damages or adds files there and returns the script to run and its flags.
"""

import io
import json
import os
import pickle
import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch

from models.clip.images import write_images

FRAMES, WIDTH, HEIGHT = 6, 96, 64

Case = Callable[[Path], tuple[str, dict]]


class Bomb:
    """What a pickle that runs code looks like."""

    def __reduce__(self):
        return (Path.touch, (Path("bomb_went_off"),))


class Big:
    """A pickle that asks for memory by a function that is allowed."""

    def __reduce__(self):
        return (bytearray, (8 << 30,))


def demo(path: str = "bad.pt", **flags: object) -> tuple[str, dict]:
    return "demo", {"background_path": path, "num_epochs": 0.1, "output_dir": "out", **flags}


def background(path: str, **flags: object) -> tuple[str, dict]:
    return "background", {"video_path": path, "output_dir": "out", **flags}


def model(path: str = "bad.pt", **flags: object) -> tuple[str, dict]:
    return demo("t.pt", checkpoint=path, camera_path="path.json", **flags)


def views(path: str = "bad.json", **flags: object) -> tuple[str, dict]:
    return demo("t.pt", checkpoint="model.pt", camera_path=path, **flags)


# Track files and models: archives of tensors.


def with_state(
    source: str, change: Callable[[dict], object], then: Callable[[], tuple[str, dict]] = demo
) -> Case:
    """A copy of a .pt file, changed; where ``change`` returns something, that is saved in its
    place."""

    def case(folder: Path) -> tuple[str, dict]:
        state = torch.load(folder / source, weights_only=True)
        changed = change(state)
        torch.save(state if changed is None else changed, folder / "bad.pt")
        return then()

    return case


def with_bytes(
    data: Callable[[bytes], bytes], source: str = "t.pt", then=demo, name: str = "bad.pt"
) -> Case:
    def case(folder: Path) -> tuple[str, dict]:
        (folder / name).write_bytes(data((folder / source).read_bytes()))
        return then()

    return case


def put(key: str, value: object) -> Callable[[dict], None]:
    return lambda state: state.__setitem__(key, value)


def change(key: str, new: Callable[[torch.Tensor], object]) -> Callable[[dict], None]:
    return lambda state: state.__setitem__(key, new(state[key]))


def flipped(data: bytes) -> bytes:
    return bytes(byte ^ (i % 1024 == 512) for i, byte in enumerate(data))


def repacked(compression: int, extra: int = 0) -> Callable[[bytes], bytes]:
    """The archive packed again, with so many more zeros in one of its records."""

    def pack(data: bytes) -> bytes:
        out = io.BytesIO()
        with (
            zipfile.ZipFile(io.BytesIO(data)) as old,
            zipfile.ZipFile(out, "w", compression) as new,
        ):
            for name in old.namelist():
                with new.open(name, "w", force_zip64=True) as record:
                    record.write(old.read(name))
                    for _ in range(extra >> 24 if name.endswith("data/0") else 0):
                        record.write(bytes(1 << 24))
        return out.getvalue()

    return pack


def overlapping(data: bytes) -> bytes:
    """An archive whose directory names one record many times."""
    end = data.rindex(b"PK\5\6")
    count, size, start = struct.unpack("<HII", data[end + 10 : end + 20])
    directory = data[start : start + size] * 50
    tail = (
        data[end : end + 8]
        + struct.pack("<HHII", count * 50, count * 50, len(directory), start)
        + b"\0\0"
    )
    return data[:start] + directory + tail


def nested(state: dict) -> dict:
    deep: list = []
    for _ in range(300):
        deep = [deep]
    return {**state, "extra": deep}


STATES: dict[str, Case] = {
    "code beside tensors": with_state("t.pt", put("extra", Bomb())),
    "code as the file": with_bytes(lambda _: pickle.dumps(Bomb())),
    "code as the file, protocol 0": with_bytes(lambda _: pickle.dumps(Bomb(), 0)),
    "a call that takes 8 GiB": with_state("t.pt", put("extra", Big())),
    "empty": with_bytes(lambda _: b""),
    "noise": with_bytes(lambda _: np.random.default_rng(0).bytes(5000)),
    "cut": with_bytes(lambda data: data[: len(data) // 2]),
    "one bit in each kilobyte turned": with_bytes(flipped),
    "compressed": with_bytes(repacked(zipfile.ZIP_DEFLATED)),
    "a bomb of zeros": with_bytes(repacked(zipfile.ZIP_DEFLATED, 1 << 30)),
    "records that overlap": with_bytes(overlapping),
    "a list": with_state("t.pt", lambda _: [1, 2, 3]),
    "lists in lists": with_state("t.pt", nested),
    "keys that are no names": with_state("t.pt", put(3, 4)),
    "xy claims a tera of values": with_state(
        "t.pt", put("xy", torch.zeros(1).expand(1_000_000, 1_000_000, 2))
    ),
    "xyz claims a giga of points": with_state(
        "t.pt", put("xyz", torch.zeros(1).expand(FRAMES, 1 << 30, 3))
    ),
    "sparse": with_state("t.pt", change("visible", lambda x: x.float().to_sparse())),
    "without values": with_state("t.pt", put("xy", torch.empty(FRAMES, 384, 2, device="meta"))),
    "complex": with_state("t.pt", change("xy", lambda x: x.to(torch.complex64))),
    "a width of 10^9": with_state("t.pt", put("width", 10**9)),
    "a negative height": with_state("t.pt", put("height", -5)),
    "fps of NaN": with_state("t.pt", put("fps", float("nan"))),
    "no frames": with_state("t.pt", change("xy", lambda x: x[:0])),
    "frame numbers of 10^18": with_state("t.pt", change("frame_indices", lambda x: x + 10**18)),
    "points at 1e30": with_state("t.pt", change("xyz", lambda x: x * 1e30)),
    "points at one place": with_state("t.pt", change("xyz", lambda x: x * 0)),
    "points behind the cameras": with_state("t.pt", change("xyz", lambda x: x * -1)),
    "focal lengths of 1e300": with_state(
        "t.pt", change("K", lambda x: x * torch.tensor([[[1e300], [1e300], [1]]]))
    ),
    "names the password file as its clip": with_state("t.pt", put("video_path", "/etc/passwd")),
    "names a device as its clip": with_state("t.pt", put("video_path", "/dev/zero")),
    "names an address as its clip": with_state(
        "t.pt", put("video_path", "http://127.0.0.1:9/x.mp4")
    ),
    "names a protocol of ffmpeg as its clip": with_state(
        "t.pt", put("video_path", "concat:video.mp4|video.mp4")
    ),
    "names a flag as its clip": with_state("t.pt", put("video_path", "-version")),
    "a NUL in the clip's name": with_state("t.pt", put("video_path", "fra\0mes")),
    "a clip's name of 10^5 letters": with_state("t.pt", put("video_path", "x" * 100_000)),
    "a model with code": with_state("model.pt", put("extra", Bomb()), model),
    "a model with a bomb": with_bytes(repacked(zipfile.ZIP_DEFLATED, 1 << 30), "model.pt", model),
    "a model of 10^6 levels": with_state(
        "model.pt",
        lambda s: put("grid.tables", torch.zeros(1).expand(1 << 20, 1 << 20, 2))(
            s["background"]["field"]
        ),
        model,
    ),
    "a model finer than numbers": with_state(
        "model.pt", lambda s: put("finest", 1 << 60)(s["background"]), model
    ),
    "a model of giant images": with_state(
        "model.pt", lambda s: put("width", 10**8)(s["cameras"]), model
    ),
    "a model with meshes of other frames": with_state(
        "model.pt",
        lambda s: put("faces", {99: s["background"]["faces"][0]})(s["background"]),
        model,
    ),
    "a model without meshes": with_state(
        "model.pt", lambda s: put("faces", {})(s["background"]), model
    ),
    "a model whose camera is flat": with_state(
        "model.pt", lambda s: s["cameras"].update(K=s["cameras"]["K"] * 0), model
    ),
    "a model of another type": with_state(
        "model.pt",
        lambda s: put("vertices", s["background"]["vertices"].to(torch.int8))(s["background"]),
        model,
    ),
    "a pipe as model": lambda folder: os.mkfifo(folder / "bad.pt") or model(),
}

# .npz: arrays of other programs.


def arrays(**changes: object) -> dict:
    count = 50
    poses, K = (
        np.tile(np.eye(4), (FRAMES, 1, 1)),
        np.tile(np.array([[80, 0, 48], [0, 80, 32], [0, 0, 1.0]]), (FRAMES, 1, 1)),
    )
    good = {"coords": np.ones((FRAMES, count, 3)), "visibs": np.ones((FRAMES, count), bool)}
    return {**good, "intrinsics": K, "extrinsics": poses, **changes}


def npz(change: dict, **flags: object) -> Case:
    def case(folder: Path) -> tuple[str, dict]:
        np.savez(folder / "bad.npz", **arrays(**change))
        return demo("bad.npz", video_path="frames")

    return case


def raw_npz(content: dict[str, bytes]) -> Case:
    """An archive whose members are given byte by byte."""

    def case(folder: Path) -> tuple[str, dict]:
        np.savez(folder / "some.npz", **arrays())
        with (
            zipfile.ZipFile(folder / "some.npz") as old,
            zipfile.ZipFile(folder / "bad.npz", "w", zipfile.ZIP_DEFLATED) as new,
        ):
            for name in old.namelist():
                if name not in content:
                    new.writestr(name, old.read(name))
            for name, data in content.items():
                new.writestr(name, data)
        return demo("bad.npz", video_path="frames")

    return case


def npy(shape: str, data: bytes = b"") -> bytes:
    header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header + data


ARCHIVES: dict[str, Case] = {
    "arrays of objects": npz({"coords": np.array([[Bomb()]], object)}),
    "an array of objects beside": npz({"confs": np.array([{"a": Bomb()}], object)}),
    "coords of words": npz({"coords": np.array([["a"]])}),
    "a shape of 10^12": raw_npz({"coords.npy": npy("(1000000, 1000000, 3)")}),
    "a shape of 10^9 with nothing behind it": raw_npz({"coords.npy": npy("(1000, 200000, 3)")}),
    "a negative shape": raw_npz({"coords.npy": npy("(-1, 3, 3)", bytes(72))}),
    "a header that is a program": raw_npz(
        {"coords.npy": npy("__import__('os').mkdir('bomb_went_off')")}
    ),
    "a header of 4 GiB": raw_npz({"coords.npy": b"\x93NUMPY\2\0\xff\xff\xff\xff" + bytes(1 << 20)}),
    "zeros packed a thousandfold": raw_npz(
        {"coords.npy": npy("(1000, 16777, 3)", bytes(402_648_000))}
    ),
    "a member named out of the folder": raw_npz({"../../escaped.npy": npy("(1,)", bytes(8))}),
    "an archive of pickles": lambda folder: (
        (folder / "bad.npz").write_bytes(pickle.dumps(Bomb())) and demo("bad.npz")
    ),
    "all NaN": npz({"coords": np.full((FRAMES, 50, 3), np.nan)}),
    "cameras that shrink": npz({"extrinsics": np.zeros((FRAMES, 4, 4))}),
}

# JSON: camera paths.


def path_text(text: str | bytes) -> Case:
    def case(folder: Path) -> tuple[str, dict]:
        (folder / "bad.json").write_bytes(text.encode() if isinstance(text, str) else text)
        return views()

    return case


def path_with(change: Callable[[dict], None]) -> Case:
    def case(folder: Path) -> tuple[str, dict]:
        meta = json.loads((folder / "path.json").read_text())
        change(meta)
        (folder / "bad.json").write_text(json.dumps(meta))
        return views()

    return case


PATHS: dict[str, Case] = {
    "NaN in a pose": path_with(
        lambda m: m["frames"][0]["transform_matrix"][0].__setitem__(3, float("nan"))
    ),
    "infinity as focal length": path_with(put("fl_x", float("inf"))),
    "a focal length of 1e300": path_with(put("fl_x", 1e300)),
    "a time of 1e308": path_with(lambda m: m["frames"][0].__setitem__("time", 1e308)),
    "a million lists in lists": path_text("[" * 1_000_000),
    "a million objects in objects": path_text('{"frames":' * 1_000_000),
    "a number of 10^5 digits": path_text('{"w": ' + "9" * 100_000 + "}"),
    "no UTF-8": path_text(b"\xff\xfe\x00\xd8"),
    "images of 16384 x 16384": path_with(lambda m: m.update(w=16384, h=16384)),
    "a width of words": path_with(put("w", "wide")),
    "frames that are numbers": path_with(put("frames", [1, 2])),
    "a pose of words": path_with(
        lambda m: m["frames"][0].__setitem__("transform_matrix", [["a"] * 4] * 4)
    ),
    "17 MiB of blanks": path_text(" " * (17 << 20)),
    "a folder": lambda folder: (folder / "bad.json").mkdir() or views(),
    "a device": lambda folder: (folder / "bad.json").symlink_to("/dev/zero") or views(),
    "a link to itself": lambda folder: (folder / "bad.json").symlink_to("bad.json") or views(),
    "a camera far away": path_with(
        lambda m: m["frames"][0]["transform_matrix"][0].__setitem__(3, 1e300)
    ),
}

# Images.


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds a line of zeros."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(1000)))
        + chunk(b"IEND", b"")
    )


def jpeg(width: int, height: int) -> bytes:
    data = bytearray(cv2.imencode(".jpg", np.zeros((16, 16, 3), np.uint8))[1].tobytes())
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def frame_of(data: bytes | None = None, name: str = "00002.png", link: str = "") -> Case:
    """The clip with one frame replaced."""

    def case(folder: Path) -> tuple[str, dict]:
        (folder / "frames" / "00002.png").unlink()
        if link:
            (folder / "frames" / name).symlink_to(link)
        else:
            (folder / "frames" / name).write_bytes(data)
        return background("frames")

    return case


def all_frames(image: np.ndarray, count: int = FRAMES) -> Case:
    def case(folder: Path) -> tuple[str, dict]:
        write_images(folder / "tiny", [image] * count, range(count))
        return background("tiny")

    return case


def pipe_frame(folder: Path) -> tuple[str, dict]:
    (folder / "frames" / "00002.png").unlink()
    os.mkfifo(folder / "frames" / "00002.png")
    return background("frames")


IMAGES: dict[str, Case] = {
    "a PNG of 100,000 x 100,000": frame_of(png(100_000, 100_000)),
    "a PNG of 2^31 x 2^31": frame_of(png((1 << 31) - 1, (1 << 31) - 1)),
    "a PNG of 16000 x 16000": frame_of(png(16000, 16000)),
    "a PNG with a chunk of 4 GiB": frame_of(
        png(96, 64).replace(struct.pack(">I", 21) + b"IDAT", b"\xff\xff\xff\xf0IDAT")
    ),
    "a PNG without a pixel": frame_of(png(0, 0)),
    "a JPEG of 65500 x 65500": frame_of(jpeg(65500, 65500), "00002.jpg"),
    "a BMP of 40000 x 40000": frame_of(
        b"BM" + bytes(16) + struct.pack("<ii", 40000, -40000) + bytes(60), "00002.bmp"
    ),
    "a WebP of 16383 x 16383": frame_of(
        b"RIFF\0\0\0\0WEBPVP8X\n\0\0\0\0\0\0\0" + b"\xfe\x3f\0\xfe\x3f\0", "00002.webp"
    ),
    "a TIFF in the name of PNG": frame_of(
        cv2.imencode(".tiff", np.zeros((64, 96, 3), np.uint8))[1].tobytes()
    ),
    "words in the name of PNG": frame_of(b"<script>alert(1)</script>"),
    "a PNG with broken sums": frame_of(png(96, 64).replace(b"IDAT", b"IDAX")),
    "a frame that is a device": frame_of(link="/dev/zero"),
    "a frame that is a pipe": pipe_frame,
    "a frame that is a link to itself": frame_of(link="00002.png"),
    "frames of one pixel": all_frames(np.zeros((1, 1, 3), np.uint8)),
    "frames of 1 x 3000 pixels": all_frames(
        np.random.default_rng(0).integers(0, 255, (3000, 1, 3), np.uint8)
    ),
}

# Names, links and folders.


def renamed_frames(name: str) -> Case:
    """Frames, masks and the folder with odd names: the run must work, and write only where it
    should."""

    def case(folder: Path) -> tuple[str, dict]:
        odd = folder / f"clip {name}"
        for kind in ("frames", "given"):
            (odd / kind).mkdir(parents=True)
            for t in range(FRAMES):
                shutil.copy(folder / kind / f"{t:05d}.png", odd / kind / f"{name} {t}.png")
        return background(str(odd / "frames"), mask_path=odd / "given", spacing=6)

    return case


def linked(name: str) -> Case:
    """An output folder in which a link leads out."""

    def case(folder: Path) -> tuple[str, dict]:
        (folder / "out").mkdir()
        (folder / "elsewhere").mkdir()
        (folder / "elsewhere" / "kept").write_text("mine")
        target = "../elsewhere/kept" if "." in name else "../elsewhere"
        (folder / "out" / name).symlink_to(target)
        return background("frames", mask_path="given", spacing=6)

    return case


NAMES: dict[str, Case] = {
    f"frames named {name!r}": renamed_frames(name)
    for name in (
        "<script>alert(1)</script>".replace("/", "_"),
        "a\nb",
        '"; rm -rf . #',
        "$(touch bomb)",
        "%05d",
        "\u202etxt",
        "-i",
    )
}
NAMES |= {
    f"out/{name} is a link": linked(name)
    for name in (
        "masks",
        "stages",
        "background_points.pt.part",
        "background_points.pt",
        "stages.json",
        "background_tracks.mp4.part",
    )
}
NAMES["a name that is no UTF-8"] = lambda folder: (
    (folder / "frames").rename(os.fsdecode(os.fsencode(folder) + b"/fr\xff\xfe"))
    and background(os.fsdecode(b"fr\xff\xfe"))
)
NAMES["masks that link to themselves"] = lambda folder: (
    (folder / "loop").symlink_to("loop") or background("frames", mask_path="loop")
)
NAMES["masks of another kind"] = lambda folder: background("frames", mask_path="t.pt")

# Depth maps, tracks to import, known cameras, texts of camera paths, folders to export to.


def depth_map(data: bytes = b"", name: str = "2.npy", link: str | None = None) -> Case:
    """Good depth maps but for the third."""

    def case(folder: Path) -> tuple[str, dict]:
        (folder / "maps").mkdir()
        for t in range(FRAMES):
            np.save(folder / "maps" / f"{t}.npy", np.ones((HEIGHT, WIDTH), np.float32))
        (folder / "maps" / "2.npy").unlink()
        if link is None:
            (folder / "maps" / name).write_bytes(data)
        else:
            (folder / "maps" / name).symlink_to(link)
        return background("frames", mask_path="given", spacing=6, depth_path="maps")

    return case


def imported(change: dict) -> Case:
    def case(folder: Path) -> tuple[str, dict]:
        np.savez(folder / "bad.npz", **arrays(**change))
        return background("frames", mask_path="given", spacing=6, import_path="bad.npz")

    return case


def cameras_with(change: Callable[[dict], None]) -> Case:
    case = path_with(change)
    return lambda folder: (
        case(folder) and background("frames", mask_path="given", spacing=6, cameras_path="bad.json")
    )


def trajectory(text: str) -> Case:
    return lambda folder: demo("t.pt", checkpoint="model.pt", trajectory=text)


def pickled(value: object) -> bytes:
    stream = io.BytesIO()
    np.save(stream, value, allow_pickle=True)
    return stream.getvalue()


def linked_export(folder: Path) -> tuple[str, dict]:
    (folder / "out").mkdir()
    (folder / "elsewhere").mkdir()
    (folder / "out" / "colmap").symlink_to("../elsewhere")
    return demo("t.pt", checkpoint="model.pt", export="colmap")


OTHERS: dict[str, Case] = {
    "a depth map of 10^12 numbers": depth_map(npy("(1000000, 1000000)")),
    "a depth map of 10^9 numbers": depth_map(npy("(33000, 33000)")),
    "a depth map of objects": depth_map(pickled(np.array([[Bomb()]], object))),
    "a depth map of words": depth_map(pickled(np.array([["near", "far"]]))),
    "a depth map of infinities": depth_map(pickled(np.full((HEIGHT, WIDTH), np.inf, np.float32))),
    "a depth map of 100,000 x 100,000": depth_map(png(100_000, 100_000), "2.png"),
    "a depth map that is a device": depth_map(link="/dev/zero"),
    "a depth image that is a device": depth_map(link="/dev/zero", name="2.png"),
    "imported tracks of objects": imported({"coords": np.array([[Bomb()]], object)}),
    "imported tracks of NaN": imported({"coords": np.full((FRAMES, 50, 3), np.nan)}),
    "a lens of words": cameras_with(put("k1", "strong")),
    "a lens of 1e300": cameras_with(put("k1", 1e300)),
    "a lens of a list": cameras_with(put("camera_model", ["OPENCV"])),
    "frames of a size of lists": cameras_with(lambda m: m["frames"][1].update(w=[1])),
    "a path of 10^9 frames": trajectory("spiral frames=1000000000"),
    "a path that holds for 1e300": trajectory("spiral; freeze 1e300"),
    "a path of another folder": trajectory("../../escaped"),
    "a path at NaN": trajectory("bullet_time nan"),
    "out/colmap is a link": linked_export,
}

KINDS = {
    "pt": STATES,
    "npz": ARCHIVES,
    "json": PATHS,
    "image": IMAGES,
    "name": NAMES,
    "other": OTHERS,
}
CORPUS = {f"{kind}: {name}": case for kind, cases in KINDS.items() for name, case in cases.items()}
