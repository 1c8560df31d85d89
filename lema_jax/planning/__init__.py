"""What a study consists of: its configuration, its jobs, where they stand, how long they take."""
