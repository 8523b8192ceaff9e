"""The loss terms, and the views of a batch that they are summed over."""
