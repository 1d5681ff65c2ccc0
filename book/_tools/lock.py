"""Run a command while nothing else does so in this checkout; a second one is told who does.

The lock is the open file itself: it goes when the command, and what it started, has ended, however.

usage: lock.py COMMAND ARGUMENT...
"""

import fcntl
import os
import sys
import time
from pathlib import Path

LOCK = Path("_build/.lock")


def main() -> None:
    """Take the lock, say who has it, and become the command."""
    LOCK.parent.mkdir(exist_ok=True)
    file = os.open(LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        who = LOCK.read_text() or "another process"
        sys.exit(f"{who} is building here; wait until it has ended, then run make again")
    os.ftruncate(file, 0)
    os.write(file, f"process {os.getpid()}, since {time.strftime('%H:%M')},".encode())
    os.set_inheritable(file, True)
    os.execvp(sys.argv[1], sys.argv[1:])


if __name__ == "__main__":
    main()
