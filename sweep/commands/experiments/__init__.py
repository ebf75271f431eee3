"""Commands for experiments: compare and reproduce."""
