r"""Matrices and column vectors as answers write them.

`pmatrix`, `bmatrix` and their like, an `array` in brackets, a factor before it, a transpose. A determinant
(`vmatrix`, or an `array` between bars) is an expression: `determinant` writes it out.
"""

from collections.abc import Sequence

from lema_jax.tasks import tokens

Rows = list[list[tuple[str, ...]]]

_ENVIRONMENTS = frozenset(f"\\begin{{{kind}}}" for kind in "matrix pmatrix bmatrix Bmatrix smallmatrix array".split())
_DETERMINANTS = frozenset(f"\\begin{{{kind}}}" for kind in ("vmatrix", "Vmatrix"))
_LARGEST_DETERMINANT = 4


def read(expression: Sequence[str]) -> Rows | None:
    """The cells of a matrix, row by row; None when the tokens are no matrix."""
    start = next((at for at, token in enumerate(expression) if token in _ENVIRONMENTS), None)
    if start is None:
        return None
    end = next((at for at, token in enumerate(expression) if token.startswith("\\end")), len(expression))
    before, after = list(expression[:start]), list(expression[end + 1 :])
    if before[-1:] in (["("], ["["], ["\\{"]) and after[:1] in ([")"], ["]"], ["\\}"]):
        before, after = before[:-1], after[1:]
    transposed = "".join(after).replace("{", "").replace("}", "") in ("^T", "^\\top", "^t", "^\\intercal", "^\\mathsfT")
    if (after and not transposed) or "=" in before or "," in before:
        return None
    rows = rows_of(expression[start + 1 : end])
    if transposed:
        if len({len(row) for row in rows}) != 1:
            return None
        rows = [list(column) for column in zip(*rows)]
    return [[("(", *before, ")", "*", "(", *cell, ")") for cell in row] for row in rows] if before else rows


def rows_of(inner: Sequence[str]) -> Rows:
    """The cells between the beginning and the end of an environment."""
    lines = ([token for token in line if token != "\\hline"] for line in tokens.split(tuple(inner), "\\\\"))
    return [[tuple(cell) for cell in tokens.split(tuple(line), "&")] for line in lines if line]


def determinant(expression: Sequence[str]) -> tuple[str, ...] | None:
    """A determinant written out; None when the tokens are none, or a large one."""
    bars = expression[0] == expression[-1] == "|" and expression[1:2] and expression[1] in _ENVIRONMENTS
    inner = expression[1:-1] if bars else expression
    if not bars and (not inner or inner[0] not in _DETERMINANTS):
        return None
    if not inner[-1].startswith("\\end"):
        return None
    rows = rows_of(inner[1:-1])
    square = all(len(row) == len(rows) for row in rows)
    return tuple(_expanded(rows)) if square and 0 < len(rows) <= _LARGEST_DETERMINANT else None


def _expanded(rows: Rows) -> list[str]:
    if len(rows) == 1:
        return ["(", *rows[0][0], ")"]
    total: list[str] = []
    for column, cell in enumerate(rows[0]):
        minor = [row[:column] + row[column + 1 :] for row in rows[1:]]
        total += ["+" if column % 2 == 0 else "-", "(", *cell, ")", "*", "(", *_expanded(minor), ")"]
    return total
