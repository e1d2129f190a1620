"""Machine code for the decoder's inner loops, made when a model is loaded."""
