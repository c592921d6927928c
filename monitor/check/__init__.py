"""`lbmonitor --check`."""
