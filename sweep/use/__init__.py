"""Using the answer: evaluate runs on other text, export them, and train the compute-optimal run."""
