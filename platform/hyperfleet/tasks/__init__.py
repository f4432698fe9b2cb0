"""Tasks of a model, each with its inputs, measures and training loss: one file per task."""

from hyperfleet.datasets.task_names import MULTIPLE_CHOICE as MULTIPLE_CHOICE
from hyperfleet.datasets.task_names import OPEN_ENDED_QA as OPEN_ENDED_QA
from hyperfleet.datasets.task_names import RETRIEVAL as RETRIEVAL
from hyperfleet.errors import unknown_name
from hyperfleet.tasks.base import Task as Task
from hyperfleet.tasks.multiple_choice import MultipleChoice as MultipleChoice
from hyperfleet.tasks.open_ended_qa import OpenEndedQA as OpenEndedQA
from hyperfleet.tasks.retrieval import Retrieval as Retrieval

TASKS: dict[str, Task] = {
    OPEN_ENDED_QA: OpenEndedQA(),
    MULTIPLE_CHOICE: MultipleChoice(),
    RETRIEVAL: Retrieval(),
}


def task(name: str) -> Task:
    """Return the task called `name`.

    Raises:
        UnknownNameError: there is none; the message lists those that exist.
    """
    if name not in TASKS:
        raise unknown_name("task", name, TASKS)
    return TASKS[name]
