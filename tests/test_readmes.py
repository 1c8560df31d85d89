"""What the READMEs and CONTRIBUTING name is there: files, trees, flags, names of the code, links; one stays short.

The commands that they show are parsed in `test_commands_in_docs.py`.
"""

import ast
import dataclasses
import importlib
import re
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

from lema_jax import stage
from lema_jax.training.config import TrainConfig

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "lema_jax"
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *(ROOT / folder / "README.md" for folder in ("lema_jax", "configs", "launch", "tests/benchmarks")),
    *sorted(PACKAGE.glob("*/README.md")),
]
STAGES = ("sample", "correct", "evolve", "build_data", "train", "evaluate", "convert", "aot", "report", "study")
every_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))

_SOURCE = (".py", ".sh", ".md", ".txt", ".yaml", ".yml", ".sbatch", ".ipynb", ".toml", ".cff")
_FOREIGN = re.compile(r"convert_hf_to_gguf|llama-server|llama-bench|vllm |gcloud |sbatch |uv pip|pip install|squeue")
# Flags of every command, of uv behind lock.sh, of llama.cpp.
_OF_OTHERS = {"help", "upgrade", "upgrade-package", "parallel", "ctx-size"}


def blocks(text: str) -> list[str]:
    """Indented code, `\\`-continued lines joined."""
    found = re.findall(r"(?:^    .*\n(?:^\n(?=    ))?)+", text, re.MULTILINE)
    return [re.sub(r"\\\n\s*", " ", re.sub(r"^    ", "", block, flags=re.MULTILINE)) for block in found]


