"""The watcher: the child process of the arbiter that probes, and listens on the control socket."""
