"""What a generated head is worth by itself: against the static head of the very same model.

Fine-tuning and the personalized model differ in encoder and trunk as well. Each event also holds what
the personalized model would have answered with its own static head, so the two can be told apart.
"""

import dataclasses

import pyarrow as pa

from hyperfleet.evaluation.metrics import FleetScore
from hyperfleet.evaluation.rendering import Table
from hyperfleet.evaluation.tables import accuracy_table


def against_own_head(events: pa.Table) -> pa.Table:
    """Return the events with the model's own static answer in the place of Fine-tuning's."""
    place = events.column_names.index("static_answer")
    return events.set_column(place, "static_answer", events["base_answer"])


def attribution_table(score: FleetScore) -> Table:
    """Own static head against generated head; `score` is of events from `against_own_head`."""
    return dataclasses.replace(
        accuracy_table(score),
        name="attribution",
        title="The personalized model with its own static head and with the generated one",
    )
