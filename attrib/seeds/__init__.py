"""Seeds for weakly supervised segmentation: multi-scale maps at the picture's own size."""

from attrib.seeds.maps import SeedMaps, aggregate, seed_views

__all__ = ["SeedMaps", "aggregate", "seed_views"]
