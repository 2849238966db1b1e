"""Rasteriser: coverage, depth order and interpolation as properties; the fast path against the
plain one."""

import numpy as np
import pytest
import torch
from scipy.spatial import ConvexHull, Delaunay
from torch import Tensor

from models.cameras import Cameras
from models.surface import plain_rasterizer
from models.surface.fragments import Fragments, interpolate, interpolate_torch
from models.surface.rasterizer import rasterize

WIDTH, HEIGHT = 61, 47
K = torch.tensor([[52.0, 0.3, 29.0], [0, 49.0, 25.0], [0, 0, 1]], dtype=torch.float64)
CAMERA = Cameras(K[None], torch.eye(4, dtype=torch.float64)[None], WIDTH, HEIGHT)
SEEDS = range(6)


def pixel_centers() -> np.ndarray:
    column, row = np.meshgrid(np.arange(WIDTH) + 0.5, np.arange(HEIGHT) + 0.5)
    return np.stack([column, row, np.ones_like(row)], -1)


def unproject(xy: np.ndarray, z: np.ndarray) -> np.ndarray:
    return np.c_[xy, np.ones(len(xy))] @ np.linalg.inv(K.numpy()).T * z[:, None]


def image_mesh(
    rng: np.random.Generator, count: int = 200, snap: float = 0.0
) -> tuple[Tensor, Tensor, Delaunay]:
    """A Delaunay mesh over image points (on a lattice of ``snap`` pixels, if given) at random
    depths."""
    xy = rng.uniform([-9, -9], [WIDTH + 9, HEIGHT + 9], (count, 2))
    xy = np.unique(np.round(xy / snap) * snap, axis=0) if snap else xy
    hull = Delaunay(xy)
    vertices = unproject(xy, rng.uniform(1, 3, len(xy)))
    return torch.from_numpy(vertices), torch.from_numpy(hull.simplices.astype(np.int64)), hull


def soup(rng: np.random.Generator, count: int = 120) -> tuple[Tensor, Tensor]:
    """Unrelated triangles of all kinds: small, huge, off-screen, behind the camera, across its
    plane, degenerate."""
    size = 10 ** rng.uniform(-2, 1.5, (count, 1, 1))
    corners = rng.normal(0, 3, (count, 1, 3)) + size * rng.normal(0, 1, (count, 3, 3))
    corners[0:5, 2] = corners[0:5, 1]
    corners[5:8, 2] = (corners[5:8, 0] + corners[5:8, 1]) / 2
    corners[8:11] *= 1e12
    corners[11:14] *= 1e-12
    corners[14, 0, 0], corners[15, 1, 2], corners[16, 2, 1] = np.nan, np.inf, -np.inf
    corners[17:20, :, 2] = 0
    corners[20:30, :, 2] = np.abs(corners[20:30, :, 2]) + 0.1
    faces = torch.from_numpy(rng.permutation(3 * count).reshape(count, 3))
    vertices = torch.empty(3 * count, 3, dtype=torch.float32)
    vertices[faces.flatten()] = torch.from_numpy(corners.reshape(-1, 3)).float()
    return vertices, faces


