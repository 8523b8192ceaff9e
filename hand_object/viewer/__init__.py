"""One offline page that shows a reconstruction: no network, no other program, no library."""
