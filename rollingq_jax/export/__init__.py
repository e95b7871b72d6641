"""A trained model as a folder to take along: weights, program, card."""
