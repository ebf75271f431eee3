"""What the experiments of the papers say: one module each with a function `analyse`."""
