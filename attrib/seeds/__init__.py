"""Seeds for weakly supervised segmentation: from a data set to the files its pipelines read."""

from attrib.datasets.label_png import label_image, read_label_png
from attrib.journal import labels_of
from attrib.seeds.combine import combine
from attrib.seeds.engine import Engine, Local
from attrib.seeds.formats import FORMATS, Format, Naming, Seed
from attrib.seeds.job import SeedReport, make_seeds
from attrib.seeds.labels import affinity_label, label_map, with_saliency
from attrib.seeds.maps import SeedMaps, aggregate, seed_views
from attrib.seeds.on_ray import OnRay
from attrib.seeds.options import SeedOptions
from attrib.seeds.pool import pool_of

__all__ = [
    "FORMATS",
    "Engine",
    "Format",
    "Local",
    "Naming",
    "OnRay",
    "Seed",
    "SeedMaps",
    "SeedOptions",
    "SeedReport",
    "affinity_label",
    "aggregate",
    "combine",
    "label_image",
    "label_map",
    "labels_of",
    "make_seeds",
    "pool_of",
    "read_label_png",
    "seed_views",
    "with_saliency",
]
