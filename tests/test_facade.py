"""The public face, the order of the rooms, the cost of importing."""

import ast
import subprocess
import sys
from pathlib import Path

import attrib

ROOT = Path(attrib.__file__).parent
ROOMS = (
    "errors files ahead progress journal cluster transfer types registry own_thread randomness "
    "surgery calls images models localize bottleneck information methods metrics datasets targets "
    "report explanation export explain compare seeds evaluate fit app cli"
).split()


def room(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """Rooms that a module imports from, also inside functions and under TYPE_CHECKING."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("attrib."):
            found.add(node.module.split(".")[1])
    return found


def test_a_module_imports_only_from_rooms_above_it():
    for path in ROOT.rglob("*.py"):
        own = room(path)
        if own in ("__init__", "__main__"):
            continue
        assert own in ROOMS, f"{own} has no place in the architecture"
        for other in imported(path) - {own}:
            assert ROOMS.index(other) < ROOMS.index(own), f"{path.name} imports from {other}"


def test_the_architecture_page_names_every_room_in_order():
    page = (ROOT.parent / "docs" / "architecture.md").read_text(encoding="utf-8")
    listing = page[page.index("## Rooms") :]
    places = [listing.index(f"\n  {name}") for name in ROOMS]
    assert places == sorted(places)


def test_the_facade_is_what_it_says():
    public = {n for n in vars(attrib) if not n.startswith("_")}
    submodules = {p.stem for p in ROOT.glob("*.py")} | {p.name for p in ROOT.iterdir()}
    assert public - submodules - set(attrib.__all__) <= {"jaxtyping"}  # the test run's import hook
    assert sorted(attrib.__all__, key=lambda n: (not n.isupper(), n.islower(), n)) == list(
        attrib.__all__
    )
    for name in attrib.__all__:
        assert getattr(attrib, name).__doc__, name


def test_only_surgery_hooks_and_re_modes():
    for path in ROOT.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        if room(path) in ("own_thread", "surgery"):
            continue
        for word in ("register_forward", "register_full", ".train(True", ".training = "):
            assert word not in text, f"{path} uses {word}"


def test_importing_loads_none_of_the_heavy_libraries():
    code = "import sys, attrib; print(*[m for m in sys.modules if '.' not in m])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    heavy = {"timm", "torchvision", "captum", "matplotlib", "cv2", "skimage", "typer"}
    assert "torch" in loaded
    assert not loaded & heavy


def test_every_public_function_is_documented():
    for path in ROOT.rglob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                assert ast.get_docstring(node), f"{path.name}: {node.name}"
