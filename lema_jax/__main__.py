"""Names the commands: `python -m lema_jax`."""

import ast
from pathlib import Path

_COMMANDS = ("study", "sample", "correct", "evolve", "build_data", "train", "evaluate", "report", "convert", "aot")


def main() -> None:
    print("Each stage is a command, python -m lema_jax.STAGE; --help lists its options.\n")
    for name in _COMMANDS:
        doc = ast.get_docstring(ast.parse(Path(__file__).with_name(f"{name}.py").read_text())) or name
        print(f"  {name:<12}{doc.splitlines()[0]}")


if __name__ == "__main__":
    main()