def sphere_around_camera(rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    points = rng.normal(0, 1, (40, 3))
    points = np.r_[points, -points]
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    return torch.from_numpy(points), torch.from_numpy(ConvexHull(points).simplices.astype(np.int64))


def assert_same(a: Fragments, b: Fragments) -> None:
    assert torch.equal(a.face, b.face)
    assert torch.equal(a.depth, b.depth)
    assert torch.equal(a.barycentric, b.barycentric)


def draw(vertices: Tensor, faces: Tensor, **options) -> Fragments:
    return rasterize(vertices, faces, CAMERA, **options)


@pytest.mark.parametrize("seed", SEEDS)
def test_every_pixel_of_a_hull_has_its_one_face(seed):
    vertices, faces, hull = image_mesh(np.random.default_rng(seed))
    expected = hull.find_simplex(pixel_centers()[..., :2])
    face = draw(vertices, faces).face.numpy()
    assert ((face >= 0) == (expected >= 0)).all()
    assert (face == expected).mean() > 0.999


@pytest.mark.parametrize("backend", ["numba", "torch"])
@pytest.mark.parametrize("seed", SEEDS)
def test_barycentrics_reproduce_the_pixel_and_the_depth(seed, backend):
    vertices, faces, _ = image_mesh(np.random.default_rng(seed))
    fragments = draw(vertices, faces, backend=backend)
    drawn = fragments.face >= 0
    points = (
        fragments.barycentric[..., None].double() * vertices[faces[fragments.face.long()]]
    ).sum(-2)[drawn]
    image = points @ K.T
    pixels = torch.from_numpy(pixel_centers())[drawn]
    torch.testing.assert_close(image[:, :2] / image[:, 2:], pixels[:, :2], atol=1e-3, rtol=0)
    torch.testing.assert_close(points[:, 2].float(), fragments.depth[drawn], atol=1e-6, rtol=1e-6)
    assert (fragments.barycentric >= 0).all()
    torch.testing.assert_close(fragments.barycentric.sum(-1), drawn.float(), atol=1e-6, rtol=0)


@pytest.mark.parametrize("snap", [0.5, 2.5])
@pytest.mark.parametrize("seed", SEEDS)
def test_no_crack_where_vertices_and_edges_pass_through_pixel_centers(seed, snap):
    vertices, faces, hull = image_mesh(np.random.default_rng(seed), snap=snap)
    centers = pixel_centers()[..., :2]
    equations = ConvexHull(hull.points).equations
    inside = (centers @ equations[:, :2].T + equations[:, 2] < -1e-6).all(-1)
    assert (draw(vertices, faces).face.numpy()[inside] >= 0).all()


@pytest.mark.parametrize("seed", SEEDS)
def test_a_closed_surface_around_the_camera_leaves_no_hole(seed):
    vertices, faces = sphere_around_camera(np.random.default_rng(seed))
    fragments = draw(vertices, faces)
    assert (fragments.face >= 0).all()
    corners = vertices.numpy()[faces.numpy()[fragments.face.numpy()]]
    rays = pixel_centers() @ np.linalg.inv(K.numpy()).T
    normal = np.cross(
        corners[..., 1, :] - corners[..., 0, :], corners[..., 2, :] - corners[..., 0, :]
    )
    depth = (normal * corners[..., 0, :]).sum(-1) / (normal * rays).sum(-1)
    np.testing.assert_allclose(fragments.depth.numpy(), depth, rtol=1e-5)


@pytest.mark.parametrize("seed", SEEDS)
def test_soup_agrees_with_the_definition(seed):
    """Every face against every pixel by a plain solve of M lambda = q; pixels at an edge may go
    either way."""
    vertices, faces = soup(np.random.default_rng(seed))
    fragments = draw(vertices, faces)
    matrices = (K @ vertices[faces].double().transpose(1, 2)).numpy()
    usable = np.isfinite(matrices).all((1, 2)) & (np.linalg.norm(matrices, axis=1) > 0).all(1)
    relative = matrices[usable] / np.linalg.norm(matrices[usable], axis=1, keepdims=True)
    usable[usable] = np.abs(np.linalg.det(relative)) > 1e-13
    inverse = np.full_like(matrices, np.nan)
    inverse[usable] = np.linalg.inv(matrices[usable])
    lambdas = np.einsum("tij,hwj->thwi", inverse, pixel_centers())
    with np.errstate(divide="ignore", invalid="ignore"):
        depth = 1 / lambdas.sum(-1)
        slack = lambdas.min(-1) * depth
        surely = np.where((slack > 1e-6) & (depth > 1.001e-3), depth, np.inf).min(0)
        maybe = np.where((slack > -1e-6) & (depth > 0.999e-3), depth, np.inf).min(0)
    drawn = fragments.depth.numpy()
    assert (drawn <= surely * (1 + 1e-5)).all()
    assert (drawn >= maybe * (1 - 1e-5)).all()
    assert (np.isfinite(drawn) == (fragments.face.numpy() >= 0)).all()


@pytest.mark.parametrize("seed", range(20))
def test_fast_path_equals_the_plain_one_on_any_soup(seed):
    vertices, faces = soup(np.random.default_rng(100 + seed))
    assert_same(draw(vertices, faces, backend="numba"), draw(vertices, faces, backend="torch"))


@pytest.mark.parametrize("seed", SEEDS)
def test_fast_path_equals_the_plain_one_on_lattice_meshes(seed):
    vertices, faces, _ = image_mesh(np.random.default_rng(seed), snap=0.5)
    assert_same(draw(vertices, faces, backend="numba"), draw(vertices, faces, backend="torch"))


def test_plain_path_does_not_depend_on_its_chunks(monkeypatch):
    vertices, faces = soup(np.random.default_rng(7))
    whole = draw(vertices, faces, backend="torch")
    monkeypatch.setattr(plain_rasterizer, "_PAIRS_PER_CHUNK", 500)
    assert_same(whole, draw(vertices, faces, backend="torch"))


@pytest.mark.parametrize("seed", SEEDS)
def test_of_two_meshes_the_nearer_one_is_seen(seed):
    rng = np.random.default_rng(seed)
    (first, faces_a), (second, faces_b) = soup(rng), soup(rng)
    a, b = draw(first, faces_a), draw(second, faces_b)
    both = draw(torch.cat([first, second]), torch.cat([faces_a, faces_b + len(first)]))
    assert torch.equal(both.depth, torch.minimum(a.depth, b.depth))
    from_first = both.face[both.face >= 0] < len(faces_a)
    assert (a.depth[both.face >= 0] <= b.depth[both.face >= 0])[from_first].all()


@pytest.mark.parametrize("backend", ["numba", "torch"])
def test_of_equal_faces_the_lower_index_is_seen(backend):
    vertices, faces, _ = image_mesh(np.random.default_rng(3))
    once, repeated = (
        draw(vertices, faces),
        draw(vertices, torch.cat([faces, faces, faces]), backend=backend),
    )
    assert_same(once, repeated)


@pytest.mark.parametrize("seed", SEEDS)
def test_orientation_of_a_face_does_not_matter(seed):
    vertices, faces = soup(np.random.default_rng(seed))
    a, b = draw(vertices, faces), draw(vertices, faces.flip(1))
    assert torch.equal(a.face >= 0, b.face >= 0)
    torch.testing.assert_close(a.depth, b.depth, rtol=1e-6, atol=0)


@pytest.mark.parametrize("seed", SEEDS)
def test_interpolation_of_an_affine_function_is_exact(seed):
    rng = np.random.default_rng(seed)
    vertices, faces, _ = image_mesh(rng)
    matrix, shift = (
        torch.from_numpy(rng.normal(0, 1, (3, 5))),
        torch.from_numpy(rng.normal(0, 1, 5)),
    )
    fragments = draw(vertices, faces)
    drawn = fragments.face >= 0
    rays = torch.from_numpy(pixel_centers()) @ torch.linalg.inv(K).T
    expected = (rays * fragments.depth[..., None])[drawn].double() @ matrix + shift
    values = interpolate(fragments, faces, vertices @ matrix + shift)
    torch.testing.assert_close(values[drawn], expected.float(), atol=2e-5, rtol=1e-5)
    assert (values[~drawn] == 0).all()
    torch.testing.assert_close(
        values, interpolate_torch(fragments, faces, (vertices @ matrix + shift).float())
    )


def test_result_does_not_depend_on_the_number_of_threads():
    vertices, faces = soup(np.random.default_rng(11))
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = draw(vertices, faces)
    finally:
        torch.set_num_threads(threads)
    assert_same(one, draw(vertices, faces))


@pytest.mark.parametrize("backend", ["numba", "torch"])
@pytest.mark.parametrize("near", [1e-3, 0.5, 4.0])
def test_nothing_nearer_than_near_is_drawn_and_all_else_is(near, backend):
    vertices, faces = sphere_around_camera(np.random.default_rng(5))
    vertices = vertices * 5
    everything, fragments = draw(vertices, faces), draw(vertices, faces, near=near, backend=backend)
    beyond = everything.depth > near * (1 + 1e-6)
    assert torch.equal(fragments.depth[beyond], everything.depth[beyond])
    assert (fragments.depth >= near * (1 - 1e-6)).all()


@pytest.mark.parametrize("backend", ["numba", "torch"])
def test_nothing_to_see_leaves_every_pixel_empty(backend):
    vertices, faces, _ = image_mesh(np.random.default_rng(0))
    behind = vertices * torch.tensor([1.0, 1.0, -1.0])
    for points, indices in [
        (vertices, faces[:0]),
        (vertices[:0], faces[:0]),
        (behind, faces),
        (-vertices, faces),
    ]:
        fragments = draw(points, indices, backend=backend)
        assert (fragments.face == -1).all()
        assert (fragments.barycentric == 0).all()
        assert fragments.depth.isinf().all()
        assert (interpolate(fragments, indices, points) == 0).all()


@pytest.mark.parametrize("backend", ["numba", "torch"])
def test_buffers_are_reused_and_leave_no_trace_of_the_last_mesh(backend):
    rng = np.random.default_rng(2)
    out = Fragments.buffers(WIDTH, HEIGHT)
    for _ in range(3):
        vertices, faces = soup(rng)
        assert draw(vertices, faces, backend=backend, out=out) is out
        assert_same(out, draw(vertices, faces))


def test_dtype_and_layout_of_the_input_do_not_matter():
    vertices, faces, _ = image_mesh(np.random.default_rng(1))
    exact = draw(vertices.float(), faces)
    assert_same(exact, draw(vertices.float().double().requires_grad_(), faces.int()))
    assert_same(exact, rasterize(vertices.float(), faces.T.contiguous().T, CAMERA))


def test_wrong_use_is_refused():
    vertices, faces, _ = image_mesh(np.random.default_rng(1))
    with pytest.raises(ValueError, match="faces name vertices"):
        draw(vertices[:-1], faces)
    with pytest.raises(ValueError, match="faces name vertices"):
        draw(vertices, faces - 1)
    with pytest.raises(ValueError, match="positive"):
        draw(vertices, faces, near=0.0)
    with pytest.raises(ValueError, match="backend"):
        draw(vertices, faces, backend="cuda")
    with pytest.raises(ValueError, match="out is"):
        draw(vertices, faces, out=Fragments.buffers(HEIGHT, WIDTH))
    with pytest.raises(ValueError, match="other faces"):
        interpolate(draw(vertices, faces), faces[:3], vertices)
