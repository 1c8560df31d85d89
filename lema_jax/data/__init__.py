"""From rows to batches: curate, encode, store, read."""
