"""README and docs say as much as they should, and the page of settings is that of the scripts."""

import importlib
import re
import sys
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path

import pytest

from models.run.settings import flatten_settings

ROOT = Path(__file__).parent.parent
SCRIPTS = ("background_points", "foreground_points", "demo_pipeline", "process_folder")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
OPTIONS = re.compile(r"class (\w+Options)\b")


def settings_of(script: str):
    kind = importlib.import_module(script).Settings
    required = {f.name for f in fields(kind) if f.default is MISSING}
    needed = {name: Path("clip") for name in required}
    return kind(**needed)


def nested_kinds(value: object) -> set[str]:
    """Names of the dataclasses inside a dataclass."""
    found = set()
    for part in fields(value):
        own = getattr(value, part.name)
        if is_dataclass(own):
            found |= {type(own).__name__} | nested_kinds(own)
    return found


def test_the_readme_has_at_most_200_lines():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 200


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_of_a_page_lead_to_files(page: Path):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_setting_stands_on_the_page_of_settings(script: str):
    page = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    part = page.split(f"## {script}.py")[1].split("\n## ")[0]
    for name in flatten_settings(settings_of(script)):
        assert re.search(rf"--(no_)?{re.escape(name)}\b", part), name


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_is_one_screen(script: str, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [f"{script}.py", "--help"])
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(script).main()
    lines = capsys.readouterr().out.splitlines()
    assert not ended.value.code and len(lines) <= 60
    assert "--help_all" in lines[-1]


def test_every_options_class_of_a_room_is_reached_by_some_script():
    reached = set().union(*(nested_kinds(settings_of(script)) for script in SCRIPTS))
    # The synthetic clip has a command of its own.
    rooms = [room for room in (ROOT / "models").iterdir() if room.is_dir()]
    written = set()
    for room in rooms:
        if room.name != "synthetic":
            for path in room.glob("*.py"):
                written |= set(OPTIONS.findall(path.read_text(encoding="utf-8")))
    assert written - {"SceneOptions"} <= reached
