"""What the outputs of a model are for, and the end-to-end metrics that go with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from w8a16.errors import UsageError
from w8a16.study.compare.tasks.anything import AnyTask
from w8a16.study.compare.tasks.protocol import Task

TASKS: Mapping[str, Callable[[], Task]] = MappingProxyType({"any": AnyTask})
"""Every task by its name."""


def task_named(name: str) -> Task:
    """A fresh task.

    Raises:
        UsageError: there is no task of this name; the known ones are listed.

    Example:
        >>> task_named("any").name
        'any'
    """
    if name not in TASKS:
        raise UsageError(f"task: expected one of {', '.join(TASKS)}, got {name!r}")
    return TASKS[name]()


__all__ = ["TASKS", "AnyTask", "Task", "task_named"]
