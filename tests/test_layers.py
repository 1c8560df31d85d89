"""Layers, read from the imports: nothing imports upward, no stage imports another, no JAX in the lower layers."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "lema_jax"
LAYERS = (
    ("errors", "faults", "interrupts", "disk", "ranges", "worker"),
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
    ("ahead", "planning"),
)
LAYER = {room: number for number, packages in enumerate(LAYERS) for room in packages}
STAGE = len(LAYERS)  # the layer of the stages: files of the package itself
STUDY = {"study_jobs": STAGE + 1, "study": STAGE + 2}  # compose stages, and are the only ones that import them
JAX = ("jax", "jaxlib", "flax", "optax", "orbax")
STAGES_WITHOUT_JAX = ("correct", "evolve", "build_data", "report")

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


def package(module: str) -> str:
    return [*module.split("."), ""][1]


def layer(module: str) -> int:
    return STUDY.get(package(module)) or LAYER.get(package(module), STAGE)


def upward(imports: Imports) -> list[str]:
    """Imports that go up, or sideways into another package or stage."""
    inside = [
        (module, target) for module in imports for target in imports[module] if package(target) and target in imports
    ]
    return [
        f"{module} imports {target}"
        for module, target in inside
        if layer(target) > layer(module) or (layer(target) == layer(module) and package(target) != package(module))
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
    return [m for m in imports if package(m) and (layer(m) < LAYER["model"] or package(m) in STAGES_WITHOUT_JAX)]


def test_nothing_imports_upward_or_another_stage() -> None:
    assert upward(read(PACKAGE)) == []


def test_every_folder_has_a_layer() -> None:
    packages = {folder.name for folder in PACKAGE.iterdir() if (folder / "__init__.py").exists()}
    assert packages <= set(LAYER)


def test_no_jax_below_the_model() -> None:
    imports = read(PACKAGE)
    assert {
        module: reaches_jax(module, imports) for module in without_jax(imports) if reaches_jax(module, imports)
    } == {}


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES_WITHOUT_JAX)
def test_stages_that_need_no_jax_load_none(stage: str) -> None:
    if not (PACKAGE / f"{stage}.py").exists():
        pytest.skip(f"there is no stage {stage} yet")
    code = f"import sys, lema_jax.{stage}; print([name for name in {JAX} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], cwd=PACKAGE.parent, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def made_up(folder: Path, **files: str) -> Imports:
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
    assert len(upward(made_up(tmp_path, **files))) == 1


def test_the_check_sees_jax_behind_other_modules(tmp_path: Path) -> None:
    files = {
        "report": "from lema_jax.evidence import a",
        "evidence__a": "from . import b",
        "evidence__b": "import jax.numpy",
    }
    imports = made_up(tmp_path, **files, train="import jax")
    assert set(without_jax(imports)) == {"lema_jax.report", "lema_jax.evidence.a", "lema_jax.evidence.b"}
    assert all(reaches_jax(module, imports) == ["lema_jax.evidence.b"] for module in without_jax(imports))


def test_the_check_lets_good_imports_pass(tmp_path: Path) -> None:
    imports = made_up(
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
