"""`python -m tests.bench`: this engine, llama.cpp and transformers on the same file, prompts and threads."""
