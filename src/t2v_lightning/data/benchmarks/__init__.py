"""The benchmarks of the literature: where their files are, how they are read, which tasks they hold."""
