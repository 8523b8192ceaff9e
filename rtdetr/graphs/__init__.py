"""The trained network as one self-contained graph, for programs without its Python code."""
