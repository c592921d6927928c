"""What the monitor decides. Pure: facts in, actions out."""
