"""`python -m attrib`: the `attrib` command, where it is not on the path."""

from attrib.cli import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
