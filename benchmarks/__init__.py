"""Benchmarks of the claims on speed; each is a module with a command line."""
