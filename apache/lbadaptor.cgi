#!/usr/bin/env python3
"""The script that mod_cgid or mod_cgi runs. It finds the packages that were installed together with it: this file is
PREFIX/share/lbadaptor/lbadaptor.cgi, and they are in PREFIX/lib/pythonX.Y/site-packages.
"""

import os
import site
import sys

prefix = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
site.addsitedir(os.path.join(prefix, "lib", "python%d.%d" % sys.version_info[:2], "site-packages"))

from lbadaptor.adaptor.cgi import main  # noqa: E402

main()
