"""The torture test: visitors, a fault injector, and rules for the records (`make torture MINUTES=5 SEED=7`)."""
