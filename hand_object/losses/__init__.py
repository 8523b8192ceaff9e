"""The terms of the loss: each a sum and the weight that it is divided by."""
