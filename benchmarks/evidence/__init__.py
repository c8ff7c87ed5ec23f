"""What `benchmarks/methods.py` is made of: every method against the others on one problem, with one tuning budget."""
