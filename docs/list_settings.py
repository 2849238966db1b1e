"""Writes docs/settings.md: every setting of every script, as ``--help_all`` prints them.

python docs/list_settings.py
"""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = ("background_points.py", "foreground_points.py", "demo_pipeline.py", "process_folder.py")
PAGE = ROOT / "docs" / "settings.md"
HEAD = """# Settings

Every setting of every script, with its unit, its effect and its default. `--help_all` prints the
same; `python docs/list_settings.py` writes this page. The common settings stand at the top of
`main()` in each script as well. Each run records all of them in its `config.json`.
"""


def list_settings(script: str) -> str:
    """The text of ``--help_all`` of a script, 100 columns wide and without colours."""
    # Rich and tyro read the width and the colours from these.
    plain = {"COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb", "PYTHONIOENCODING": "utf-8"}
    command = [sys.executable, script, "--help_all"]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | plain, capture_output=True, encoding="utf-8", check=True
    )
    return "\n".join(line.rstrip() for line in done.stdout.splitlines()).strip()


def main() -> None:
    parts = [HEAD]
    for script in SCRIPTS:
        parts.append(f"## {script}\n\n```\n{list_settings(script)}\n```\n")
    PAGE.write_text("\n".join(parts), encoding="utf-8")
    print(f"wrote {PAGE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
