"""A visit counter in Webware for Python 3: what its own WSGIScript.py does, with the folder webware_work beside it.

The configuration is webware_work/Configs/Application.config.
"""

from __future__ import annotations

import os
import sys

import webware

_work = os.path.join(os.path.dirname(os.path.abspath(__file__)), "webware_work")
os.chdir(_work)
sys.path.insert(0, _work)
webware.addToSearchPath()

from Application import Application  # noqa: E402

application = Application(_work, settings={})
