"""The notebook: no outputs are stored, and its cells run in order, in a fresh process, at the smallest size."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "launch" / "lema_jax.ipynb"
CELLS = [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"]


def test_no_output_is_stored() -> None:
    assert [cell for cell in CELLS if cell["outputs"] or cell["execution_count"] is not None] == []


@pytest.mark.long
def test_the_cells_run_in_order(tmp_path: Path) -> None:
    cells = ["".join(cell["source"]) for cell in CELLS]
    cells[0], found = re.subn(r'^SIZE = ".*"$', 'SIZE = "tiny"', cells[0], flags=re.MULTILINE)
    assert found == 1
    script = tmp_path / "cells.py"
    script.write_text("\n".join(cells))
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, script], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "=>" in done.stdout  # a correction is shown
    assert "Δ points" in done.stdout
    assert (tmp_path / "runs" / "notebook" / "report.html").read_text().startswith("<!")
