"""The places of a source file where one small change makes a mutant."""

from __future__ import annotations

import ast
import dataclasses
import re

COMPARISONS = {
    ast.Lt: ("<", "<="),
    ast.LtE: ("<=", "<"),
    ast.Gt: (">", ">="),
    ast.GtE: (">=", ">"),
    ast.Eq: ("==", "!="),
    ast.NotEq: ("!=", "=="),
    ast.Is: ("is", "is not"),
    ast.IsNot: ("is not", "is"),
    ast.In: ("in", "not in"),
    ast.NotIn: ("not in", "in"),
}
ARITHMETIC = {
    ast.Add: ("+", "-"),
    ast.Sub: ("-", "+"),
    ast.Mult: ("*", "/"),
    ast.Div: ("/", "*"),
    ast.FloorDiv: ("//", "*"),
    ast.Mod: ("%", "*"),
    ast.Pow: ("**", "*"),
    ast.BitAnd: ("&", "|"),
    ast.BitOr: ("|", "&"),
    ast.LShift: ("<<", ">>"),
    ast.RShift: (">>", "<<"),
}
LOG = {"debug", "info", "warning", "exception"}
Span = tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Site:
    """One change: bytes start..end of the source become `new`.

    `lines` are those of the changed expression, `statement` those of the statement
    around it (for a compound one, of its head).
    """

    line: int
    operator: str
    start: int
    end: int
    new: str
    lines: Span
    statement: Span

    def apply(self, source: bytes) -> bytes:
        return source[: self.start] + self.new.encode() + source[self.end :]


def sites(source: bytes) -> list[Site]:
    """All sites, in the order of the source."""
    finder = _Finder(source)
    finder.visit(ast.parse(source))
    return sorted(set(finder.found), key=lambda s: (s.start, s.end, s.operator))


def is_other_program(source: bytes, site: Site) -> bool:
    """False where the change cannot be read, or reads the same."""
    try:
        after = ast.parse(site.apply(source))
    except SyntaxError:
        return False
    return ast.dump(after) != ast.dump(ast.parse(source))


