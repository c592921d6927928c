"""What adaptor, AppServers and monitor agree on: files, headers, cookies, settings, errors."""
