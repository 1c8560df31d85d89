"""Programs for TPUs that are not there: compiled, weighed and timed on paper."""
