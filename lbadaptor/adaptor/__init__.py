"""The adaptor: the WSGI middleware in Apache's processes."""
