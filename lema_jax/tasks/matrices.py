r"""Matrices and column vectors in answers.

Reads `pmatrix`, `bmatrix` and the like, an `array` in brackets, a factor before it, a transpose. A determinant
(`vmatrix`, or an `array` between bars) is an expression: `determinant` expands it.
"""

from collections.abc import Sequence

from lema_jax.tasks import tokens

Cells = list[list[tuple[str, ...]]]  # row by row

_KINDS = tokens.names("matrix pmatrix bmatrix Bmatrix smallmatrix array")
_ENVIRONMENTS = frozenset(f"\\begin{{{kind}}}" for kind in _KINDS)
_DETERMINANTS = frozenset(f"\\begin{{{kind}}}" for kind in ("vmatrix", "Vmatrix"))
_LARGEST_DETERMINANT = 4


def read(expression: Sequence[str]) -> Cells | None:
    """The cells of a matrix, or of a sum of multiples of matrices, row by row; None if the tokens are no matrix."""
    if _ENVIRONMENTS.isdisjoint(expression):
        return None
    terms: list[Sequence[str]] = []
    signs: list[str] = []
    for term in tokens.split(expression, "+"):
        for at, part in enumerate(tokens.split(term, "-")):
            if part or terms or at:  # a sign may come first
                terms.append(part)
                signs.append("-" if at else "+")
    if terms and not terms[0]:
        terms, signs = terms[1:], signs[1:]
    found = [_term(term) for term in terms]
    matrices = [rows for rows in found if rows is not None]
    if len(matrices) < len(found) or len({tuple(map(len, rows)) for rows in matrices}) > 1:
        return None
    if signs == ["+"]:
        return matrices[0]
    return [
        [tuple(t for sign, cell in zip(signs, cells) for t in (sign, "(", *cell, ")")) for cells in zip(*rows)]
        for rows in zip(*matrices)
    ]


def _term(expression: Sequence[str]) -> Cells | None:
    """The cells of one matrix times its factor, or of its transpose."""
    start = next((at for at, token in enumerate(expression) if token in _ENVIRONMENTS), None)
    if start is None:
        return None
    end = next((at for at, token in enumerate(expression) if token.startswith("\\end")), len(expression))
    before, after = list(expression[:start]), list(expression[end + 1 :])
    if before[-1:] in (["("], ["["], ["\\{"]) and after[:1] in ([")"], ["]"], ["\\}"]):
        before, after = before[:-1], after[1:]
    transposed = "".join(after).replace("{", "").replace("}", "") in ("^T", "^\\top", "^t", "^\\intercal")
    behind = [] if transposed else after
    if not {"=", ",", "^"}.isdisjoint((*before, *behind[:1])) or not _ENVIRONMENTS.isdisjoint(behind):
        return None
    rows = rows_of(expression[start + 1 : end])
    if transposed and len({len(row) for row in rows}) == 1:
        rows = [list(column) for column in zip(*rows)]
    elif transposed:
        return None
    factor = [t for part in (before, behind) if part for t in ("(", *part, ")", "*")]
    return [[(*factor, "(", *cell, ")") for cell in row] for row in rows] if factor else rows


def rows_of(inner: Sequence[str]) -> Cells:
    """The cells between the beginning and the end of an environment."""
    lines = ([token for token in line if token != "\\hline"] for line in tokens.split(tuple(inner), "\\\\"))
    return [[tuple(cell) for cell in tokens.split(tuple(line), "&")] for line in lines if line]


def determinant(expression: Sequence[str]) -> tuple[str, ...] | None:
    """The expansion of a determinant; None if the tokens are none, or it is larger than 4 × 4."""
    bars = expression[0] == expression[-1] == "|" and expression[1:2] and expression[1] in _ENVIRONMENTS
    inner = expression[1:-1] if bars else expression
    if not bars and (not inner or inner[0] not in _DETERMINANTS):
        return None
    if not inner[-1].startswith("\\end"):
        return None
    rows = rows_of(inner[1:-1])
    square = all(len(row) == len(rows) for row in rows)
    return tuple(_expanded(rows)) if square and 0 < len(rows) <= _LARGEST_DETERMINANT else None


def _expanded(rows: Cells) -> list[str]:
    if len(rows) == 1:
        return ["(", *rows[0][0], ")"]
    total: list[str] = []
    for column, cell in enumerate(rows[0]):
        minor = [row[:column] + row[column + 1 :] for row in rows[1:]]
        total += ["+" if column % 2 == 0 else "-", "(", *cell, ")", "*", "(", *_expanded(minor), ")"]
    return total
