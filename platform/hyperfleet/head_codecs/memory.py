"""How processes that handle many heads should get their memory."""

from collections.abc import Mapping
from types import MappingProxyType

# glibc gives allocations above 32 MiB (57 heads of 1,501 answers) and what it can trim back to the kernel and
# faults the pages in again, which costs generators and clients that read heads more than the work itself.
# Read when a process starts.
KEEP_MEMORY: Mapping[str, str] = MappingProxyType(
    {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "8589934592"}
)
