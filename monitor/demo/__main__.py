"""`python -m monitor.demo`: what `lbctl demo` runs."""

import sys

from monitor.demo.main import main

sys.exit(main())
