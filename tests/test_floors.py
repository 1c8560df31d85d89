"""The house's floors, read from the imports: nothing imports upward, no door opens another, no JAX on the ground."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "lema_jax"
FLOORS = (
    ("errors", "interrupts", "disk", "ranges"),
    ("storage",),
    ("digests",),
    ("lock", "records"),
    ("stage",),
    ("flagged",),
    ("cli",),
    ("tasks",),
    ("teacher", "data", "evidence"),
    ("model",),
    ("parallel",),
    ("metadata",),
    ("steps",),
    ("checkpoint",),
    ("training", "weights", "generation"),
    ("ahead",),
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
DOOR = len(FLOORS)  # the floor of the doors: files of the package itself
JAX = ("jax", "jaxlib", "flax", "optax", "orbax")
DOORS_WITHOUT_JAX = ("correct", "evolve", "build_data", "report")

Imports = dict[str, set[str]]  # module -> the modules that it imports, anywhere in the file


def read(package: Path) -> Imports:
    """The imports of every module of a package, by full names."""
    files = {
        ".".join((package.name, *file.relative_to(package).with_suffix("").parts)): file
        for file in package.rglob("*.py")
    }
    modules = {name.removesuffix(".__init__"): file for name, file in files.items()}
    return {name: imported(name, file, set(modules)) for name, file in modules.items()}


def imported(module: str, file: Path, known: set[str]) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = module if file.name == "__init__.py" else module.rpartition(".")[0]
            parts = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*parts, *([node.module] if node.module else [])])
            for alias in node.names:
                whole = f"{base}.{alias.name}"
                found.add(whole if whole in known else base)
    return found


def room(module: str) -> str:
    return [*module.split("."), ""][1]


def floor(module: str) -> int:
    return FLOOR.get(room(module), DOOR)


def upward(imports: Imports) -> list[str]:
    """Imports that go up, or sideways into another room or door."""
    inside = [
        (module, target) for module in imports for target in imports[module] if room(target) and target in imports
    ]
    return [
        f"{module} imports {target}"
        for module, target in inside
        if floor(target) > floor(module) or (floor(target) == floor(module) and room(target) != room(module))
    ]


def reaches_jax(module: str, imports: Imports) -> list[str]:
    """Modules that a module loads, itself among them, which import JAX or one of its family."""
    seen, waiting = {module}, [module]
    while waiting:
        new = {target for target in imports[waiting.pop()] if target in imports} - seen
        seen |= new
        waiting += new
    return sorted(name for name in seen if any(target.split(".")[0] in JAX for target in imports[name]))


def without_jax(imports: Imports) -> list[str]:
    return [m for m in imports if room(m) and (floor(m) < FLOOR["model"] or room(m) in DOORS_WITHOUT_JAX)]


def test_nothing_imports_upward_or_another_door() -> None:
    assert upward(read(PACKAGE)) == []


def test_every_folder_has_a_floor() -> None:
    rooms = {folder.name for folder in PACKAGE.iterdir() if (folder / "__init__.py").exists()}
    assert rooms <= set(FLOOR)


def test_no_jax_below_the_model() -> None:
    imports = read(PACKAGE)
    assert {
        module: reaches_jax(module, imports) for module in without_jax(imports) if reaches_jax(module, imports)
    } == {}


@pytest.mark.parametrize("door", DOORS_WITHOUT_JAX)
def test_doors_that_need_no_jax_load_none(door: str) -> None:
    if not (PACKAGE / f"{door}.py").exists():
        pytest.skip(f"there is no door {door} yet")
    code = f"import sys, lema_jax.{door}; print([name for name in {JAX} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], cwd=PACKAGE.parent, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def house(folder: Path, **files: str) -> Imports:
    """A package of made-up files; `__` in a name stands for a folder."""
    for name, text in files.items():
        file = folder / "lema_jax" / f"{name.replace('__', '/')}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return read(folder / "lema_jax")


@pytest.mark.parametrize(
    "files",
    [
        {"data__a": "from lema_jax.model import b", "model__b": ""},
        {"data__a": "import lema_jax.model.b", "model__b": ""},
        {"data__a": "def f():\n    from lema_jax.model.b import c", "model__b": ""},
        {"data__a": "from ..model import b", "model__b": ""},
        {"data__a": "from lema_jax.teacher import b", "teacher__b": ""},
        {"model__a": "from lema_jax import train", "train": ""},
        {"evaluate": "from lema_jax import train", "train": ""},
        {"evaluate": "from . import train", "train": ""},
    ],
)
def test_the_check_sees_upward_imports(tmp_path: Path, files: dict[str, str]) -> None:
    assert len(upward(house(tmp_path, **files))) == 1


def test_the_check_sees_jax_behind_other_modules(tmp_path: Path) -> None:
    files = {
        "report": "from lema_jax.evidence import a",
        "evidence__a": "from . import b",
        "evidence__b": "import jax.numpy",
    }
    imports = house(tmp_path, **files, train="import jax")
    assert set(without_jax(imports)) == {"lema_jax.report", "lema_jax.evidence.a", "lema_jax.evidence.b"}
    assert all(reaches_jax(module, imports) == ["lema_jax.evidence.b"] for module in without_jax(imports))


def test_the_check_lets_good_imports_pass(tmp_path: Path) -> None:
    imports = house(
        tmp_path,
        train="from lema_jax.model import a\nfrom lema_jax import errors",
        model__a="import jax\nfrom lema_jax.data import b\nfrom lema_jax.model import c",
        model__c="",
        data__b="import numpy\nfrom lema_jax.records import Row",
        records="from lema_jax.errors import UserError",
        errors="",
    )
    assert upward(imports) == []
    assert not any(reaches_jax(module, imports) for module in without_jax(imports))
