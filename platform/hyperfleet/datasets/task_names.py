"""Names of the tasks, as the command line, the tables and the files of a run spell them."""

OPEN_ENDED_QA = "open-ended-qa"
MULTIPLE_CHOICE = "multiple-choice"
RETRIEVAL = "retrieval"

TASK_NAMES = (OPEN_ENDED_QA, MULTIPLE_CHOICE, RETRIEVAL)
