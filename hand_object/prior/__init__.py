"""The diffusion prior of a hand that holds an object, and the gradient that it gives (SDS)."""
