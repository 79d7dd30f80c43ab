"""What the outputs of a model are for, and the end-to-end metrics that go with it.

language         logits: KL divergence, agreement of the likeliest tokens, perplexity
embedding        vectors: cosine, neighbours in common, recall of text and image pairs
classification   logits: agreement, accuracy with a paired interval
ctc, seq2seq     transcripts: token and word error rates against the float model
image            pictures: PSNR, SSIM
regression       numbers: R2
any              every float output: SQNR, cosine, largest difference
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from w8a16.errors import UsageError
from w8a16.study.compare.tasks.anything import AnyTask
from w8a16.study.compare.tasks.classification import ClassificationTask
from w8a16.study.compare.tasks.embedding import EmbeddingTask
from w8a16.study.compare.tasks.images import ImageTask
from w8a16.study.compare.tasks.language import LanguageTask
from w8a16.study.compare.tasks.protocol import Task
from w8a16.study.compare.tasks.regression import RegressionTask
from w8a16.study.compare.tasks.sequences import CtcTask, Seq2SeqTask

TASKS: Mapping[str, Callable[[], Task]] = MappingProxyType(
    {
        "language": LanguageTask,
        "embedding": EmbeddingTask,
        "classification": ClassificationTask,
        "ctc": CtcTask,
        "seq2seq": Seq2SeqTask,
        "image": ImageTask,
        "regression": RegressionTask,
        "any": AnyTask,
    }
)
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


__all__ = [
    "TASKS",
    "AnyTask",
    "ClassificationTask",
    "CtcTask",
    "EmbeddingTask",
    "ImageTask",
    "LanguageTask",
    "RegressionTask",
    "Seq2SeqTask",
    "Task",
    "task_named",
]
