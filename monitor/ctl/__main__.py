"""`python -m monitor.ctl`: what the command `lbctl` runs."""

import sys

from monitor.ctl.main import main

sys.exit(main())
