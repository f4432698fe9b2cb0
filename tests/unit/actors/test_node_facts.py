import dataclasses

import ray

from actors.node_facts import LIBRARIES, MISSING, node_facts


def test_a_process_finds_its_own_versions_and_the_same_code_twice():
    facts = node_facts()
    assert facts == node_facts()
    assert facts.versions["ray"] == ray.__version__
    assert set(facts.versions) == {"Python", *LIBRARIES}
    assert facts.differences(facts) == []


def test_what_differs_is_named_with_both_versions():
    here = node_facts()
    other = dataclasses.replace(
        here, versions={**here.versions, "torch": "0.4", "mlflow": MISSING}, code="0" * 16
    )
    torch_here = here.versions["torch"]
    assert here.differences(other) == [
        f"torch 0.4 instead of {torch_here}",
        "no mlflow",
        "other code of hyperfleet",
    ]
