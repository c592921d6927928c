"""The AppServer as a process: what it is handed, what it obeys, what it tells."""
