"""Runs and curves from tables: our own after a sweep is collected, and anybody else's."""

from sweep.tables.conventions import read_tables
