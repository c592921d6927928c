"""The script that mod_wsgi loads. It finds the packages that were installed together with it: this file is
PREFIX/share/lbadaptor/lbadaptor.wsgi, and they are in PREFIX/lib/pythonX.Y/site-packages.
"""

import os
import site
import sys

prefix = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
site.addsitedir(os.path.join(prefix, "lib", "python%d.%d" % sys.version_info[:2], "site-packages"))

from lbadaptor.adaptor.wsgi import application  # noqa: E402, F401
