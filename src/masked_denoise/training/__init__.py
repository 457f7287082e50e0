"""Training: batches from any data, the loop on accelerate, checkpoints and scores."""
