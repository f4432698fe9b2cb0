"""Names of the tasks in the command line, in tables and in the files of a run."""

OPEN_ENDED_QA = "open-ended-qa"
MULTIPLE_CHOICE = "multiple-choice"
RETRIEVAL = "retrieval"

TASK_NAMES = (OPEN_ENDED_QA, MULTIPLE_CHOICE, RETRIEVAL)
