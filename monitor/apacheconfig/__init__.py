"""What writes, reads and checks Apache's configuration."""
