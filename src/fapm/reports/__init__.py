"""Reports for people: heatmaps, charts, and one HTML page that holds both."""
