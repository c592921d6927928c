"""The AppServer's HTTP: connections, threads, limits."""
