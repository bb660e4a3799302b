"""What a model is conditioned on, one file a kind of condition."""
