"""Speed of the renderer on this machine: colour field, rasteriser, whole frames and training,
beside plain torch.

    python benchmarks/renderer.py [--json FILE] [--repeats 7] [--samples 32768] [--gpu_samples
    1048576]

Fast path and reference take turns within one run, so that both meet the same load; figures are
medians, and a ratio is the median of the ratios of neighbouring runs. The reference is the same
network in plain torch indexing, nn.Linear, autograd and torch.optim.Adam, with torch's default
threads. Where there is a GPU its rows follow (keys "cuda_...").
"""

import json
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

# Before torch loads: its OpenMP threads would else spin for a while after each operation, beside the kernels' own.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
import numpy as np
import torch
import tyro

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.clip import Clip, make_clip
from models.cameras import Cameras
from models.field import ColorField, FieldOptimizer
from models.render import render_view
from models.surface import Fragments, rasterize
from models.tools import TrainingFrames, sample_points
from models.training import LayerTraining, Schedule, train

FLOPS_FORWARD = 2 * (24 * 64 + 64 * 64 + 64 * 3)
FLOPS_TRAIN = 3 * FLOPS_FORWARD
WIDTH, HEIGHT = 640, 360


@dataclass(frozen=True)
class Settings:
    json: Path | None = None
    """Where to write the figures."""
    repeats: int = 7
    """Turns of each measurement."""
    samples: int = 1 << 15
    """Samples of a training step and of an inference call."""
    gpu_samples: int = 1 << 20
    """The same on a GPU, where there is one."""


def seconds(call: Callable[[], object], device: str, at_least: float = 0.03) -> float:
    """Seconds of one call, as the mean of as many as fill ``at_least`` seconds."""
    calls, begin = 0, time.perf_counter()
    while True:
        call()
        calls += 1
        if device != "cpu":
            torch.cuda.synchronize()
        if (elapsed := time.perf_counter() - begin) > at_least:
            return elapsed / calls


def turns(fast: Callable, plain: Callable, repeats: int, device: str) -> tuple[float, float, float]:
    """Median seconds of both, and the median ratio plain / fast of neighbouring runs."""
    fast(), plain()
    pairs = [(seconds(fast, device), seconds(plain, device)) for _ in range(repeats)]
    ratio = statistics.median(slow / quick for quick, slow in pairs)
    return statistics.median(p[0] for p in pairs), statistics.median(p[1] for p in pairs), ratio


def make_step(field: ColorField, points: torch.Tensor, target: torch.Tensor) -> Callable[[], None]:
    """A whole training step of the fast path, as models/training/loop.py makes it."""
    optimizer, device = FieldOptimizer(field), points.device.type

    def step() -> None:
        with torch.autocast(device, torch.float16, enabled=device == "cuda"):
            field.loss_and_grad(points, target)
        optimizer.step()

    return step


def make_plain_step(
    field: ColorField, points: torch.Tensor, target: torch.Tensor
) -> Callable[[], None]:
    """The same step in plain torch."""
    optimizer = torch.optim.Adam(field.parameters(), lr=1e-3, betas=(0.9, 0.99), eps=1e-15)

    def step() -> None:
        optimizer.zero_grad()
        (field(points) - target).square().mean().backward()
        optimizer.step()

    return step


@torch.no_grad()
def sgemm_rate(repeats: int, device: str) -> float:
    """Single-precision FLOP/s of torch's matrix product with default threads."""
    a, b = torch.randn(1536, 1536, device=device), torch.randn(1536, 1536, device=device)
    torch.mm(a, b)
    return max(2 * 1536**3 / seconds(lambda: torch.mm(a, b), device) for _ in range(repeats))