class _Finder(ast.NodeVisitor):
    """Walks what runs: no annotations, no aliases of types, no strings."""

    def __init__(self, source: bytes):
        self.source = source
        self.starts = [0]
        for line in source.splitlines(keepends=True):
            self.starts.append(self.starts[-1] + len(line))
        self.found: list[Site] = []
        self.statement: Span = (1, 1)

    def visit(self, node: ast.AST) -> None:
        if isinstance(node, ast.stmt):
            body = getattr(node, "body", None)
            last = max(node.lineno, body[0].lineno - 1) if body else node.end_lineno
            outer, self.statement = self.statement, (node.lineno, last)
            super().visit(node)
            self.statement = outer
        else:
            super().visit(node)

    def _span(self, node: ast.AST) -> Span:
        first, last = self.starts[node.lineno - 1], self.starts[node.end_lineno - 1]
        return first + node.col_offset, last + node.end_col_offset

    def _add(self, operator: str, node: ast.AST, span: Span, new: str) -> None:
        line = self.source.count(b"\n", 0, span[0]) + 1
        lines = (node.lineno, node.end_lineno)
        self.found.append(Site(line, operator, *span, new, lines, self.statement))

    def _swap(self, operator: str, node, left, right, pair: tuple[str, str]) -> None:
        """Changes the token between two operands."""
        start, end = self._span(left)[1], self._span(right)[0]
        between = self.source[start:end].decode()
        token = r"\s+".join(map(re.escape, pair[0].split()))
        if match := re.search(token, between):
            span = (start + match.start(), start + match.end())
            self._add(operator, node, span, pair[1])

    def _negate(self, test: ast.expr) -> None:
        span = self._span(test)
        text = self.source[slice(*span)].decode()
        self._add("condition negated", test, span, f"(not ({text}))")

    # ------------------------------------------------------------- what is left alone

    def visit_JoinedStr(self, node) -> None:
        """Messages; the positions inside are not exact before Python 3.12 either."""

    def visit_arg(self, node) -> None:
        """Its annotation is all there is."""

    def visit_FunctionDef(self, node) -> None:
        if node.name != "__repr__":
            for part in (*node.decorator_list, node.args, *node.body):
                self.visit(part)

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_AnnAssign(self, node) -> None:
        if node.value and "TypeAlias" not in ast.unparse(node.annotation):
            self.visit(node.value)

    def visit_Assign(self, node) -> None:
        names = [target.id for target in node.targets if isinstance(target, ast.Name)]
        alias = any(
            name.strip("_")[:1].isupper() and not name.isupper() for name in names
        )
        if not alias and "__all__" not in names:
            self.generic_visit(node)

    # ------------------------------------------------------------------ what is changed

    def visit_If(self, node) -> None:
        test = ast.unparse(node.test)
        if "TYPE_CHECKING" not in test and "__name__" not in test:
            self._negate(node.test)
            self.generic_visit(node)

    def visit_IfExp(self, node) -> None:
        self._negate(node.test)
        self.generic_visit(node)

    def visit_Compare(self, node) -> None:
        operands = [node.left, *node.comparators]
        for left, op, right in zip(operands, node.ops, operands[1:], strict=False):
            self._swap("comparison", node, left, right, COMPARISONS[type(op)])
        self.generic_visit(node)

    def visit_BoolOp(self, node) -> None:
        pair = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
        for left, right in zip(node.values, node.values[1:], strict=False):
            self._swap("and / or", node, left, right, pair)
        self.generic_visit(node)

    def visit_UnaryOp(self, node) -> None:
        if isinstance(node.op, ast.Not):
            start, end = self._span(node)
            text = self.source[start:end].decode()
            self._add("not dropped", node, (start, end), f"({text[3:].lstrip()})")
        self.generic_visit(node)

    def visit_BinOp(self, node) -> None:
        text = any(_is_text(side) for side in (node.left, node.right))
        if type(node.op) in ARITHMETIC and not text:
            pair = ARITHMETIC[type(node.op)]
            self._swap("arithmetic", node, node.left, node.right, pair)
        self.generic_visit(node)

    def visit_AugAssign(self, node) -> None:
        if type(node.op) in ARITHMETIC and not _is_text(node.value):
            before, after = (f"{token}=" for token in ARITHMETIC[type(node.op)])
            self._swap("arithmetic", node, node.target, node.value, (before, after))
        self.generic_visit(node)

    def visit_Constant(self, node) -> None:
        if isinstance(node.value, bool):
            self._add("True / False", node, self._span(node), str(not node.value))
        elif isinstance(node.value, int):
            self._add("integer + 1", node, self._span(node), str(node.value + 1))

    def visit_Return(self, node) -> None:
        if node.value and not _is_none(node.value):
            self._add("returns None", node, self._span(node), "return None")
        self.generic_visit(node)

    def visit_Expr(self, node) -> None:
        if isinstance(node.value, ast.Call):
            if _name(node.value) in LOG:
                return
            self._add("call removed", node, self._span(node), "pass")
        self.generic_visit(node)

    def visit_Call(self, node) -> None:
        """`zip(strict=)` and `dataclass(frozen=)` only guard against mistakes."""
        if _name(node) not in ("zip", "dataclass"):
            self.generic_visit(node)
        else:
            for part in node.args:
                self.visit(part)


def _name(call: ast.Call) -> str:
    return ast.unparse(call.func).rsplit(".", 1)[-1]


def _is_none(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _is_text(node: ast.AST) -> bool:
    constant = isinstance(node, ast.Constant) and isinstance(node.value, (str, bytes))
    return constant or isinstance(node, ast.JoinedStr)


def describe(source: bytes, site: Site) -> tuple[str, str]:
    """The lines of the change before and after it."""

    def around(text: bytes, end: int) -> str:
        first = text.rfind(b"\n", 0, site.start) + 1
        last = text.find(b"\n", end)
        return text[first : last if last >= 0 else None].decode().strip()

    after = site.apply(source)
    return around(source, site.end), around(after, site.start + len(site.new.encode()))
