"""Tasks: what is asked of a model, how it is scored and which loss trains it. One file a task."""

from hyperfleet.tasks.open_ended_qa import OPEN_ENDED_QA as OPEN_ENDED_QA

TASKS = {OPEN_ENDED_QA: "open-ended video question answering"}
