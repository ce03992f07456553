"""What people look at: heatmaps, charts, and one HTML page that holds both."""
