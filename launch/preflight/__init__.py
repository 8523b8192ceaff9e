"""`podvision preflight`: what a run would do on a pod, found out without one.

`command.py` is the command. `checks.py` runs the checks of one config in order; each check has a
file of its own and gives `rows.Row`. What needs the compiler runs in `child.py`, a process of its
own, which `hlo.py`, `collectives.py`, `memory.py` and `figures.py` read the compiled program for.
"""
