"""Measure the build of a Python package: a row of the table in docs/architecture.md.

python benchmarks/style.py [attrib] [--tests tests]

Code lines hold code: blank lines, comments and docstrings are none. A function's length is its code
lines, with those of its arguments. A duplicated line lies in a run of at least eight code lines,
alike but for their indentation, that the package has more than once. Depth counts the package's own
classes in the longest line of inheritance. Docstrings and comments are shares of the lines that are
not blank.
"""

import argparse
import ast
import io
import tokenize
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import median, quantiles

RUN = 8
LONG_FUNCTION, LONG_FILE = 50, 300
LAYOUT = (tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)

Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, kw_only=True)
class Source:
    """A file."""

    path: Path
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @cached_property
    def tokens(self) -> list[tokenize.TokenInfo]:
        return list(tokenize.generate_tokens(io.StringIO(self.text).readline))

    @cached_property
    def lines(self) -> list[str]:
        return self.text.splitlines()

    @cached_property
    def docstrings(self) -> set[int]:
        """Numbers of the lines that docstrings lie on."""
        found: set[int] = set()
        for node in ast.walk(self.tree):
            if isinstance(node, Documented) and ast.get_docstring(node, clean=False) is not None:
                found |= span(node.body[0])
        return found

    @cached_property
    def comments(self) -> set[int]:
        """Numbers of the lines that hold a comment and nothing else."""
        return self._lines_of({tokenize.COMMENT}) - self.code

    @cached_property
    def code(self) -> set[int]:
        """Numbers of the lines that hold code."""
        others = set(tokenize.tok_name) - {*LAYOUT, tokenize.COMMENT}
        return self._lines_of(others) - self.docstrings

    def _lines_of(self, kinds: set[int]) -> set[int]:
        return {n for t in self.tokens if t.type in kinds for n in range(t.start[0], t.end[0] + 1)}

    def written(self, numbers: Iterable[int]) -> int:
        """Count the lines among these that are not blank."""
        return sum(bool(self.lines[n - 1].strip()) for n in numbers)

    def functions(self) -> Iterator[tuple[Function, int]]:
        """Yield every function with its length."""
        for node in ast.walk(self.tree):
            if isinstance(node, Function):
                yield node, len(span(node) & self.code)


def span(node: ast.stmt) -> set[int]:
    return set(range(node.lineno, (node.end_lineno or node.lineno) + 1))


def sources(folder: Path) -> list[Source]:
    paths = sorted(folder.rglob("*.py"))
    return [Source(path=path, text=path.read_text(encoding="utf-8")) for path in paths]


def typed(function: Function) -> Iterator[bool]:
    """Say of every argument but self and cls whether it has a type."""
    given = function.args
    named = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
    for argument in named:
        if argument is not None and argument.arg not in ("self", "cls"):
            yield argument.annotation is not None


def duplicated(files: Sequence[Source]) -> int:
    """Count the code lines that the files say more than once."""
    texts = [[f.lines[n - 1].strip() for n in sorted(f.code)] for f in files]
    seen = Counter(run for lines in texts for run in runs(lines))
    count = 0
    for lines in texts:
        again = [i for i, run in enumerate(runs(lines)) if seen[run] > 1]
        count += len({i + k for i in again for k in range(RUN)})
    return count


def runs(lines: Sequence[str]) -> Iterator[tuple[str, ...]]:
    return (tuple(lines[i : i + RUN]) for i in range(len(lines) - RUN + 1))


def depth(files: Sequence[Source]) -> int:
    """Count the classes in the longest line of inheritance, by their bare names."""
    bases: dict[str, set[str]] = {}
    for node in (n for f in files for n in ast.walk(f.tree) if isinstance(n, ast.ClassDef)):
        own = {ast.unparse(b).split("[")[0].rsplit(".", 1)[-1] for b in node.bases}
        bases.setdefault(node.name, set()).update(own - {node.name})

    def height(name: str) -> int:
        return 1 + max((height(base) for base in bases[name] if base in bases), default=0)

    return max(map(height, bases), default=0)


def measured(folder: Path, tests: Path) -> dict[str, str]:
    files = sources(folder)
    code = sum(len(f.code) for f in files)
    functions = [pair for f in files for pair in f.functions()]
    lengths = [length for _, length in functions]
    types = [given for function, _ in functions for given in typed(function)]
    written = sum(f.written(range(1, len(f.lines) + 1)) for f in files)
    checks = sum(len(f.code) for f in sources(tests))
    middle, tail = median(lengths), quantiles(lengths, n=10)[-1]
    return {
        "": folder.resolve().name,
        "code lines": f"{code:,}",
        "function length, median / p90": f"{middle:.0f} / {tail:.0f}",
        f"functions > {LONG_FUNCTION} lines": str(sum(n > LONG_FUNCTION for n in lengths)),
        "arguments typed": share(sum(types), len(types)),
        "duplicated lines": share(duplicated(files), code),
        "depth of inheritance": str(depth(files)),
        "test/code": f"{checks / code:.2f}" if checks else "–",
        "longest function": str(max(lengths)),
        f"files > {LONG_FILE} lines": str(sum(len(f.lines) > LONG_FILE for f in files)),
        "docstrings": share(sum(f.written(f.docstrings) for f in files), written),
        "comments": share(sum(f.written(f.comments) for f in files), written),
    }


def long_ones(folder: Path) -> Iterator[str]:
    """Name what is longer than wanted."""
    for f in sources(folder):
        if len(f.lines) > LONG_FILE:
            yield f"{f.path}: {len(f.lines)} lines"
        for function, length in f.functions():
            if length > LONG_FUNCTION:
                yield f"{f.path}: {function.name} has {length} lines"


def share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.0f} %"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("package", type=Path, nargs="?", default=Path("attrib"))
    parser.add_argument("--tests", type=Path, default=Path("tests"))
    arguments = parser.parse_args()
    row = measured(arguments.package, arguments.tests)
    for cells in (row, ["---"] * len(row), row.values()):
        print("| " + " | ".join(cells) + " |")
    print(*long_ones(arguments.package), sep="\n")


if __name__ == "__main__":
    main()
