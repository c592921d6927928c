"""The monitor: forks AppServers, probes them, replaces the dead, and alone writes address.text."""
