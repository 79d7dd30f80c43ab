"""8-bit weights for any PyTorch model: int8 codes, one float32 scale per output channel.

model = w8a16.quantize(model)       # in place; every weight has a verdict: w8a16.plan(model)
w8a16.save(model, "model-int8")     # plain safetensors
"""

from w8a16.checkpoint import load, save
from w8a16.convert import Plan, Recipe, dequantize, plan, quantize
from w8a16.errors import W8A16Error
from w8a16.integrations.pretrained import from_pretrained
from w8a16.kernels import w8_a16_forward
from w8a16.layers import W8A16LinearLayer
from w8a16.study.compare import compare

__version__ = "0.1.0"

__all__ = [
    "Plan",
    "Recipe",
    "W8A16Error",
    "W8A16LinearLayer",
    "compare",
    "dequantize",
    "from_pretrained",
    "load",
    "plan",
    "quantize",
    "save",
    "w8_a16_forward",
]
