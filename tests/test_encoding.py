"""The hash grid and the colour field: all backends mean the same, gradients are right, training is
repeatable."""

import copy
import importlib.util
import math
import os

import pytest
import torch

from models.field.color_field import ColorField
from models.field.hash_grid import HashGrid
from models.field.optimizer import FieldOptimizer, adam_step
from models.field.reference import AdamRule, adam_reference
from models.field.viewpoints import ViewCode

# Triton runs on a GPU, or, for its meaning only, interpreted: TRITON_INTERPRET=1.
TRITON_DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
HAS_TRITON = importlib.util.find_spec("triton") and (
    TRITON_DEVICE == "cuda" or os.environ.get("TRITON_INTERPRET") == "1"
)


def make_field(seed: int = 0, backend: str = "auto", **sizes) -> ColorField:
    """A small field whose tables are large enough to matter."""
    generator = torch.Generator().manual_seed(seed)
    sizes = {
        "levels": 6,
        "log2_entries": 10,
        "base_resolution": 4,
        "finest_resolution": 128,
    } | sizes
    width, changing = sizes.pop("code_width", 0), sizes.pop("changing", 0)
    changes = (
        HashGrid(changing, log2_entries=9, finest_resolution=40, generator=generator)
        if changing
        else None
    )
    field = ColorField(HashGrid(**sizes, generator=generator), backend, generator, width, changes)
    with torch.no_grad():
        for grid in field.grids:
            grid.tables.mul_(1e4)
    return field


def make_code(count: int, field: ColorField, seed: int = 4) -> ViewCode | None:
    """A code of each sample, some with a time past the ends; None for a field that reads none."""
    if not field.code_width and field.changes is None:
        return None
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(count, field.code_width + 2, generator=generator)
    return ViewCode(values[:, :-2], values[:, -2], values[:, -1])


def scale_code(code: ViewCode, place: float, time: float, weight: float) -> ViewCode:
    return ViewCode(place * code.place, time * code.time, weight * code.weight)


