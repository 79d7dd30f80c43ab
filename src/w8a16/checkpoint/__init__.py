"""Quantized models on disk: plain safetensors with a manifest in the header. See docs/format.md."""

from w8a16.checkpoint.container.header import Header, TensorInfo, read_header
from w8a16.checkpoint.container.printable import as_resource_error, shown
from w8a16.checkpoint.container.shards import Shards, open_shards
from w8a16.checkpoint.foreign import refuse_quantized
from w8a16.checkpoint.load import load
from w8a16.checkpoint.manifest import (
    METADATA_KEY,
    ORIGINS,
    file_metadata,
    manifest_from_data,
    manifest_to_data,
    read_manifest,
)
from w8a16.checkpoint.opened import Checkpoint, open_checkpoint, understand
from w8a16.checkpoint.records import FORMAT_VERSION, Manifest, ModuleRecord, Source, WeightRecord
from w8a16.checkpoint.save import FILE_NAME, save

__all__ = [
    "FILE_NAME",
    "FORMAT_VERSION",
    "METADATA_KEY",
    "ORIGINS",
    "Checkpoint",
    "Header",
    "Manifest",
    "ModuleRecord",
    "Shards",
    "Source",
    "TensorInfo",
    "WeightRecord",
    "as_resource_error",
    "file_metadata",
    "load",
    "manifest_from_data",
    "manifest_to_data",
    "open_checkpoint",
    "open_shards",
    "read_header",
    "read_manifest",
    "refuse_quantized",
    "save",
    "shown",
    "understand",
]
