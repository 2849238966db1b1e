"""Fingerprints: the settings, input files and program that a stage was made from.

The program of a stage is the text of the source files that its functions can reach by imports, the
text of the script, and the versions of the packages below. Imports are read from the text (``ast``):
nothing is imported for it, and an import inside a function counts as well.
"""

import ast
import hashlib
import inspect
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("torch", "numpy", "scipy", "opencv-python-headless", "numba", "pycolmap")
"""Packages whose version may change a result."""
PROGRAM = "the program"
"""Key of a fingerprint that stands for the code and the packages below it."""
# Settings that change no result.
_NO_MATTER = {"output_dir", "max_memory", "allow_download"}
_ROOT = Path(__file__).resolve().parents[2]


def hash_content(path: str | Path | None) -> str:
    """SHA-256 of a file, or of the names and contents of a folder's files; "none" for nothing that
    can be read."""
    if path is None:
        return "none"
    path = Path(path)
    try:
        if path.is_dir():
            files = sorted(
                p for p in path.rglob("*") if p.is_file() and not p.name.endswith(".part")
            )
            lines = (
                f"{file.relative_to(path).as_posix()} {hash_content(file)}\n" for file in files
            )
            return hashlib.sha256("".join(lines).encode(errors="surrogateescape")).hexdigest()
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError:
        return "none"