def inline(text: str) -> list[str]:
    """Code within a sentence or a table, which may go over a line's end."""
    prose = re.sub(r"^    .*$", "", text, flags=re.MULTILINE)
    return [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", prose)]


def there(name: str, beside: Path) -> bool:
    """Whether a file or folder of that name exists; capitals and `*` stand for anything."""
    name, pattern = name.rstrip("/"), re.sub(r"[A-Z]{3,}", "*", name.rstrip("/"))
    return any((place / name).exists() or any(place.glob(pattern)) for place in (ROOT, beside, PACKAGE))


@every_document
def test_files_named_are_there(document: Path) -> None:
    tops = {path.name for path in ROOT.iterdir() if path.is_dir()}
    text = document.read_text()
    named = {word for code in inline(text) for word in code.split() if re.fullmatch(r"[\w.*/-]+", word)}
    named |= set(re.findall(r"\b(?:bash|sbatch|launch) ((?:launch|tests)/[\w./]+)", text))
    named |= set(re.findall(r"(?:configs|launch|tests|lema_jax)/[\w./]+\w", text))
    missing = [
        name
        for name in named
        if (name.endswith(_SOURCE) or name.split("/")[0] in tops)
        and not name.startswith(("runs/", "data/", "models/"))
        and not _FOREIGN.search(name)
        and not there(name, document.parent)
    ]
    assert missing == []


def flags_of(name: str) -> set[str]:
    """The flags of a stage."""
    return set(stage.names(importlib.import_module(f"lema_jax.{name}").Config))


def flags_of_files() -> set[str]:
    """What the scripts and the benchmarks read, by their text."""
    files = [*(ROOT / "launch").glob("*.s*"), *(ROOT / "tests" / "benchmarks").glob("*.[ps]*")]
    return {flag for file in files for flag in re.findall(r"(?:--|[\"'])(\w+)", file.read_text())}


@every_document
def test_flags_named_are_there(document: Path) -> None:
    known = set.union(*map(flags_of, STAGES)) | flags_of_files() | _OF_OTHERS
    text = document.read_text()
    lines = [line for line in (*inline(text), *"\n".join(blocks(text)).splitlines()) if not _FOREIGN.search(line)]
    named = {flag for line in lines for flag in re.findall(r"(?<![\w-])--([\w-]+)", line)}
    assert named - known == set()


def names(module: Path) -> set[str]:
    """The names that a module defines or imports."""
    found = set()
    for node in ast.parse(module.read_text()).body:
        found |= {getattr(node, "name", "")} | {alias.asname or alias.name for alias in getattr(node, "names", ())}
        for target in (*getattr(node, "targets", ()), getattr(node, "target", None)):
            found |= {part.id for part in ast.walk(target) if isinstance(part, ast.Name)} if target else set()
    return found


def module_of(parts: list[str]) -> tuple[Path, list[str]] | None:
    """The file of the longest module in a dotted name, and the rest of it."""
    for size in range(len(parts), 0, -1):
        path = PACKAGE.joinpath(*parts[:size])
        for file in (path.with_suffix(".py"), path / "__init__.py"):
            if file.is_file():
                return file, parts[size:]
    return None


def is_field(parts: list[str]) -> bool:
    """Whether a dotted name is a field of a training configuration."""
    at: object = TrainConfig
    for part in parts:
        if not dataclasses.is_dataclass(at):
            return False
        hints = {field.name: field.type for field in dataclasses.fields(at)}
        if part not in hints:
            return False
        kind = hints[part]
        options = getattr(kind, "__args__", (kind,))
        at = next((option for option in options if option is not types.NoneType), None)
    return True


def resolves(name: str) -> bool:
    parts = name.removeprefix("lema_jax.").split(".")
    if is_field(parts):
        return True
    found = module_of(parts)
    return found is not None and (not found[1] or found[1][0] in names(found[0]))


@every_document
def test_names_of_the_code_are_there(document: Path) -> None:
    rooms = {path.stem for path in PACKAGE.iterdir()} | {field.name for field in dataclasses.fields(TrainConfig)}
    dotted = re.compile(r"(?:lema_jax\.)?([a-z_]\w*)((?:\.\w+)+)(?:\(.*\))?")
    named = [match for code in inline(document.read_text()) if (match := dotted.fullmatch(code))]
    suffixes = (*_SOURCE, ".json", ".jsonl", ".html", ".bin", ".model", ".npz")
    missing = [
        match[0]
        for match in named
        if match[1] in rooms and not match[0].endswith(suffixes) and not resolves(match[0].partition("(")[0])
    ]
    assert missing == []


def tree(text: str) -> Iterator[str]:
    """The files of the tree in a README, four spaces a level, each followed by what it is."""
    folder = ""
    for line in text.splitlines():
        if match := re.match(r"( {4}| {8})(\S+) ", line):
            if match[2].endswith("/"):
                folder = match[2] if len(match[1]) == 4 else folder  # deeper ones hold data alone
            else:
                yield (folder if len(match[1]) == 8 else "") + match[2]


def test_the_tree_is_that_of_the_package() -> None:
    named = list(tree((PACKAGE / "README.md").read_text().partition("\n## Files\n")[2]))
    files = {str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py") if path.name != "__init__.py"}
    assert len(named) == len(set(named))
    assert {"without a line": files - set(named), "not there": set(named) - files} == {
        "without a line": set(),
        "not there": set(),
    }


@pytest.mark.parametrize("folder", ["launch", "configs"])
def test_a_table_has_every_file_of_its_folder(folder: str) -> None:
    text = (ROOT / folder / "README.md").read_text()
    cells = re.findall(r"^\| (`[^|]+) \|", text, re.MULTILINE)
    patterns = [re.sub(r"[A-Z]{3,}", "*", name) for cell in cells for name in re.findall(r"`([\w.]+)`", cell)]
    named = {path.name for pattern in patterns for path in (ROOT / folder).glob(pattern)}
    files = {path.name for path in (ROOT / folder).iterdir() if path.is_file() and path.name != "README.md"}
    assert named == files


@every_document
def test_links_lead_somewhere(document: Path) -> None:
    text = document.read_text()
    headings = {
        re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in re.findall(r"^#+ (.+)$", text, re.M)
    }
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("#"):
            assert target[1:] in headings, target
        elif not target.startswith("https://"):
            assert (document.parent / target).exists(), target


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 200
    assert len((ROOT / "CONTRIBUTING.md").read_text().splitlines()) <= 30


@pytest.mark.parametrize(
    ("question", "section", "answer"),
    [
        ("What is it?", "lema_jax", "learning from mistakes"),
        ("Will my model work?", "Which models", "others are refused"),
        ("How do I start?", "Quickstart", "launch/quickstart.sh"),
        ("On which machine?", "Install", "CPU cores"),
        ("With my own data?", "The loop on a real model", "--task=jsonl:PATH"),
        ("With a local server?", "A paid teacher", "--base_url=http://127.0.0.1"),
        ("What does it cost?", "A paid teacher", "--dry_run"),
        ("What does it cost on a TPU?", "On a TPU", "--price_per_chip_hour"),
        ("What do the files hold?", "What each stage reads and writes", "corrections.jsonl"),
        ("Why was a correction rejected?", "A paid teacher", "wrong_answer"),
        ("How do I go on after a kill?", "The loop on a real model", "run the same command again"),
    ],
)
def test_a_newcomers_questions_are_answered(question: str, section: str, answer: str) -> None:
    parts = re.split(r"^#+ (.+)$", (ROOT / "README.md").read_text(), flags=re.MULTILINE)
    sections = dict(zip(parts[1::2], parts[2::2]))
    assert answer in " ".join(sections[section].split()), question


def test_every_stage_has_a_row_in_the_readme() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert set(STAGES) <= set(rows)


def test_python_of_the_readme_makes_configs_that_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    block = next(block for block in blocks((ROOT / "README.md").read_text()) if "import" in block)
    asked = []
    for name in re.findall(r"^(\w+)\.run\(", block, re.MULTILINE):
        monkeypatch.setattr(importlib.import_module(f"lema_jax.{name}"), "run", asked.append)
    exec(compile(block, "README.md", "exec"), {})
    assert asked
    for config in asked:
        stage.require(config)


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        ("`lema_jax/absent.py`", test_files_named_are_there),
        ("`training/absent.py` of old", test_files_named_are_there),
        ("    bash launch/absent.sh\n", test_files_named_are_there),
        ("`ABSENT_TASK.toml`", test_files_named_are_there),
        ("`--absent_flag`", test_flags_named_are_there),
        ("    python -m lema_jax.sample --absent_flag\n", test_flags_named_are_there),
        ("`training.absent.thing`", test_names_of_the_code_are_there),
        ("`records.ABSENT`", test_names_of_the_code_are_there),
        ("`data.absent`", test_names_of_the_code_are_there),
        ("[there](absent.md)", test_links_lead_somewhere),
        ("[there](#absent)", test_links_lead_somewhere),
    ],
)
def test_what_is_not_there_is_seen(tmp_path: Path, text: str, missing) -> None:
    (tmp_path / "README.md").write_text(text)
    with pytest.raises(AssertionError):
        missing(tmp_path / "README.md")
