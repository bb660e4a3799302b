"""The loop, its run folder, and what is written while it runs."""
