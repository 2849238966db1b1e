"""demo.ipynb runs from top to bottom on the sample clip, with its results inline."""

import json
import shutil
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parent.parent


def read_notebook() -> nbformat.NotebookNode:
    return nbformat.read(ROOT / "demo.ipynb", as_version=4)


def test_the_notebook_is_stored_without_results():
    notebook = json.loads((ROOT / "demo.ipynb").read_text(encoding="utf-8"))
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in cells)


@pytest.mark.slow
def test_the_notebook_runs_from_top_to_bottom(tmp_path: Path):
    for name in ("models", "docs"):
        (tmp_path / name).symlink_to(ROOT / name)
    for path in [*ROOT.glob("*.py"), *ROOT.glob("requirements*.txt")]:
        shutil.copy(path, tmp_path)
    notebook = read_notebook()
    # packages are those of the tests
    cells = [cell for cell in notebook.cells if "%pip" not in cell.source]
    assert len(cells) == len(notebook.cells) - 1
    notebook.cells = cells
    client = NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    shown = [
        output.data
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if output.output_type in ("display_data", "execute_result")
    ]
    videos = [data["text/html"] for data in shown if "<video" in data.get("text/html", "")]
    assert len(videos) == 4 and all("data:video/mp4;base64," in video for video in videos)
    assert (tmp_path / "results" / "notebook" / "scene" / "index.html").is_file()
