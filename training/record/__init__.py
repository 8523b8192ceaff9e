"""What a run leaves behind: metrics, events, recordings, its folder and its report."""
