"""The program of a stage is the source that its functions can reach: no more, no less."""

import ast
import shutil
from functools import cache, partial
from pathlib import Path

import pytest

import background_points
import demo_pipeline
import foreground_points
from models.run.fingerprint import PROGRAM, SourceTree, fingerprint, hash_program
from models.tracking import grow_tracks

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = [Path(s.__file__).name for s in (background_points, foreground_points, demo_pipeline)]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package and of the scripts, to be edited."""
    root = tmp_path_factory.mktemp("tree")
    caches = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "models", root / "models", ignore=caches)
    for script in SCRIPTS:
        shutil.copy(ROOT / script, root / script)
    return root


def stages_of(script: Path) -> dict[str, str]:
    """The stages of a script and the names of the functions that do their work, from its text."""
    nodes = list(ast.walk(ast.parse(script.read_text(encoding="utf-8"))))
    bound = [node for node in nodes if isinstance(node, ast.Assign)]
    found = {}
    for call in nodes:
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute):
            continue
        if call.func.attr not in ("step", "make") or not isinstance(call.args[0], ast.Constant):
            continue
        work = call.args[1 if call.func.attr == "step" else 2]
        before = [node for node in bound if node.lineno < call.lineno]
        values = {
            ast.unparse(n.targets[0]): n.value for n in sorted(before, key=lambda n: n.lineno)
        }
        # Through names, ``partial`` and decorators to the function itself.
        while (work := values.get(ast.unparse(work), work)) and isinstance(work, ast.Call):
            work = work.args[0]
        found[call.args[0].value] = work.id
    assert found
    return found


def hashes(root: Path) -> dict[str, str]:
    """Hash of the program of every stage of every script."""
    sources = SourceTree(root)
    return {
        f"{script} {stage}": sources.hash_of(sources.reach([(root / script, function)]))
        for script in SCRIPTS
        for stage, function in stages_of(root / script).items()
    }


@cache
def hashes_before(root: Path) -> dict[str, str]:
    """The hashes of the tree as it was copied."""
    return hashes(root)


def changed_by(root: Path, name: str) -> set[str]:
    """Stages whose program changes with a file; the file is put back."""
    path = root / name
    before = hashes_before(root)
    text = path.read_bytes()
    path.write_bytes(text + b"\n# edited\n")
    try:
        after = hashes(root)
    finally:
        path.write_bytes(text)
    assert path.read_bytes() == text
    return {stage for stage in before if after[stage] != before[stage]}


def test_every_stage_of_every_script_is_known(tree):
    names = {stage.split(".py ")[1] for stage in hashes(tree)}
    assert {"background_points", "tracking", "cameras", "motion", "sharpening", "depth"} <= names
    assert {"foreground_points", "train", "reconstruction", "novel_view", "export"} <= names
    assert {"camera_path", "tracks"} <= names


@pytest.mark.parametrize(
    "name", ["page.py", "tables.py", "viewer.py", "viewer_panel.py", "charts.py"]
)
def test_an_edit_of_the_page_or_the_viewer_changes_no_stage(tree, name):
    assert changed_by(tree, f"models/report/{name}") == set()


def test_an_edit_of_an_asset_changes_the_page_alone(tree):
    assets = [p for p in (tree / "models/report/assets").rglob("*") if p.is_file()]
    assert assets
    for path in assets:
        assert changed_by(tree, path.relative_to(tree).as_posix()) == set()
    sources = SourceTree(tree)
    assert set(assets) <= sources.reach([(tree / "models/report/page.py", "write_report")])


TRACKED = {"background_points.py background_points", "background_points.py tracking"}
ALL_TRACKED = TRACKED | {"foreground_points.py foreground_points"}


@pytest.mark.parametrize(
    "name", ["tracking/lucas_kanade.py", "tracking/dis_flow.py", "learned/cotracker3.py"]
)
def test_an_edit_of_a_tracker_changes_the_stages_that_track(tree, name):
    changed = changed_by(tree, f"models/{name}")
    assert changed >= ALL_TRACKED
    assert not any("demo_pipeline" in stage for stage in changed)


def test_an_edit_of_the_files_that_videos_are_read_by_changes_their_stages(tree):
    changed = changed_by(tree, "models/clip/video.py")
    assert {"background_points.py background_points", "foreground_points.py foreground_points"} <= (
        changed
    )


def test_an_edit_of_the_cameras_changes_their_stages_and_not_the_tracks(tree):
    changed = changed_by(tree, "models/sfm/mapping.py")
    assert "background_points.py cameras" in changed and "background_points.py tracking" not in (
        changed
    )
    assert not any("demo_pipeline" in stage for stage in changed)


@pytest.mark.parametrize("name", ["training/loop.py", "field/kernels/cuda_kernels.py", "tools.py"])
def test_an_edit_of_training_changes_training_and_no_track(tree, name):
    changed = changed_by(tree, f"models/{name}")
    assert "demo_pipeline.py train" in changed
    assert not any(stage.startswith("background_points") for stage in changed)


def files(root: Path, **texts: str) -> Path:
    """A small package: names with __ for folders."""
    for name, text in texts.items():
        path = root / (name.replace("__", "/") + ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.fixture
def small(tmp_path) -> Path:
    (tmp_path / "models/room").mkdir(parents=True)
    (tmp_path / "models/__init__.py").touch()
    door = "from models.room.a import first\nfrom models.room.b import second as other\n"
    (tmp_path / "models/room/__init__.py").write_text(door)
    return files(
        tmp_path,
        models__room__a="def first():\n    from models.lazy import late\n    late()\n",
        models__room__b="import models.deep as deep\n\ndef second(): ...\n",
        models__lazy="def late(): ...\n",
        models__deep="import torch\n",
        script="from models.room import first, other\n\n\ndef helper():\n    first()\n\n\n"
        "def work(x: other):\n    helper()\n\n\ndef show():\n    other()\n",
    )


def reached(root: Path, path: str, name: str) -> set[str]:
    found = SourceTree(root).reach([(root / path, name)])
    return {file.relative_to(root).as_posix() for file in found}


def test_a_door_is_looked_through_and_a_lazy_import_counts(small):
    assert reached(small, "models/room/a.py", "first") == {"models/room/a.py", "models/lazy.py"}


def test_a_script_counts_by_the_names_that_its_function_uses(small):
    assert reached(small, "script.py", "work") == {"models/room/a.py", "models/lazy.py"}
    assert reached(small, "script.py", "show") == {"models/room/b.py", "models/deep.py"}
    assert reached(small, "script.py", "other") == {"models/room/b.py", "models/deep.py"}


def test_a_door_that_defines_a_name_counts_itself(small):
    (small / "models/room/__init__.py").write_text("from models.room.a import first\nother = 3\n")
    assert reached(small, "script.py", "show") == {
        "models/room/__init__.py",
        "models/room/a.py",
        "models/lazy.py",
    }


def test_files_that_import_each_other_are_reached_once(small):
    files(small, models__lazy="from models.room import first\n")
    assert reached(small, "models/room/a.py", "first") == {"models/room/a.py", "models/lazy.py"}


def test_the_program_is_that_of_the_functions_and_of_the_script(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("1")
    other = tmp_path / "other.py"
    other.write_text("2")
    program = hash_program(script, [grow_tracks])
    assert program == hash_program(script, [partial(grow_tracks, spacing=3)])
    assert program != hash_program(other, [grow_tracks])
    assert program != hash_program(script, [hash_program]) != hash_program(script)
    assert fingerprint(script, {}, {}, [grow_tracks])[PROGRAM] == program
