"""The log of all programs, and texts for people in it."""
