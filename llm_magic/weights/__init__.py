"""A name or a path to a model and its tokenizer."""
