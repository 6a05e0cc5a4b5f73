"""Training: base models and the incremental step, one loop for both."""
