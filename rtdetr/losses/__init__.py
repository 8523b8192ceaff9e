"""From predictions and objects to the terms of the loss."""
