"""Images and their objects: from files of others to batches."""
