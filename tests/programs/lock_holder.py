"""Holds a lock on a folder until its input ends. Any Python runs it, by any user."""

import fcntl
import os
import sys

if __name__ == "__main__":
    handle = os.open(sys.argv[1], os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    print("held", flush=True)
    sys.stdin.read()
