"""Benchmarks: `make bench` runs `against_trl`."""
