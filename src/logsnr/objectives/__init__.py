"""What training minimises, one class a loss."""
