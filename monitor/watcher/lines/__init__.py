"""What AppServers say: read from their files, and forwarded line by line."""
