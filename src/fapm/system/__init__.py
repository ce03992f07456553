"""What is asked of the operating system: files, streams, locks, threads and processes."""
