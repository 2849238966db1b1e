"""The code keeps the order of files and the rules that the package's docstring states."""

import ast
import importlib
import re
from pathlib import Path

import pytest
from numba.core.dispatcher import Dispatcher

import models

FOLDER = Path(models.__file__).parent
SOURCES = sorted(path for path in FOLDER.glob("*.py") if path.name != "__init__.py")


def listed_order() -> list[str]:
    paragraph = models.__doc__.split("reads this list):")[1].strip().split("\n\n")[0]
    return re.findall(r"\w+", paragraph)


def imported_modules(tree: ast.Module) -> set[str]:
    """Names of the files of models that a source imports, in whatever form."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.removeprefix("models.") for alias in node.names if alias.name.startswith("models.")}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module == "models":
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("models."):
            names.add(node.module.removeprefix("models."))
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide the order"
    return names


def calls(tree: ast.Module) -> list[ast.Call]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.Call)]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_a_file_imports_only_files_listed_above_it(path: Path):
    order = listed_order()
    assert path.stem in order, f"{path.name} is missing from the list in models/__init__.py"
    above = set(order[: order.index(path.stem)])
    assert imported_modules(ast.parse(path.read_text(encoding="utf-8"))) <= above


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_no_library_moves_tensors_to_cuda_by_itself(path: Path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert not [c for c in calls(tree) if isinstance(c.func, ast.Attribute) and c.func.attr == "cuda"]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_torch_load_never_runs_pickled_code(path: Path):
    for call in calls(ast.parse(path.read_text(encoding="utf-8"))):
        if ast.unparse(call.func) == "torch.load":
            assert any(k.arg == "weights_only" and ast.unparse(k.value) == "True" for k in call.keywords)


COMPILED = [path for path in SOURCES if "njit" in path.read_text(encoding="utf-8")]


@pytest.mark.parametrize("path", COMPILED, ids=lambda path: path.stem)
def test_kernels_give_the_same_from_the_cache_as_just_compiled(path: Path):
    """Fast arithmetic in a kernel that others call must be inlined: the compiler rounds each copy in its own way."""
    module = importlib.import_module(f"models.{path.stem}")
    for kernel in vars(module).values():
        if isinstance(kernel, Dispatcher) and kernel.targetoptions.get("fastmath"):
            assert kernel.targetoptions.get("forceinline"), kernel.__name__


def test_the_list_names_each_file_once():
    order = listed_order()
    assert len(order) == len(set(order))
