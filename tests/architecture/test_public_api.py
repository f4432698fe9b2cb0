"""Names offered by `import hyperfleet`, imported on first use."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import hyperfleet

ROOT = Path(__file__).parents[2]


def run_python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = [{str(ROOT / 'platform')!r}]\n{code}"],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_it_imports_nothing_else() -> None:
    code = """
before = set(sys.modules)
import hyperfleet
assert set(hyperfleet.__all__) <= set(dir(hyperfleet))
print(*sorted({name.split(".")[0] for name in set(sys.modules) - before} - sys.stdlib_module_names))
"""
    assert run_python(code).split() == ["hyperfleet", "lazy_loader"]


def test_every_public_name_resolves_to_what_is_called_so() -> None:
    code = """
import hyperfleet, json
from hyperfleet import *
values = {name: getattr(hyperfleet, name) for name in hyperfleet.__all__}
assert all(globals()[name] is value for name, value in values.items())
print(json.dumps({name: getattr(value, "__name__", None) for name, value in values.items()}))
"""
    names = json.loads(run_python(code))
    constants = {name for name in names if name.isupper()}
    assert constants == {"SCENARIOS", "POLICIES", "PHONE", "OLD_PHONE", "CAMERA", "PATIENT"}
    assert {name: names[name] for name in names if name not in constants} == {
        name: name for name in names if name not in constants
    }


def test_other_names_are_refused_and_submodules_found() -> None:
    with pytest.raises(AttributeError, match="Scenaro"):
        hyperfleet.Scenaro  # noqa: B018
    assert run_python("from hyperfleet import errors\nprint(errors.__name__)").split() == [
        "hyperfleet.errors"
    ]


def test_the_function_scenario_and_the_package_of_that_name_live_together() -> None:
    code = """
from hyperfleet.scenario.policies import EveryN
import hyperfleet.scenario.named
from hyperfleet import scenario
assert scenario("drift").name == hyperfleet.scenario("drift").name == "drift"
print(EveryN.__module__)
"""
    assert run_python(code).split() == ["hyperfleet.scenario.policies"]
