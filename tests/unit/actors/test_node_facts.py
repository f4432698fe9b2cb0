import dataclasses

import ray

from actors.node_facts import LIBRARIES, node_facts


def test_a_process_finds_its_own_versions_and_the_same_code_twice():
    facts = node_facts()
    assert facts == node_facts()
    assert facts.versions["ray"] == ray.__version__
    assert set(facts.versions) == {"Python", *LIBRARIES}
    assert facts.differences(facts) == []


def test_what_differs_is_named_with_both_versions():
    here = node_facts()
    other = dataclasses.replace(here, versions={**here.versions, "torch": "missing"}, code="0" * 16)
    torch_here = here.versions["torch"]
    assert here.differences(other) == [f"torch missing instead of {torch_here}", "other code of hyperfleet"]
