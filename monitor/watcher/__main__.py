"""`python -m monitor.watcher DESCRIPTOR`: the arbiter starts it."""

import sys

from monitor.watcher.main import main

main(sys.argv[1:])
