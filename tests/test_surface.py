"""The public surface: what it is, that it is documented, and where.

`python -m tests.test_surface` renews `tests/surface.txt` after an intended change.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import attrib

ROOT = Path(attrib.__file__).parent
DOCS = ROOT.parent / "docs"
FROZEN = Path(__file__).with_name("surface.txt")
INTERNAL = (
    "ahead", "app", "calls", "cli", "cluster", "files", "own_thread", "progress", "randomness",
    "surgery", "transfer",
)  # fmt: skip
RENEW = "if it is meant, run: python -m tests.test_surface, and follow docs/api.md"

Definition = ast.FunctionDef | ast.ClassDef


def modules() -> Iterator[tuple[str, ast.Module]]:
    """Every module of the package by its dotted name, parsed and not imported."""
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT.parent).with_suffix("").parts
        name = ".".join(parts).removesuffix(".__init__")
        yield name, ast.parse(path.read_text(encoding="utf-8"))


def exported(tree: ast.Module) -> list[str]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return list(ast.literal_eval(node.value))
    return []


def definitions(tree: ast.Module | ast.ClassDef) -> dict[str, Definition]:
    return {node.name: node for node in tree.body if isinstance(node, Definition)}


def signature(node: ast.FunctionDef) -> str:
    answer = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    marks = "".join(f"@{ast.unparse(mark)} " for mark in node.decorator_list)
    return f"{marks}{node.name}({ast.unparse(node.args)}){answer}"


def described(node: Definition) -> list[str]:
    """A function's signature, or a class with its fields and public methods."""
    if isinstance(node, ast.FunctionDef):
        return [signature(node)]
    bases = ", ".join(map(ast.unparse, [*node.bases, *(k.value for k in node.keywords)]))
    lines = [f"class {node.name}({bases})"]
    for part in node.body:
        if isinstance(part, ast.AnnAssign) and not ast.unparse(part.target).startswith("_"):
            lines.append(f"    {ast.unparse(part)}")
        if isinstance(part, ast.FunctionDef) and (
            not part.name.startswith("_") or part.name in ("__init__", "__call__")
        ):
            lines.append(f"    {signature(part)}")
    return lines


def surface() -> str:
    """One block per module of the reference: its own names with signatures, others bare."""
    blocks, shown = [], reference()
    for name, tree in modules():
        if name not in shown:
            continue
        own = definitions(tree)
        lines = [
            line
            for public in exported(tree)
            for line in (described(own[public]) if public in own else [public])
        ]
        blocks.append("\n".join([f"[{name}]", *lines]))
    return "\n\n".join(blocks) + "\n"


def test_the_surface_is_the_frozen_one():
    frozen, now = (text.splitlines() for text in (FROZEN.read_text(encoding="utf-8"), surface()))
    gone = [line for line in frozen if line not in now]
    new = [line for line in now if line not in frozen]
    assert (gone, new) == ([], []), f"the public surface has changed; {RENEW}"
    assert frozen == now, f"the public surface is in another order; {RENEW}"


def bound(tree: ast.Module) -> set[str]:
    """Every name that a module has at its upper level."""
    names = set(definitions(tree))
    for node in tree.body:
        match node:
            case ast.Import() | ast.ImportFrom():
                names |= {alias.asname or alias.name for alias in node.names}
            case ast.Assign():
                names |= {
                    n.id for t in node.targets for n in ast.walk(t) if isinstance(n, ast.Name)
                }
            case ast.AnnAssign():
                names.add(ast.unparse(node.target))
    return names


def test_every_module_says_what_is_public_and_has_it():
    for name, tree in modules():
        public = exported(tree)
        assert "__all__" in bound(tree), name
        assert len(public) == len(set(public)), name
        assert set(public) <= bound(tree), name


def undocumented(tree: ast.Module) -> Iterator[str]:
    """Public functions and classes without a docstring, and public methods that override none."""
    own = definitions(tree)
    for public in set(exported(tree)) & set(own):
        node = own[public]
        if not ast.get_docstring(node):
            yield public
        if isinstance(node, ast.ClassDef) and not node.bases:
            for method in definitions(node).values():
                if not method.name.startswith("_") and not ast.get_docstring(method):
                    yield f"{public}.{method.name}"


def test_every_public_name_is_documented():
    missing = {name: found for name, tree in modules() if (found := sorted(undocumented(tree)))}
    assert missing == {}


def reference() -> set[str]:
    """The modules that the reference page shows."""
    page = (DOCS / "reference.md").read_text(encoding="utf-8")
    return set(re.findall(r"^::: (\S+)", page, re.MULTILINE))


def test_the_reference_shows_modules_that_exist():
    assert reference() <= {name for name, _ in modules()}


def test_what_a_room_hands_out_is_in_the_reference():
    """Shown by the room itself or by the module that defines it."""
    shown, trees = reference(), dict(modules())
    hidden = []
    for room in (name for name in trees if name.count(".") == 1):
        if room.removeprefix("attrib.") in INTERNAL:
            continue
        for public in exported(trees[room]):
            homes = [n for n in trees if public in defined(trees[n])]
            if not shown & {room, *homes}:
                hidden.append(f"{room}.{public}, of {' or '.join(homes)}")
    assert hidden == []


def test_the_api_page_names_the_internal_rooms():
    page = (DOCS / "api.md").read_text(encoding="utf-8")
    assert re.findall(r"`attrib\.(\w+)`", page) == list(INTERNAL)


def defined(tree: ast.Module) -> set[str]:
    """The names that a module makes itself."""
    imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    return bound(tree) - bound(ast.Module(body=list(imports), type_ignores=[]))


if __name__ == "__main__":
    FROZEN.write_text(surface(), encoding="utf-8")
