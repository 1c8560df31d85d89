"""The locked versions are those of every dependency, for every Python; the package is whole when it is built."""

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCKED = [line for line in (ROOT / "launch" / "constraints.txt").read_text().splitlines() if not line.startswith("#")]


def pinned(python: str) -> dict[str, str]:
    """Name -> version, of what is locked for Linux on x86-64 with that Python."""
    here = {"python_version": python, "python_full_version": f"{python}.0", "sys_platform": "linux"}
    here |= {
        "platform_machine": "x86_64",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
    }
    found: dict[str, str] = {}
    for line in LOCKED:
        one = Requirement(line)
        if one.marker is None or one.marker.evaluate(here):
            assert canonicalize_name(one.name) not in found, f"{one.name} has two versions on Python {python}"
            (specifier,) = one.specifier
            assert specifier.operator == "=="
            found[canonicalize_name(one.name)] = specifier.version
    return found


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
def test_every_dependency_is_locked_within_its_bounds(python: str) -> None:
    locked = pinned(python)
    asked = [*PROJECT["dependencies"], *(one for extra in PROJECT["optional-dependencies"].values() for one in extra)]
    for one in map(Requirement, asked):
        assert one.specifier.contains(locked[canonicalize_name(one.name)]), one


def test_the_lock_names_no_host() -> None:
    assert not re.search(r"://|--(?:extra-)?index|--find-links|@", "\n".join(LOCKED))


@pytest.mark.slow
def test_a_wheel_has_all_that_is_read_at_run_time(tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(ROOT / "lema_jax", source / "lema_jax", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    build = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
    done = subprocess.run([sys.executable, "-c", build, tmp_path], cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    inside = set(zipfile.ZipFile(wheel).namelist())
    kept = {
        str(path.relative_to(source))
        for path in (source / "lema_jax").rglob("*")
        if path.is_file() and path.name != "README.md"
    }
    assert kept <= inside
    assert "lema_jax/py.typed" in inside
    assert any(name.endswith("/LICENSE") for name in inside)
