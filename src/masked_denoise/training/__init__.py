"""Training: batches out of any data, the loop on accelerate, checkpoints and scores."""
