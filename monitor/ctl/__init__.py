"""`lbctl`."""
