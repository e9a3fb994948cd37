"""Who may import whom: the table in CONTRIBUTING.md, held by import-linter's contracts in pyproject.toml."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
# An editable install answers before the path does; here the folder given must be what is read.
LINTER = """
import sys
sys.meta_path = [finder for finder in sys.meta_path if "Redirecting" not in type(finder).__name__]
from importlinter.cli import lint_imports_command
lint_imports_command()
"""


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", LINTER, "--no-cache"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},  # before the installed packages
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_packages_keep_the_rules() -> None:
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout
    assert "0 broken" in done.stdout


def test_a_forbidden_import_is_found(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    for package in ("hymate", "strategies", "client", "server"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("")
    (tmp_path / "hymate" / "bad.py").write_text("import flwr\n")
    (tmp_path / "client" / "bad.py").write_text("import server\n")
    done = lint(tmp_path)
    assert done.returncode != 0
    assert "2 broken" in done.stdout


def test_the_science_runs_without_the_federation() -> None:
    """`hymate` must load where neither Flower nor Ray is installed: GPU machines may hold torch alone."""
    modules = [
        str(path.relative_to(ROOT).with_suffix("")).replace("/", ".")
        for path in sorted((ROOT / "hymate").rglob("*.py"))
        if path.name != "__init__.py"
    ]
    code = (
        "import sys\n"
        "for name in ('flwr', 'ray', 'strategies', 'client', 'server'): sys.modules[name] = None\n"
        + "\n".join(f"import {name}" for name in modules)
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
