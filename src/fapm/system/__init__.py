"""Requests to the operating system: files, streams, locks, threads and processes."""
