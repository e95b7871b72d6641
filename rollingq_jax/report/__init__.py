"""What a workdir's files say, as tables and figures; no jax."""

from rollingq_jax.report.figures import draw_curves
from rollingq_jax.report.summary import print_summary

__all__ = ["draw_curves", "print_summary"]
