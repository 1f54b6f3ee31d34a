"""From a dataset or a loader to the batches of a phase: choosing, reading, sharding."""
