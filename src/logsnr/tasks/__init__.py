"""Kinds of data: what training, sampling and evaluation need of each, put together in a task."""
