"""The networks: encoder, predictor, attention."""
