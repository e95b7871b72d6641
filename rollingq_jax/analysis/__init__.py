"""What a run costs, and what its model does."""
