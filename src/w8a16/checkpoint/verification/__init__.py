"""Is a quantized checkpoint what it says, and what it was made from? Streaming, on all cores."""

from w8a16.checkpoint.verification.pairing import Original
from w8a16.checkpoint.verification.report import Finding, Report
from w8a16.checkpoint.verification.verify import verify_checkpoint

__all__ = ["Finding", "Original", "Report", "verify_checkpoint"]
