"""Measurements, each a script that prints a table and compares sides in one run. `make bench` prints them all."""
