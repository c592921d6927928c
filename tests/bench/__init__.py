"""The benchmark: `make bench`. Ours and what people use today, side by side, in one run."""
