"""Our service on its own Ray cluster, with the flags of this process's environment."""

import contextlib
import os
import sys

from head_server import MAX_BATCH, PORT

import serve_apps
from pipelines.runtime import connect, disconnect

START_TIMEOUT_S = 600.0

if __name__ == "__main__":
    connect(num_cpus=2)
    try:
        args = serve_apps.GeneratorArgs(model=f"peer={os.environ['PEER_BUNDLE']}", max_batch_size=MAX_BATCH)
        serve_apps.start(args, port=PORT, timeout_s=START_TIMEOUT_S)
        with contextlib.suppress(KeyboardInterrupt):
            # Runs until the parent process closes the pipe.
            sys.stdin.read()
    finally:
        disconnect()
