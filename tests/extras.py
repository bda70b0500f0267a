"""Packages of extras that some tests need."""

import os
from importlib.util import find_spec

REQUIRED = os.environ.get("ATTRIB_EXTRAS") == "required"
"""As in `make test`, which installs them: a test then fails without them and is not skipped."""


def missing(*packages: str) -> str:
    """Say without which packages a test is to be skipped; empty if it is to run."""
    gone = [] if REQUIRED else [name for name in packages if find_spec(name) is None]
    return f"needs {', '.join(gone)}" if gone else ""