def make_samples(count: int, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Points (some outside the box), targets and weights."""
    generator = torch.Generator().manual_seed(seed)
    draw = [torch.rand(count, size, generator=generator) for size in (3, 3, 1)]
    return draw[0] * 2.6 - 1.3, draw[1], draw[2][:, 0]


def relative(value: torch.Tensor, reference: torch.Tensor) -> float:
    """Norm of the difference over the norm of the reference."""
    value, reference = value.detach().cpu(), reference.detach().cpu()
    difference = (value - reference).norm()
    return float(difference / reference.norm().clamp_min(1e-30)) if reference.numel() else 0.0


def outcome(field: ColorField, samples: tuple) -> list[torch.Tensor]:
    """Colours and all gradients by autograd, then the same by loss_and_grad."""
    points, target, weight = samples
    code = make_code(len(points), field)
    if code is not None:
        code = ViewCode(*(part.to(points) for part in (code.place, code.time, code.weight)))
    field.zero_grad()
    moving = points.clone().requires_grad_()
    colors = field(moving, code)
    (colors * target).sum().backward()
    values = [colors.detach(), moving.grad] + [p.grad.clone() for p in field.parameters()]
    field.zero_grad()
    loss, slope = field.loss_and_grad(points, target, weight, want_point_grad=True, code=code)
    return [*values, loss, slope, *(p.grad.clone() for p in field.parameters())]


@pytest.mark.parametrize("count", [0, 1, 64, 1001])
@pytest.mark.parametrize(
    "sizes",
    [
        {},
        {"levels": 5, "code_width": 3},
        {"levels": 12, "log2_entries": 13, "code_width": 2},
        {"levels": 1},
        {"levels": 5, "code_width": 3, "changing": 3},
        {"changing": 1},
    ],
)
def test_numba_equals_the_reference_in_values_and_all_gradients(count: int, sizes: dict):
    field = make_field(**sizes)
    outcomes = {}
    for backend in ("torch", "numba"):
        field.backend = backend
        outcomes[backend] = outcome(field, make_samples(count))
    for fast, plain in zip(outcomes["numba"], outcomes["torch"], strict=True):
        assert fast.shape == plain.shape
        assert relative(fast, plain) < 1e-4


@pytest.mark.parametrize("backend", ["torch", "numba"])
@pytest.mark.parametrize("count", [1, 130])
@pytest.mark.parametrize("changing", [0, 2])
def test_a_field_under_one_code_is_that_of_samples_which_all_have_it(
    backend: str, count: int, changing: int
):
    field, points = (
        make_field(backend=backend, code_width=3, changing=changing),
        make_samples(count)[0],
    )
    code = make_code(1, field)
    with torch.no_grad():
        of_all = code.select(torch.zeros(count, dtype=torch.long))
        torch.testing.assert_close(field.specialize(code)(points), field(points, of_all))
        zero = scale_code(code, 0, 0, 0)
        torch.testing.assert_close(field.specialize(zero)(points), field(points))
        assert (field(points) - field.specialize(code)(points)).abs().max() > 1e-3
    assert field.specialize(code).backend == backend


@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_changes_are_of_a_place_in_the_image_at_a_time(backend: str):
    """They depend on x, y and the time, not on depth: of two points on a line of sight one is seen
    at a time."""
    field, points = make_field(backend=backend, changing=3), make_samples(90)[0]
    with torch.no_grad():
        field.grid.tables.zero_()
        at = points.clamp(-1, 1)[:, :2]
        times = ViewCode(torch.zeros(90, 0), torch.full((90,), 0.3), torch.ones(90))
        deeper = torch.cat([points[:, :2], -points[:, 2:]], 1)
        torch.testing.assert_close(field(points, code=times), field(deeper, code=times))
        later, half = scale_code(times, 1, -1.0, 1.0), scale_code(times, 1, 1.0, 0.5)
        for other in (later, half):
            assert (field(points, code=times) - field(points, code=other)).abs().max() > 1e-3
        torch.testing.assert_close(field(points, code=scale_code(times, 1, 0, 0)), field(points))
        moved = torch.cat([-at, points[:, 2:]], 1)
        assert (field(points, code=times) - field(moved, code=times)).abs().max() > 1e-3


@pytest.mark.skipif(not HAS_TRITON, reason="needs triton, and a GPU or TRITON_INTERPRET=1")
def test_triton_equals_the_reference_in_values_and_all_gradients():
    field, outcomes = make_field(code_width=3, changing=2).to(TRITON_DEVICE), []
    samples = tuple(value.to(TRITON_DEVICE) for value in make_samples(301))
    for field.backend in ("torch", "triton"):
        outcomes.append(outcome(field, samples))
    assert all(relative(fast, plain) < 1e-4 for plain, fast in zip(*outcomes, strict=True))


def test_half_precision_is_close_to_the_reference():
    field, results = make_field(backend="torch"), []
    samples = make_samples(2000)
    for half in (False, True):
        field.zero_grad()
        with torch.autocast("cpu", torch.float16, enabled=half):
            loss, slope = field.loss_and_grad(*samples, want_point_grad=True)
            colors = field(samples[0]).detach()
        results.append((colors, loss, slope, *(p.grad.clone() for p in field.parameters())))
    assert results[1][0].dtype == torch.float32
    # gradients also differ where a ReLU falls on its other side
    assert all(relative(half, exact) < 3e-2 for exact, half in zip(*results, strict=True))
    assert relative(results[1][0], results[0][0]) < 1e-2


@pytest.mark.skipif(not HAS_TRITON, reason="needs triton, and a GPU or TRITON_INTERPRET=1")
def test_triton_in_half_precision_is_close_to_the_reference():
    field, samples = (
        make_field().to(TRITON_DEVICE),
        [value.to(TRITON_DEVICE) for value in make_samples(301)],
    )
    results = []
    for field.backend in ("torch", "triton"):
        field.zero_grad()
        with torch.autocast(TRITON_DEVICE, torch.float16, enabled=field.backend == "triton"):
            loss, _ = field.loss_and_grad(*samples)
        results.append((loss, *(p.grad.clone() for p in field.parameters())))
    # gradients also differ where a ReLU falls on its other side
    assert all(relative(half, exact) < 3e-2 for exact, half in zip(*results, strict=True))


def test_the_grid_alone_equals_its_reference():
    grid = make_field().grid
    points = make_samples(77)[0]
    results = []
    for grid.backend in ("torch", "numba"):
        moving = points.clone().requires_grad_()
        features = grid(moving)
        slopes = torch.autograd.grad(features.sin().sum(), (moving, grid.tables))
        results.append((features, *slopes))
    assert all(relative(fast, plain) < 1e-4 for plain, fast in zip(*results, strict=True))


@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_point_gradient_is_the_slope_of_the_loss(backend: str):
    field = make_field(backend=backend)
    points, target, _ = make_samples(200)
    points = points.clamp(-0.99, 0.99)
    slope = field.loss_and_grad(points, target, want_point_grad=True)[1]
    direction = torch.randn(points.shape, generator=torch.Generator().manual_seed(3))
    exact = copy.deepcopy(field).double()
    exact.backend = "torch"

    def loss(step: float) -> float:
        with torch.no_grad():
            return float((exact(points.double() + step * direction) - target).square().mean())

    numeric = (loss(1e-7) - loss(-1e-7)) / 2e-7
    assert numeric == pytest.approx(float((slope * direction).sum()), rel=1e-3)


@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_points_outside_the_box_take_the_colour_of_its_border(backend: str):
    field = make_field(backend=backend)
    points = torch.tensor([[1.5, 0.2, -3.0], [1e30, -1e30, 0.0], [math.inf, -math.inf, 1.0]])
    with torch.no_grad():
        assert torch.equal(field(points), field(points.clamp(-1, 1)))


@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_a_point_that_is_not_a_number_shows_in_the_loss_and_breaks_nothing(backend: str):
    field = make_field(backend=backend)
    points, target, _ = make_samples(70)
    points[5, 1] = math.nan
    colors = field(points)
    assert colors[5].isnan().all() and colors[:5].isfinite().all() and colors[6:].isfinite().all()
    assert field.loss_and_grad(points, target)[0].isnan()


def test_colours_lie_between_zero_and_one_however_large_the_features():
    field = make_field()
    with torch.no_grad():
        field.grid.tables.mul_(1e6)
        colors = field(make_samples(500)[0])
    assert colors.isfinite().all() and colors.min() >= 0 and colors.max() <= 1


def test_byte_targets_mean_the_same_as_fractions():
    field = make_field()
    points, target, _ = make_samples(50)
    levels = (target * 255).round().to(torch.uint8)
    assert torch.equal(
        field.loss_and_grad(points, levels)[0], field.loss_and_grad(points, levels.float() / 255)[0]
    )


def test_sizes_that_do_not_belong_together_are_refused():
    points, target, weight = make_samples(10)
    with pytest.raises(ValueError, match="one S"):
        make_field().loss_and_grad(points, target[:9])
    with pytest.raises(ValueError, match="one S"):
        make_field().loss_and_grad(points, target, weight[:9])


def test_gradients_of_two_calls_add_up():
    field = make_field()
    points, target, _ = make_samples(90)
    field.loss_and_grad(points, target)
    once = [p.grad.clone() for p in field.parameters()]
    field.loss_and_grad(points, target)
    assert all(
        relative(p.grad, 2 * g) < 1e-6 for p, g in zip(field.parameters(), once, strict=True)
    )


@pytest.mark.parametrize("sparse", [True, False])
@pytest.mark.parametrize(
    "backend",
    [
        "numba",
        pytest.param(
            "triton",
            marks=pytest.mark.skipif(not HAS_TRITON, reason="needs a GPU or TRITON_INTERPRET=1"),
        ),
    ],
)
def test_fast_adam_equals_the_reference(sparse: bool, backend: str):
    if backend == "triton":
        from models.field.kernels.cuda_kernels import adam_step as fast_step
    else:
        fast_step = adam_step
    device = TRITON_DEVICE if backend == "triton" else "cpu"
    generator = torch.Generator()
    states = []
    for step_of in (fast_step, adam_reference):
        generator.manual_seed(0)
        value, first, second = (
            torch.randn(1003, generator=generator),
            torch.zeros(1003),
            torch.zeros(1003),
        )
        value, first, second = (tensor.to(device) for tensor in (value, first, second))
        for count in range(1, 6):
            gradient = torch.randn(1003, generator=generator) * 10.0 ** torch.randint(
                -6, 2, (1003,), generator=generator
            )
            gradient[torch.rand(1003, generator=generator) < 0.5] = 0
            gradient = gradient.to(device)
            step_of(value, gradient, (first, second), count, 1e-2, AdamRule(sparse=sparse))
            assert gradient.abs().max() == 0
        states.append((value, first, second))
    assert all(
        torch.allclose(fast, plain, rtol=1e-5, atol=1e-7)
        for fast, plain in zip(*states, strict=True)
    )


def test_dense_adam_equals_torch_adam():
    generator = torch.Generator().manual_seed(0)
    mine = torch.randn(77, generator=generator)
    other = torch.nn.Parameter(mine.clone())
    optimizer = torch.optim.Adam([other], lr=1e-2, betas=(0.9, 0.99), eps=1e-8)
    moments = torch.zeros(77), torch.zeros(77)
    for count in range(1, 6):
        other.grad = torch.randn(77, generator=generator)
        adam_step(mine, other.grad.clone(), moments, count, 1e-2, AdamRule(eps=1e-8))
        optimizer.step()
    assert torch.allclose(mine, other, rtol=1e-5, atol=1e-6)


def train(field: ColorField, optimizer: FieldOptimizer, steps: range) -> None:
    for step in steps:
        points, target, weight = make_samples(500, seed=step)
        field.loss_and_grad(points, target, weight)
        optimizer.step()


def test_training_is_repeatable_to_the_bit_and_does_not_depend_on_the_threads():
    threads, fields = torch.get_num_threads(), []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            field = make_field()
            train(field, FieldOptimizer(field), range(3))
            fields.append(field)
    finally:
        torch.set_num_threads(threads)
    for other in fields[1:]:
        assert all(
            torch.equal(a, b)
            for a, b in zip(fields[0].parameters(), other.parameters(), strict=True)
        )


def test_a_resumed_run_goes_on_to_the_bit():
    whole = make_field()
    optimizer = FieldOptimizer(whole)
    train(whole, optimizer, range(3))
    resumed = make_field(seed=9)
    resumed.load_state_dict(whole.state_dict())
    follower = FieldOptimizer(resumed)
    follower.load_state_dict(optimizer.state_dict())
    train(whole, optimizer, range(3, 6))
    train(resumed, follower, range(3, 6))
    assert all(
        torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True)
    )


def test_a_field_learns_a_smooth_image():
    generator = torch.Generator().manual_seed(0)
    field = ColorField(
        HashGrid(levels=6, log2_entries=12, finest_resolution=64, generator=generator),
        generator=generator,
    )
    optimizer = FieldOptimizer(field, table_rate=1e-2, mlp_rate=5e-3)
    for _ in range(150):
        points = (torch.rand(1024, 3, generator=generator) * 2 - 1) * torch.tensor([1.0, 1, 0])
        loss, _ = field.loss_and_grad(points, 0.5 + 0.4 * torch.sin(4 * points))
        optimizer.step()
    assert loss < 2e-3
