"""Images of your own: folders, tables and Hugging Face datasets."""
