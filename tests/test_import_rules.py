"""Who may import whom: the table in CONTRIBUTING.md, held by import-linter's contracts in pyproject.toml."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from hymate.config import FinetuneConfig, ModelConfig

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


def test_the_model_trains_with_torch_alone() -> None:
    """Model, batches and training loop need torch and numpy; settings may come as any object."""
    sizes = ModelConfig(d_model=8, d_state=4, attention_heads=2, d_static=4, d_summary=4, value_clip=5.0)
    settings = FinetuneConfig(batch_size=4)
    code = f"SIZES, SETTINGS = {sizes.model_dump()!r}, {settings.model_dump()!r}"
    code += """
import sys
for name in ("pydantic", "yaml", "polars", "pyarrow", "meds", "safetensors", "typer", "rich", "flwr", "ray"):
    sys.modules[name] = None
from types import SimpleNamespace
import numpy as np
import torch
from hymate.model.hymate import build_model
from hymate.train.loop import finetune_epochs, make_optimiser
from hymate.train.scoring import score

sizes = SimpleNamespace(**SIZES)
rng = np.random.default_rng(0)
lengths = rng.integers(1, 9, 12)
offset = np.concatenate([[0], np.cumsum(lengths)])
total = int(offset[-1])
rows = np.arange(12)
class Stays(SimpleNamespace):
    def __len__(self):
        return 12

store = Stays(
    time=np.sort(rng.uniform(0, 48, total)).astype(np.float32),
    code=rng.integers(1, 6, total).astype(np.int32),
    value=rng.standard_normal(total).astype(np.float32), offset=offset, lengths=lengths,
    static=rng.standard_normal((12, 3)).astype(np.float32), label=(rows % 2).astype(np.float32),
    numeric=np.ones(6, bool), rows=lambda split: rows,
)
model = build_model(sizes, codes=5, static_width=3, time_scale_hours=48.0, seed=0)
settings = SimpleNamespace(**SETTINGS)
done = finetune_epochs(
    model, store, settings, make_optimiser(model, settings),
    positive_weight=1.0, seed=0, first_epoch=0, epochs=2,
)
assert done.steps == 6 and np.isfinite(done.loss), done
assert np.isfinite(score(model, store, rows)).all()
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
