"""The arbiter: the proposal's "wimpy parent process"."""
