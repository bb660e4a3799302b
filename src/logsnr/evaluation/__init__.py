"""How good a model is: its likelihood, and how far what it draws is from the data."""
