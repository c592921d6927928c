"""What lbctl shows in a terminal."""
