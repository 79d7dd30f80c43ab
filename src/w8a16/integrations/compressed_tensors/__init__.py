"""compressed-tensors: int8 folders that transformers, vLLM and SGLang read without this library."""

from w8a16.integrations.compressed_tensors.choose import Choice
from w8a16.integrations.compressed_tensors.layout import pack_rows, unpack_rows
from w8a16.integrations.compressed_tensors.plan import ExportPlan, plan_export
from w8a16.integrations.compressed_tensors.scales import ScaleRounding, scale_rounding
from w8a16.integrations.compressed_tensors.write import export, output_bytes, write_export

__all__ = [
    "Choice",
    "ExportPlan",
    "ScaleRounding",
    "export",
    "output_bytes",
    "pack_rows",
    "plan_export",
    "scale_rounding",
    "unpack_rows",
    "write_export",
]
