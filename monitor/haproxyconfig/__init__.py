"""What writes HAProxy's configuration, for machines that share visitors."""
