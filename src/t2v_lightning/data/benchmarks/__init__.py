"""The benchmarks of the literature, one file each."""
