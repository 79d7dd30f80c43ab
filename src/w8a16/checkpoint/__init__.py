"""Quantized models on disk: plain safetensors with a manifest in the header. See docs/format.md."""

from w8a16.checkpoint.header import Header, TensorInfo, as_resource_error, read_header, shown
from w8a16.checkpoint.load import checkpoint_file, load, open_checkpoint
from w8a16.checkpoint.manifest import FORMAT_VERSION, METADATA_KEY, Manifest, ModuleRecord, read_manifest
from w8a16.checkpoint.save import FILE_NAME, save
from w8a16.checkpoint.shards import Shards, open_shards

__all__ = [
    "FILE_NAME",
    "FORMAT_VERSION",
    "METADATA_KEY",
    "Header",
    "Manifest",
    "ModuleRecord",
    "Shards",
    "TensorInfo",
    "as_resource_error",
    "checkpoint_file",
    "load",
    "open_checkpoint",
    "open_shards",
    "read_header",
    "read_manifest",
    "save",
    "shown",
]
