"""The code keeps the table of imports and the rules that the package states."""

import ast
import importlib
from pathlib import Path

import pytest
from numba.core.dispatcher import Dispatcher

import models

FOLDER = Path(models.__file__).parent
SOURCES = sorted(FOLDER.rglob("*.py"))
SCRIPTS = sorted(FOLDER.parent.glob("*.py"))


def name_of(path: Path) -> str:
    return path.relative_to(FOLDER).as_posix()


def place_of(path: Path) -> str:
    """The room of a file, or the noun that it is; empty for the package's own docstring."""
    parts = path.relative_to(FOLDER).parts
    return parts[0] if len(parts) > 1 else parts[0].removesuffix(".py").replace("__init__", "")


def imported_places(tree: ast.Module) -> set[str]:
    """Rooms and nouns of models that a source imports, in whatever form."""
    places = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            places |= {
                alias.name.split(".")[1] for alias in node.names if alias.name.startswith("models.")
            }
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide the order"
            if node.module == "models":
                places |= {alias.name for alias in node.names if alias.name != "IMPORTS"}
            elif (node.module or "").startswith("models."):
                places.add(node.module.split(".")[1])
    return places


def calls(tree: ast.Module) -> list[ast.Call]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.Call)]


def every_source(test):
    return pytest.mark.parametrize("path", SOURCES, ids=name_of)(test)


@every_source
def test_a_file_imports_only_rooms_that_the_table_allows(path: Path):
    place = place_of(path)
    allowed = set(models.IMPORTS[place].split()) if place else set()
    assert imported_places(ast.parse(path.read_text(encoding="utf-8"))) - {place} <= allowed


def door_of(place: str) -> set[str]:
    """Names that a room offers to others; every name of a noun."""
    module = importlib.import_module(f"models.{place}")
    return set(getattr(module, "__all__", vars(module)))


@pytest.mark.parametrize("path", [*SOURCES, *SCRIPTS], ids=lambda path: path.name)
def test_other_rooms_are_entered_by_their_doors_alone(path: Path):
    place = place_of(path) if path in SOURCES else ""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith("models."):
            continue
        other, *inside = node.module.split(".")[1:]
        if other != place:
            assert not inside, f"{node.module}: take the name from models.{other}"
            missing = {alias.name for alias in node.names} - door_of(other)
            assert not missing, f"models.{other} does not offer {missing}"


@every_source
def test_no_library_moves_tensors_to_cuda_by_itself(path: Path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert not [
        c for c in calls(tree) if isinstance(c.func, ast.Attribute) and c.func.attr == "cuda"
    ]


@every_source
def test_torch_load_never_runs_pickled_code(path: Path):
    for call in calls(ast.parse(path.read_text(encoding="utf-8"))):
        if ast.unparse(call.func) == "torch.load":
            assert any(
                k.arg == "weights_only" and ast.unparse(k.value) == "True" for k in call.keywords
            )


COMPILED = [path for path in SOURCES if "njit" in path.read_text(encoding="utf-8")]


@pytest.mark.parametrize("path", COMPILED, ids=name_of)
def test_kernels_give_the_same_from_the_cache_as_just_compiled(path: Path):
    """Fast arithmetic in a kernel that others call must be inlined: the compiler rounds each copy
    in its own way."""
    module = importlib.import_module(
        ".".join(("models", *path.relative_to(FOLDER).with_suffix("").parts))
    )
    for kernel in vars(module).values():
        if isinstance(kernel, Dispatcher) and kernel.targetoptions.get("fastmath"):
            assert kernel.targetoptions.get("forceinline"), kernel.__name__


def test_the_rules_see_every_file_and_every_kernel():
    assert (
        len(SOURCES)
        == sum(path.suffix == ".py" for path in FOLDER.rglob("*") if path.is_file())
        > 100
    )
    assert len(COMPILED) >= 19


def test_the_table_names_every_room_and_noun_in_the_order_of_the_data():
    assert set(models.IMPORTS) == {place_of(path) for path in SOURCES} - {""}
    above: set[str] = set()
    for place, allowed in models.IMPORTS.items():
        assert set(allowed.split()) <= above, f"{place} imports a room that stands below it"
        above.add(place)


def test_no_folder_has_more_than_twelve_files():
    for folder in {path.parent for path in SOURCES}:
        assert sum(path.parent == folder for path in SOURCES) <= 12, folder.name
