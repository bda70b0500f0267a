"""The figures about the sources mean what they say, and the page that shows them is not stale."""

import re
from pathlib import Path

import pytest

from benchmarks.style import long_ones, measured, sources

ROOT = Path(__file__).parents[1]
TWICE = "".join(f"    x += {i}\n" for i in range(8))
FILE = f'''"""Three lines

that are no code."""
import abc

# a comment


class Base(abc.ABC):
    """One line."""


class Middle(Base):
    def method(self, given: int, other, *rest: str):
        """One more."""
        text = """no
        docstring"""  # nor a comment of its own
        return text


def first(x):
{TWICE}    return x


def second(x: int):
{TWICE}    return -x
'''


@pytest.fixture
def package(tmp_path):
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "one.py").write_text(FILE)
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_one.py").write_text("assert 1\n" * 14)
    return tmp_path


def test_figures(package):
    figures = measured(package / "own", package / "tests")
    assert figures[""] == "own"
    assert figures["code lines"] == "27"  # import, 2 classes, a method of 4, 2 functions of 10
    assert figures["function length, median / p90"].startswith("10 / ")
    assert figures["longest function"] == "10"
    assert figures["functions > 50 lines"] == figures["files > 300 lines"] == "0"
    assert figures["arguments typed"] == "60 %"  # 3 of 5
    assert figures["duplicated lines"] == "59 %"  # 16 of 27
    assert figures["depth of inheritance"] == "2"
    assert figures["test/code"] == "0.52"
    assert figures["docstrings"] == "12 %"  # 4 of 32
    assert figures["comments"] == "3 %"


def test_what_is_long_is_named(package):
    body = "".join(f"    x += {i}\n" for i in range(50))
    (package / "own" / "long.py").write_text(f"def much(x):\n{body}" + "\n" * 250)
    assert [line.split("/")[-1] for line in long_ones(package / "own")] == [
        "long.py: 301 lines",
        "long.py: much has 51 lines",
    ]


def test_the_row_of_the_architecture_page_is_not_stale():
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"^\| \*\*attrib\*\* \| ([\d,]+) \|", page, re.MULTILINE)
    shown, now = int(shown.replace(",", "")), sum(len(f.code) for f in sources(ROOT / "attrib"))
    assert abs(now - shown) < 0.1 * shown, "measure again: python benchmarks/style.py"
