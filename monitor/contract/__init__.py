"""What the monitor's programs agree on."""
