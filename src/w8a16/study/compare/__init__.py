"""The int8 model beside the float model on the same inputs: how far apart, and through which modules."""

from w8a16.study.compare.comparing import compare
from w8a16.study.compare.float_mode import WeightSource, float_mode
from w8a16.study.compare.result import Blame, Comparison, ModuleDrift, TensorDrift
from w8a16.study.compare.tasks import TASKS, Task, task_named

__all__ = [
    "TASKS",
    "Blame",
    "Comparison",
    "ModuleDrift",
    "Task",
    "TensorDrift",
    "WeightSource",
    "compare",
    "float_mode",
    "task_named",
]
