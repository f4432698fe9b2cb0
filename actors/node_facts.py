"""Versions and code of a node, for comparison with the driver."""

import hashlib
import importlib.metadata
import importlib.util
import platform
import socket
from dataclasses import dataclass
from pathlib import Path

# Our packages, and the libraries whose objects cross process borders or whose arithmetic decides results.
OWN_PACKAGES = ("hyperfleet", "actors", "pipelines", "serve_apps")
LIBRARIES = ("ray", "torch", "numpy", "pyarrow", "safetensors", "timm", "transformers", "mlflow")
MISSING = "missing"


@dataclass(frozen=True, kw_only=True, slots=True)
class NodeFacts:
    """Versions and code of one process.

    Attributes:
        host: name of the machine.
        versions: versions of Python and of `LIBRARIES`; `MISSING` if not installed.
        code: digest of our own modules as the process imports them.
    """

    host: str
    versions: dict[str, str]
    code: str

    def differences(self, other: "NodeFacts") -> list[str]:
        """Return the differences of `other` from this, empty if there are none."""
        found = []
        for name, version in self.versions.items():
            theirs = other.versions[name]
            if theirs != version:
                found.append(f"no {name}" if theirs == MISSING else f"{name} {theirs} instead of {version}")
        return found + ["other code of hyperfleet"] * (self.code != other.code)


def node_facts() -> NodeFacts:
    """Return the facts of this process."""
    versions = {"Python": platform.python_version()}
    for name in LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = MISSING
    return NodeFacts(host=socket.gethostname(), versions=versions, code=_code_digest())


def _code_digest() -> str:
    digest = hashlib.sha256()
    for package in OWN_PACKAGES:
        spec = importlib.util.find_spec(package)
        for place in (spec.submodule_search_locations or []) if spec is not None else []:
            root = Path(place)
            for path in sorted(root.rglob("*.py")):
                digest.update(f"{package}/{path.relative_to(root).as_posix()}\0".encode())
                digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
