"""Modality bias in any model's attention, seen from its queries and keys."""
