"""Benchmarks: the papers' protocols on real CT, every strategy on the same budget; results that anyone can repeat."""
