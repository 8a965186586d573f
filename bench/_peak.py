"""``python -IS _peak.py COMMAND…``: run it without its output; print its peak resident memory in KiB and its exit code.

A small process of its own: a child's peak begins with what its parent had when it began the child.
"""

import os
import sys

nowhere = os.open(os.devnull, os.O_WRONLY)
quiet = [(os.POSIX_SPAWN_DUP2, nowhere, number) for number in (1, 2)]
child = os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ, file_actions=quiet)
_, status, usage = os.wait4(child, 0)
print(usage.ru_maxrss, os.waitstatus_to_exitcode(status))