def measure_field(repeats: int, samples: int, device: str) -> dict[str, float]:
    """Training step and inference of both backends."""
    generator = torch.Generator().manual_seed(0)
    fast = ColorField(generator=generator).to(device)
    plain = ColorField(backend="torch", generator=generator).to(device)
    points = (torch.rand(samples, 3, generator=generator) * 2 - 1).to(device)
    target = torch.rand(samples, 3, generator=generator).to(device)
    train_step = turns(
        make_step(fast, points, target), make_plain_step(plain, points, target), repeats, device
    )

    def colors() -> torch.Tensor:
        with torch.autocast(device, torch.float16, enabled=device == "cuda"):
            return fast(points)

    with torch.no_grad():
        inference = turns(colors, lambda: plain(points), repeats, device)
    rate = sgemm_rate(repeats, device)
    return {
        "train_ratio": train_step[2],
        "inference_ratio": inference[2],
        "train_samples_per_second": samples / train_step[0],
        "inference_samples_per_second": samples / inference[0],
        "reference_train_samples_per_second": samples / train_step[1],
        "reference_inference_samples_per_second": samples / inference[1],
        "share_of_sgemm": samples * FLOPS_TRAIN / train_step[0] / rate,
        "share_of_sgemm_inference": samples * FLOPS_FORWARD / inference[0] / rate,
        "sgemm_flops": rate,
    }


