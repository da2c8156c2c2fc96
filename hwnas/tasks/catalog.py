"""The tasks by name."""

from __future__ import annotations

from hwnas.errors import UnknownName
from hwnas.tasks.base import Task
from hwnas.tasks.classification import CLASSIFICATION
from hwnas.tasks.labels import MULTI_LABEL

TASKS: dict[str, Task] = {task.name: task for task in (CLASSIFICATION, MULTI_LABEL)}


def task_of(name: str) -> Task:
    """The task of that name (`hwnas.data.Data.task`).

    Raises:
        UnknownName: there is none.
    """
    if name not in TASKS:
        raise UnknownName("task", name, TASKS)
    return TASKS[name]
