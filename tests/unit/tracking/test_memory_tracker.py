import pytest

from hyperfleet.errors import ConfigError
from hyperfleet.tracking.base import Tracker
from hyperfleet.tracking.memory import MemoryTracker


def test_a_memory_tracker_holds_what_was_logged(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.txt").write_text("a")
    memory = MemoryTracker()
    tracker: Tracker = memory
    tracker.log_params({"seed": 0})
    tracker.log_metrics({"loss": 1.5}, step=0)
    tracker.log_metrics({"loss": 0.5}, step=4)
    tracker.log_artifacts(tmp_path, "files")
    tracker.finish()
    assert memory.metrics == {"loss": [(0, 1.5), (4, 0.5)]}
    assert memory.artifacts == {"files/sub/a.txt": b"a"}
    assert memory.status == "FINISHED"
    tracker.log_params({"seed": 0})
    with pytest.raises(ConfigError, match="'seed' is 0 already, got 1"):
        tracker.log_params({"seed": 1})
