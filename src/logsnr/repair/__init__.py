"""Files damaged and repaired: what was done to a picture in words, and a trained model that mends it."""