def read_versions() -> dict[str, str]:
    """Versions of ``PACKAGES``."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "none"
    return found


def hash_fingerprint(made_from: Mapping[str, str]) -> str:
    """A hash that stands for a whole fingerprint."""
    return hashlib.sha256(json.dumps(dict(made_from), sort_keys=True).encode()).hexdigest()


def fingerprint(
    script: str | Path,
    settings: Mapping[str, object],
    files: Mapping[str, str | Path | None],
    functions: Iterable[Callable] = (),
) -> dict[str, str]:
    """The origin of a stage: settings by value, files by content, and the program.

    Args:
        script: source file of the script.
        settings: see ``flatten_settings``.
        functions: functions that do the work; the program is the source that they reach. All of
            the package if not given.
    """
    made_from = {
        f"--{name}": str(value)
        for name, value in settings.items()
        if name.rsplit(".", 1)[-1] not in _NO_MATTER
    }
    made_from |= {name: hash_content(path) for name, path in files.items()}
    return made_from | {PROGRAM: hash_program(script, functions)}


def hash_program(script: str | Path, functions: Iterable[Callable] = ()) -> str:
    """SHA-256 of the script, of the source files that the functions reach (of all, without
    functions), and of the versions of ``PACKAGES``."""
    starts = frozenset(_place_of(function) for function in functions)
    return _hash_program(Path(script), starts)


@cache
def _hash_program(script: Path, starts: frozenset[tuple[Path, str]]) -> str:
    # Without functions nothing tells the reach: all of the package counts.
    tree = _sources()
    reached = tree.reach(starts) if starts else set((_ROOT / "models").rglob("*.py"))
    return hashlib.sha256(
        " ".join([hash_content(script), tree.hash_of(reached), *read_versions().values()]).encode()
    ).hexdigest()


@cache
def _sources() -> "SourceTree":
    return SourceTree(_ROOT)


def _place_of(function: Callable) -> tuple[Path, str]:
    """Source file and name of a function or class; of the function below a ``partial``."""
    while isinstance(function, partial):
        function = function.func
    function = inspect.unwrap(function)
    return Path(inspect.getsourcefile(function)).resolve(), function.__qualname__.split(".")[0]


class SourceTree:
    """The Python files below a folder, and the files that each of them imports.

    A file is read once: a changed tree needs a new object.
    """

    def __init__(self, root: Path):
        """Reads nothing yet.

        Args:
            root: folder of the scripts and of the package ``models``.
        """
        self.root = root.resolve()
        self._parsed: dict[Path, ast.Module] = {}
        self._hashes: dict[Path, str] = {}
        self._neighbours: dict[Path, set[Path]] = {}

    def reach(self, starts: Iterable[tuple[Path, str]]) -> set[Path]:
        """All files that the work of some functions can depend on: source, and assets beside it.

        Args:
            starts: file and name of each function. Of a file inside a package the whole counts; of
                a script only the names that the function uses, and the script itself does not
                count.
        """
        waiting: set[Path] = set()
        for path, name in starts:
            waiting |= {path} if self._is_in_package(path) else self._imports_of_name(path, name)
        found: set[Path] = set()
        while waiting:
            path = waiting.pop()
            if path in found:
                continue
            found.add(path)
            if path.suffix == ".py":
                waiting |= self._needed_by(path)
        return found

    def _needed_by(self, path: Path) -> set[Path]:
        """Files that a source file imports or opens."""
        if path not in self._neighbours:
            # Imports inside functions count: they run when the function does.
            self._neighbours[path] = self._imports(self._parse(path)) | self._assets(path)
        return self._neighbours[path]

    def hash_of(self, files: Collection[Path]) -> str:
        """SHA-256 of the names and contents of some files of the tree."""
        for path in files:
            if path not in self._hashes:
                self._hashes[path] = hash_content(path)
        # Sorted, as sets have no order.
        lines = sorted(
            f"{path.relative_to(self.root).as_posix()} {self._hashes[path]}" for path in files
        )
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    def find(self, module: str, name: str | None = None) -> set[Path]:
        """The file of a module, or the file that defines a name which the module offers.

        A package's ``__init__.py`` is looked through: it counts only where it defines the name
        itself. Empty for modules outside the tree.
        """
        path = self.root.joinpath(*module.split("."))
        door = path / "__init__.py"
        # A module of a single file, or one outside the tree.
        if not door.is_file():
            file = path.with_suffix(".py")
            return {file} if file.is_file() else set()
        if name is None:
            return {door}
        # The door itself does not count: a new name in it changes no result.
        for node in self._parse(door).body:
            if isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    if (alias.asname or alias.name) == name:
                        return self.find(node.module, alias.name)
        return self.find(f"{module}.{name}") or {door}

    def _parse(self, path: Path) -> ast.Module:
        if path not in self._parsed:
            self._parsed[path] = ast.parse(path.read_bytes())
        return self._parsed[path]

    def _is_in_package(self, path: Path) -> bool:
        return path.is_relative_to(self.root) and (path.parent / "__init__.py").is_file()

    def _imports(self, tree: ast.AST) -> set[Path]:
        """Files imported anywhere in a piece of source."""
        found: set[Path] = set()
        for node in _statements_in(tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    found |= self.find(alias.name)
            elif isinstance(node, ast.ImportFrom) and node.module is not None:
                for alias in node.names:
                    found |= self.find(node.module, alias.name)
        return found

    def _imports_of_name(self, path: Path, name: str) -> set[Path]:
        """Files imported by a top-level name of a script, and by the names of the script that it
        uses; annotations do not count."""
        defined = self._index_names(path)
        found: set[Path] = set()
        # A script is read name by name, so that a change of its page leaves its training alone.
        waiting = [name]
        met: set[str] = set()
        while waiting:
            bound = waiting.pop()
            if bound in met:
                continue
            met.add(bound)
            for node in defined.get(bound, ()):
                if isinstance(node, ast.Import):
                    found |= self._imports(node)
                elif isinstance(node, ast.ImportFrom):
                    given = next(a.name for a in node.names if bound in (a.asname, a.name))
                    found |= self.find(node.module, given)
                else:
                    found |= self._imports(node)
                    waiting += _names_used_in(node)
        return found

    def _index_names(self, path: Path) -> dict[str, list[ast.AST]]:
        """Top-level statements of a file by the names that they bind."""
        defined: dict[str, list[ast.AST]] = {}
        for node in self._parse(path).body:
            for bound in _names_bound_by(node):
                defined.setdefault(bound, []).append(node)
        return defined

    def _assets(self, path: Path) -> set[Path]:
        """Files that are no Python, in folders beside a source file which it opens by its own place
        (``Path(__file__).parent / "assets"``)."""
        if b"__file__" not in path.read_bytes():
            return set()
        # Folders are named by texts of the source, such as "assets".
        texts = {
            n.value
            for n in ast.walk(self._parse(path))
            if isinstance(n, ast.Constant) and isinstance(n.value, str)
        }
        beside = [p for p in path.parent.iterdir() if p.name in texts and p.suffix != ".py"]
        files = [file for p in beside for file in (p.rglob("*") if p.is_dir() else [p])]
        return {
            file
            for file in files
            if file.is_file() and "__pycache__" not in file.parts and file.suffix != ".py"
        }


def _statements_in(tree: ast.AST) -> Iterator[ast.AST]:
    """A piece of source and all statements inside it; expressions hold no imports and are left out,
    which is several times faster than ``ast.walk``."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        for block in ("body", "orelse", "finalbody", "handlers", "cases"):
            inside = getattr(node, block, None)
            if isinstance(inside, list):
                waiting += inside


def _names_bound_by(node: ast.stmt) -> list[str]:
    """Names that a top-level statement binds."""
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return [node.name]
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        return [alias.asname or alias.name.split(".")[0] for alias in node.names]
    return [
        part.id
        for part in ast.walk(node)
        if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store)
    ]


def _names_used_in(node: ast.AST) -> list[str]:
    """Names that a definition reads, without those of its annotations."""
    found = []
    waiting = [node]
    while waiting:
        part = waiting.pop()
        if isinstance(part, ast.Name):
            found.append(part.id)
        for key, value in ast.iter_fields(part):
            if key not in ("annotation", "returns"):
                children = value if isinstance(value, list) else [value]
                waiting += [child for child in children if isinstance(child, ast.AST)]
    return found
