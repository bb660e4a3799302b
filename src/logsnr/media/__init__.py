"""Between what people look at or listen to and the arrays that a model knows."""
