"""Kinds of examples, and the seeded order in which they come."""
