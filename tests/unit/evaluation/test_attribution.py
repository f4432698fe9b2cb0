import pyarrow as pa

from hyperfleet.evaluation.attribution import against_own_head


def test_the_own_static_answer_takes_the_place_of_fine_tunings_and_nothing_else_changes():
    events = pa.table({"answer": [1, 2], "static_answer": [3, 4], "base_answer": [5, 6]})
    assert against_own_head(events).to_pydict() == {
        "answer": [1, 2],
        "static_answer": [5, 6],
        "base_answer": [5, 6],
    }
