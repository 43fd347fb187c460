"""What several analyses need: images with captions and labels, statistics, and figures."""
