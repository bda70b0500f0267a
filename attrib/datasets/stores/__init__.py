"""Where files lie: in a folder, in tar shards, in Parquet files; on this machine or at a URL."""

from attrib.datasets.stores.folders import LocalFolder, RemoteFile, RemoteFolder
from attrib.datasets.stores.parquet import ParquetCell, ParquetFiles
from attrib.datasets.stores.store import Store, open_store
from attrib.datasets.stores.tar import TarMember, TarShards

__all__ = [
    "LocalFolder",
    "ParquetCell",
    "ParquetFiles",
    "RemoteFile",
    "RemoteFolder",
    "Store",
    "TarMember",
    "TarShards",
    "open_store",
]
