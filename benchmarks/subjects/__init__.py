"""What is measured: a module per subject, with `TITLE`, `ABOUT` and `tables(effort)`."""

SUBJECTS = (
    "maps",
    "explain",
    "serving",
    "localisation",
    "wsol",
    "seeds",
    "rib",
    "captum",
    "start",
    "memory",
    "growth",
)
"""In the order of the page."""

ON_DEVICE = ("maps", "explain", "localisation")
"""What can also run on a GPU."""
