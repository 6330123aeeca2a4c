"""The token heatmap: one renderer (JavaScript, text nodes only) for the app's component and the exported page."""
