"""Ghost text: what the model would write at the cursor, in a notebook's cells and in terminal IPython."""
