"""How good a reconstruction is: each number with its unit and its protocol."""
