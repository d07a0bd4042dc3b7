"""What a process is to its channels: its ends, its subscriptions, its copy of the shared memory."""