def copy_bandwidth(device: str) -> float:
    """Bytes per second, read and written, of a large copy."""
    source = torch.zeros(1 << 26, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / seconds(lambda: target.copy_(source), device)


def wavy_mesh(faces: int, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """A relief of about so many triangles in front of the camera, a little wider than the image."""
    columns = round((faces / 2 * WIDTH / HEIGHT) ** 0.5)
    rows = round(faces / 2 / columns)
    y, x = torch.meshgrid(
        torch.linspace(-0.32, 0.32, rows + 1),
        torch.linspace(-0.55, 0.55, columns + 1),
        indexing="ij",
    )
    z = 1 + 0.05 * torch.sin(20 * x) * torch.cos(20 * y)
    corner = (torch.arange(rows)[:, None] * (columns + 1) + torch.arange(columns)).flatten()
    right, below = corner + 1, corner + columns + 1
    triangles = torch.cat(
        [torch.stack([corner, right, below], 1), torch.stack([right, below + 1, below], 1)]
    )
    return torch.stack([x * z, y * z, z], -1).reshape(-1, 3).to(device), triangles.to(device)


def measure_raster(repeats: int, device: str) -> dict[str, float]:
    """The rasteriser alone, beside its plain form (once)."""
    K = torch.tensor([[600.0, 0, WIDTH / 2], [0, 600.0, HEIGHT / 2], [0, 0, 1]])
    camera = Cameras(K[None], torch.eye(4)[None], WIDTH, HEIGHT)
    out, figures = Fragments.buffers(WIDTH, HEIGHT, device), {}
    for name, faces in (("5k", 5_000), ("50k", 50_000)):
        mesh = wavy_mesh(faces, device)

        def draw(backend: str, mesh=mesh) -> None:
            rasterize(*mesh, camera, 1e-3, backend, out)

        draw("auto")
        times = [seconds(lambda: draw("auto"), device) for _ in range(repeats)]
        figures[f"raster_ms_{name}"] = 1e3 * statistics.median(times)
        figures[f"reference_raster_ms_{name}"] = 1e3 * seconds(lambda: draw("torch"), device)
    return figures


def measure_frames(repeats: int, device: str) -> dict[str, float]:
    """Whole new views as the project renders them: four meshes of 14 thousand faces joined, beside
    the plain path."""
    figures = {}
    for width, height in ((640, 360), (1280, 720)):
        clip = make_clip(8, width, height)
        fast, name = clip.renderer(device), f"frames_per_second_{width}x{height}"
        figures[name] = 1 / statistics.median(
            view_seconds(clip, fast, device) for _ in range(repeats)
        )
        if width == WIDTH:
            plain = clip.renderer(device, "torch")
            figures["frame_ratio"] = figures[name] * min(
                view_seconds(clip, plain, device, 1) for _ in range(2)
            )
    return figures


def view_seconds(clip: Clip, renderer, device: str, count: int = 4) -> float:
    """Seconds of one of the clip's new views, from several."""
    views = iter(range(len(clip.views)))
    render_view(clip.meshes, renderer, clip.views[next(views)])
    begin = time.perf_counter()
    for _ in range(count):
        render_view(clip.meshes, renderer, clip.views[next(views)])
    return (time.perf_counter() - begin) / count


def measure_loop(device: str) -> dict[str, float]:
    """The whole training loop: batches drawn from the pixels of a clip, steps, schedule."""
    clip, random = make_clip(8), np.random.default_rng(0)
    pixels = sample_points(clip.meshes, TrainingFrames(clip.frames, range(8)))
    for schedule in (Schedule(num_epochs=0.2), Schedule(num_epochs=4)):
        vertices = clip.meshes.shared_vertices()
        history = train(LayerTraining(clip.renderer(device), pixels, vertices), schedule, random)
    return {"loop_samples_per_second": history.samples / history.seconds}


def measure(repeats: int, samples: int, device: str) -> dict[str, float]:
    """Everything on one device."""
    figures = measure_field(repeats, samples, device) | measure_raster(repeats, device)
    return figures | measure_frames(repeats, device) | measure_loop(device)


def report(figures: dict[str, float]) -> str:
    """The table a person reads."""
    lines = [f"{'':12s}{'fast M/s':>10s}{'torch M/s':>11s}{'ratio':>8s}{'of sgemm':>10s}"]
    for name, share in (("train", "share_of_sgemm"), ("inference", "share_of_sgemm_inference")):
        rates = [
            figures[f"{prefix}{name}_samples_per_second"] / 1e6 for prefix in ("", "reference_")
        ]
        lines.append(
            f"{name:12s}{rates[0]:10.3f}{rates[1]:11.4f}{figures[name + '_ratio']:8.1f}{figures[share]:10.0%}"
        )
    lines.append(
        f"sgemm {figures['sgemm_flops'] / 1e9:.0f} GFLOP/s, {torch.get_num_threads()} threads"
    )
    lines.append(f"whole training loop {figures['loop_samples_per_second'] / 1e6:.2f} M samples/s")
    small, large = (figures[f"frames_per_second_{size}"] for size in ("640x360", "1280x720"))
    lines.append(
        f"new views 640x360 {small:.1f}/s ({figures['frame_ratio']:.1f} x torch), 1280x720 {large:.1f}/s"
    )
    for name in ("5k", "50k"):
        fast, plain = (figures[f"{prefix}raster_ms_{name}"] for prefix in ("", "reference_"))
        lines.append(
            f"rasterise {name} faces {fast:.1f} ms, torch {plain:.0f} ms, ratio {plain / fast:.0f}"
        )
    return "\n".join(lines)


def main() -> None:
    settings = tyro.cli(Settings, description=__doc__)
    figures = measure(settings.repeats, settings.samples, "cpu")
    figures["peak_memory_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(report(figures), f"peak memory {figures['peak_memory_mb']:.0f} MB", sep="\n")
    if torch.cuda.is_available():
        there = measure(settings.repeats, settings.gpu_samples, "cuda") | {
            "bandwidth": copy_bandwidth("cuda")
        }
        there["peak_memory_mb"] = torch.cuda.max_memory_allocated() / 2**20
        print(
            f"\n{torch.cuda.get_device_name()}: copies {there['bandwidth'] / 1e12:.2f} TB/s",
            report(there),
            sep="\n",
        )
        figures |= {f"cuda_{key}": value for key, value in there.items()}
    if settings.json:
        temporary = settings.json.with_name(settings.json.name + ".part")
        temporary.write_text(json.dumps(figures, indent=1))
        os.replace(temporary, settings.json)


if __name__ == "__main__":
    main()
