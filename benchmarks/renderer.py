"""Speed of the renderer on this machine: colour field (beside plain torch), rasteriser, whole frames.

    python benchmarks/renderer.py [--json FILE] [--repeats 7] [--samples 32768] [--device cpu]

Fast path and reference take turns within one run, so that both meet the same load; figures are medians, and a ratio is
the median of the ratios of neighbouring runs. The reference is the same network in plain torch indexing, nn.Linear,
autograd and torch.optim.Adam, with torch's default threads.
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

import torch
import tyro

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from models.encoding import ColorField, FieldOptimizer
from models.rasterizer import Fragments, rasterize

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
    device: str = "cpu"
    """Device of the colour field; the rasteriser is measured there too."""


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


def turns(fast: Callable, plain: Callable, settings: Settings) -> tuple[float, float, float]:
    """Median seconds of both, and the median ratio plain / fast of neighbouring runs."""
    fast(), plain()
    pairs = [(seconds(fast, settings.device), seconds(plain, settings.device)) for _ in range(settings.repeats)]
    ratio = statistics.median(slow / quick for quick, slow in pairs)
    return statistics.median(p[0] for p in pairs), statistics.median(p[1] for p in pairs), ratio


def make_step(field: ColorField, points: torch.Tensor, target: torch.Tensor) -> Callable[[], None]:
    """A whole training step of the fast path."""
    optimizer = FieldOptimizer(field)

    def step() -> None:
        field.loss_and_grad(points, target)
        optimizer.step()

    return step


def make_plain_step(field: ColorField, points: torch.Tensor, target: torch.Tensor) -> Callable[[], None]:
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


def measure_field(settings: Settings) -> dict[str, float]:
    """Training step and inference of both backends."""
    generator = torch.Generator().manual_seed(0)
    fast = ColorField(generator=generator).to(settings.device)
    plain = ColorField(backend="torch", generator=generator).to(settings.device)
    points = (torch.rand(settings.samples, 3, generator=generator) * 2 - 1).to(settings.device)
    target = torch.rand(settings.samples, 3, generator=generator).to(settings.device)
    train = turns(make_step(fast, points, target), make_plain_step(plain, points, target), settings)
    with torch.no_grad():
        inference = turns(lambda: fast(points), lambda: plain(points), settings)
    rate = sgemm_rate(settings.repeats, settings.device)
    samples = settings.samples
    return {
        "train_ratio": train[2],
        "inference_ratio": inference[2],
        "train_samples_per_second": samples / train[0],
        "inference_samples_per_second": samples / inference[0],
        "reference_train_samples_per_second": samples / train[1],
        "reference_inference_samples_per_second": samples / inference[1],
        "share_of_sgemm": samples * FLOPS_TRAIN / train[0] / rate,
        "share_of_sgemm_inference": samples * FLOPS_FORWARD / inference[0] / rate,
        "sgemm_flops": rate,
    }


def wavy_mesh(faces: int, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """A relief of about so many triangles in front of the camera, a little wider than the image."""
    columns = round((faces / 2 * WIDTH / HEIGHT) ** 0.5)
    rows = round(faces / 2 / columns)
    y, x = torch.meshgrid(
        torch.linspace(-0.32, 0.32, rows + 1), torch.linspace(-0.55, 0.55, columns + 1), indexing="ij"
    )
    z = 1 + 0.05 * torch.sin(20 * x) * torch.cos(20 * y)
    corner = (torch.arange(rows)[:, None] * (columns + 1) + torch.arange(columns)).flatten()
    right, below = corner + 1, corner + columns + 1
    triangles = torch.cat([torch.stack([corner, right, below], 1), torch.stack([right, below + 1, below], 1)])
    return torch.stack([x * z, y * z, z], -1).reshape(-1, 3).to(device), triangles.to(device)


@torch.no_grad()
def measure_frames(settings: Settings) -> dict[str, float]:
    """The rasteriser alone, and whole frames: rasterise, interpolate points, colour them."""
    device = settings.device
    field = ColorField(generator=torch.Generator().manual_seed(0)).to(device)
    K = torch.tensor([[600.0, 0, WIDTH / 2], [0, 600.0, HEIGHT / 2], [0, 0, 1]], device=device)

    def draw(mesh) -> Fragments:
        return rasterize(*mesh, K, WIDTH, HEIGHT, 1e-3)

    def frame(mesh) -> torch.Tensor:
        fragments = draw(mesh)
        seen = fragments.face >= 0
        corners = mesh[0][mesh[1][fragments.face[seen].long()]]
        image = torch.zeros(HEIGHT, WIDTH, 3, device=device)
        image[seen] = field((fragments.barycentric[seen][..., None] * corners).sum(1))
        return image

    def median_seconds(call: Callable) -> float:
        call()
        return statistics.median(seconds(call, device) for _ in range(settings.repeats))

    small, large = wavy_mesh(5_000, device), wavy_mesh(50_000, device)
    return {
        "frames_per_second_640x360": 1 / median_seconds(lambda: frame(small)),
        "raster_ms_5k": 1e3 * median_seconds(lambda: draw(small)),
        "raster_ms_50k": 1e3 * median_seconds(lambda: draw(large)),
    }


def report(figures: dict[str, float]) -> str:
    """The table a person reads."""
    lines = [f"{'':12s}{'fast M/s':>10s}{'torch M/s':>11s}{'ratio':>8s}{'of sgemm':>10s}"]
    for name, share in (("train", "share_of_sgemm"), ("inference", "share_of_sgemm_inference")):
        rates = [figures[f"{prefix}{name}_samples_per_second"] / 1e6 for prefix in ("", "reference_")]
        lines.append(f"{name:12s}{rates[0]:10.3f}{rates[1]:11.4f}{figures[name + '_ratio']:8.1f}{figures[share]:10.0%}")
    lines.append(f"sgemm {figures['sgemm_flops'] / 1e9:.0f} GFLOP/s, {torch.get_num_threads()} threads")
    lines.append(f"frames 640x360, 5k faces: {figures['frames_per_second_640x360']:.1f}/s")
    lines.append(f"rasterise 5k faces {figures['raster_ms_5k']:.1f} ms, 50k {figures['raster_ms_50k']:.1f} ms")
    lines.append(f"peak memory {figures['peak_memory_mb']:.0f} MB")
    return "\n".join(lines)


def main() -> None:
    settings = tyro.cli(Settings, description=__doc__)
    figures = measure_field(settings) | measure_frames(settings)
    figures["peak_memory_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(report(figures))
    if settings.json:
        temporary = settings.json.with_name(settings.json.name + ".part")
        temporary.write_text(json.dumps(figures, indent=1))
        os.replace(temporary, settings.json)


if __name__ == "__main__":
    main()
