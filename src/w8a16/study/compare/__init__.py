"""The int8 model beside the float model on the same inputs: how far apart, and through which modules."""

from w8a16.study.compare.result import Blame, Comparison, ModuleDrift, TensorDrift

__all__ = ["Blame", "Comparison", "ModuleDrift", "TensorDrift"]
