"""The command line: one task, sweeps of many, and the processes of both."""
