"""Models with a name, models on the Hub, and the cards that describe them."""
