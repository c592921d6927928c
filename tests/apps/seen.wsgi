"""The application `seen` in mod_wsgi itself."""

import os
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(__file__))

from seen import application  # noqa: E402, F401
