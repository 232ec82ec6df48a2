"""How fast genzoo is: `python -m benchmarks` (`make bench`), `benchmarks.growth` and `benchmarks.time_to_quality`.

What is measured is written to `benchmarks/results`, a file for each kind of hardware, from which `docs/benchmarks.md`
is drawn.
"""
