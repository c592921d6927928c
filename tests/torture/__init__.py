"""The torture test: visitors, a fiend, and a proof from the records (`make torture MINUTES=5 SEED=7`)."""
