"""The files that the arbiter alone writes."""
