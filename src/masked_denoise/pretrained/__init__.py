"""Models with a name, models on the Hub, and model cards."""
