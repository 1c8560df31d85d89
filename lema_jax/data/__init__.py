"""From jsonl rows to batches: filter, mix, tokenise, store, read."""
