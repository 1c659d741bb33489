"""Questions, one folder each: README.md, run.py, results/. `make claims` prints what they claim."""
