import socket
from pathlib import Path

import pytest
from rich.console import Console

from pipelines import doctor as module
from pipelines.doctor import DoctorConfig, Finding, doctor, examine


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.chdir(tmp_path)
    for name in ("RAY_ADDRESS", "HYPERFLEET_STORAGE", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(module.resource, "getrlimit", lambda _: (65536, 65536))
    monkeypatch.setattr(module, "MIN_FREE_BYTES", 1)
    return monkeypatch


def findings(**config: object) -> dict[str, Finding]:
    return {finding.name: finding for finding in examine(DoctorConfig(**config))}  # type: ignore[arg-type]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_nothing_prevents_a_run_on_a_healthy_machine(here):
    console = Console(record=True, width=200)
    assert doctor(DoctorConfig(http_port=free_port()), console)
    printed = console.export_text()
    assert "0 prevent a run" in printed
    assert "the first run creates it" in printed  # a store that is missing so far is no fault


def test_each_fault_is_found_with_its_remedy(here, tmp_path):
    here.setattr(module.resource, "getrlimit", lambda _: (1024, 65536))
    here.setattr(module, "MIN_FREE_BYTES", 1 << 60)
    here.setattr(
        module.importlib.metadata, "requires", lambda _: ["numpy<1", "no-such-library", 'x; extra == "dev"']
    )
    here.setenv("HYPERFLEET_STORAGE", str(tmp_path / "not-mounted"))
    found = findings(tracking_uri="http://127.0.0.1:9")
    bad = {name: finding for name, finding in found.items() if finding.status == "bad"}
    assert {"open files", "disk", "libraries", "tracking store", "storage"} <= set(bad)
    assert all(finding.remedy for finding in bad.values())
    assert "1,024" in bad["open files"].found
    assert "ulimit -n 65536" in bad["open files"].remedy
    assert "no-such-library is missing" in bad["libraries"].found
    assert "is not <1" in bad["libraries"].found
    assert "not-mounted" in bad["storage"].found
    assert "no tracking server answers" in bad["tracking store"].found


def test_a_port_in_use_and_a_broken_store_are_found(here, tmp_path):
    (tmp_path / "mlflow.db").write_bytes(b"no database")
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        found = findings(http_port=server.getsockname()[1])
    assert found["HTTP port"].status == "note"
    assert "is in use" in found["HTTP port"].found
    assert found["tracking store"].status == "bad"
    assert "cannot be opened" in found["tracking store"].found


def test_a_missing_cluster_prevents_a_run(here):
    here.setenv("RAY_ADDRESS", "127.0.0.1:9")
    finding = findings()["cluster"]
    assert finding.status == "bad"
    assert "unset RAY_ADDRESS" in finding.found
