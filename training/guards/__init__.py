"""Checks that refuse or stop a run, before the start and at every update; a watchdog for hangs."""
