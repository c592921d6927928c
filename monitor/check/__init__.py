"""What goes wrong in installations: `lbctl doctor` and `lbmonitor --check`."""
