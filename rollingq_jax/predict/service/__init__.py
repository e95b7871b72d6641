"""Predictions over HTTP: `python -m rollingq_jax.predict MODEL --serve`."""
