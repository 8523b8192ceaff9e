"""How to learn: one train loop, optimizer, sharded step and checkpoint layer for every system."""
